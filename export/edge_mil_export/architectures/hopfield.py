"""Hopfield pooling: the layer alone, whose output is the pooled vector."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import layer_norm

from edge_mil.errors import UsageError
from edge_mil_export.architectures.aem import pool_heads
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.options import COUNT, INTEGER, NUMBER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

SETTLED = 1e-4
"""Update steps of a head end when its weights move by no more (`update_steps_eps`)."""
USUAL_SCALING = "1/sqrt(hidden)"


@architecture(
    "hopfield",
    keys=("*pooling_weights", "*hopfield.association_core.in_proj_weight"),
    row=240,
    aliases={"hopfield_pooling": {}},
)
class HopfieldPooling(Head):
    """Association of learned state patterns with the bag's instances, in several heads.

    Without update steps the queries are constants, and the pooling mergeable. With them each query
    is drawn to the keys that it attends, and so depends on the bag, whose keys are all kept.

    Source:
        Ramsauer et al. 2021, arXiv:2008.02217; ml-jku/hopfield-layers, hflayers/__init__.py,
        `HopfieldPooling`, hflayers/functional.py.
    """

    options = (
        Option("heads", INTEGER, "the pooled vector"),
        Option("scaling", NUMBER, "the sharpness of the association", USUAL_SCALING),
        Option("update_steps_max", COUNT, "the queries", "0"),
    )
    kind = "pooling"

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        prefix = reader.prefix("pooling_weights")
        at = f"{prefix}hopfield"
        core = f"{at}.association_core"
        weight = reader.tensor(f"{core}.in_proj_weight", None, None)
        rows, width = weight.shape
        self.heads, self.steps = int(options["heads"]), int(options["update_steps_max"])
        if rows % (3 * self.heads):
            raise UsageError(
                f"heads={self.heads} does not divide the width {rows // 3} of the association "
                "evenly; name the heads that the layer was made with."
            )
        inner = rows // 3
        hidden = inner // self.heads
        given = options["scaling"]
        self.beta = hidden**-0.5 if given == USUAL_SCALING else float(given)
        patterns = reader.tensor(f"{prefix}pooling_weights", 1, None, width)
        self.patterns = nn.Parameter(patterns.clone())
        self.in_weight = nn.Parameter(weight.clone())
        has_bias = f"{core}.in_proj_bias" in reader
        bias = reader.tensor(f"{core}.in_proj_bias", rows) if has_bias else torch.zeros(rows)
        self.in_bias = nn.Parameter(bias.clone())
        self.norm_keys = reader.layer_norm(f"{at}.norm_stored_pattern", width)
        self.norm_queries = reader.layer_norm(f"{at}.norm_state_pattern", width)
        self.norm_values = reader.layer_norm(f"{at}.norm_pattern_projection", width)
        self.join = reader.linear(f"{core}.out_proj", inner, bias=None)
        quantity = patterns.shape[1]
        self.feature_dim, self.value_dim = width, inner
        self.channels = self.heads * quantity
        self.outputs = quantity * self.join.out_features
        self.pooling = "hopfield" if self.steps else "multihead"
        self.incremental = "banked" if self.steps else "mergeable"
        self.logits_in_attend = not self.steps  # type: ignore[misc] # per file
        self.extra_outputs = ("keys", "keys_rest") if self.steps else ()  # type: ignore[misc] # per file

    def scaled_queries(self) -> torch.Tensor:
        """Return beta q, float64 (heads, quantity, hidden)."""
        inner = self.value_dim
        normal = _exact_norm(self.patterns[0], self.norm_queries)
        queries = normal @ self.in_weight[:inner].double().T + self.in_bias[:inner].double()
        split = queries.reshape(len(queries), self.heads, -1).permute(1, 0, 2)
        scaled: torch.Tensor = split * self.beta
        return scaled

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return values (n, l) and logits (n, heads * quantity); with update steps keys (n, l).

        Update steps can amplify a rounding of the keys ten thousand times, so these are computed
        in float64 and given as two float32 numbers each: the rounded one, and what is left.
        """
        inner = self.value_dim
        weights, biases = self.in_weight[inner:], self.in_bias[inner:]
        values = self.norm_values(features) @ weights[inner:].T + biases[inner:]
        if self.steps:
            keys = self._exact_keys(features)
            rounded = keys.float()
            return values, values, rounded, (keys - rounded.double()).float()
        keys = self.norm_keys(features) @ weights[:inner].T + biases[:inner]
        return values, self._logits(self.scaled_queries().to(keys.dtype), keys)

    def _exact_keys(self, features: torch.Tensor) -> torch.Tensor:
        """Return the keys, float64 (n, l)."""
        inner = self.value_dim
        normal = _exact_norm(features, self.norm_keys)
        weight = self.in_weight[inner : 2 * inner].double()
        return normal @ weight.T + self.in_bias[inner : 2 * inner].double()

    def _logits(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        split = keys.reshape(keys.shape[0], self.heads, queries.shape[2]).permute(1, 2, 0)
        return torch.bmm(queries, split).flatten(0, 1).T

    @property
    def pooled_rows(self) -> int:
        """One row for each query, its heads side by side."""
        return self.channels // self.heads

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the layer's output (b, quantity * out) of pooled (b, quantity, l)."""
        joined: torch.Tensor = self.join(pooled)
        return joined.flatten(1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        values, logits, *extra = self.attend(features)
        if extra:
            logits = self._associate(self._exact_keys(features)).to(values.dtype)
        return self.classify(pool_heads(values, logits, self.heads)[None])[0]

    def _associate(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, heads * quantity) of the queries after their update steps."""
        queries = self.scaled_queries()
        split = keys.reshape(keys.shape[0], self.heads, -1).permute(1, 0, 2)
        going = torch.ones(self.heads, dtype=torch.bool)
        logits = torch.bmm(queries, split.transpose(1, 2))
        weights = torch.softmax(logits, dim=-1)
        for _ in range(self.steps):
            moved = torch.bmm(self.beta * torch.bmm(weights, split), split.transpose(1, 2))
            logits = torch.where(going[:, None, None], moved, logits)
            before, weights = weights, torch.softmax(logits, dim=-1)
            going = going & (torch.linalg.norm((weights - before).flatten(1), dim=1) > SETTLED)
        return logits.flatten(0, 1).T

    def arrays(self) -> Arrays:
        """Return the scaled queries, where update steps move them."""
        if not self.steps:
            return {}
        return arrays_of({"queries": self.scaled_queries()}) | {"beta": np.array(self.beta)}

    def describe(self) -> str:
        return f"{self.pooled_rows} quer{'ies' if self.pooled_rows > 1 else 'y'}"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at = "hopfield"
        core = nn.MultiheadAttention(feature_dim, 1)
        parts: dict[str, nn.Module] = {
            f"{at}.{name}": nn.LayerNorm(feature_dim)
            for name in ("norm_stored_pattern", "norm_state_pattern", "norm_pattern_projection")
        }
        parts[f"{at}.association_core.out_proj"] = nn.Linear(feature_dim, outputs)
        return fresh_parts(parts) | {
            "pooling_weights": torch.randn(1, 1, feature_dim),
            f"{at}.association_core.in_proj_weight": core.in_proj_weight.detach().clone(),
            f"{at}.association_core.in_proj_bias": core.in_proj_bias.detach().clone(),
        }


def _exact_norm(rows: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Return a layer norm in float64."""
    shift = norm.get_parameter("bias").double() if norm.bias is not None else None
    scale = norm.get_parameter("weight").double()
    return layer_norm(rows.double(), norm.normalized_shape, scale, shift, norm.eps)
