"""Full attention between all instances, in torch: the layers that several repositories share.

Source:
    Vaswani et al. 2017, arXiv:1706.03762.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edge_mil_export.architectures.head import WholeBagHead
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of
from edge_mil_export.architectures.nystrom import checked_heads, mlp_arrays
from edge_mil_export.architectures.options import INTEGER, Option

HEADS = Option("heads", INTEGER, "every attention")


class AttentionLayer(nn.Module):
    """x + attention(LN x), then perhaps + MLP(LN x).

    The device's part, in NumPy, is `edge_mil.aggregators.whole_bag.transformer`.
    """

    def __init__(
        self,
        norm: nn.LayerNorm,
        qkv: nn.Linear,
        out: nn.Linear | None,
        mlp: nn.Sequential | None,
        heads: int,
        slopes: torch.Tensor | None = None,
    ) -> None:
        """Take the parts.

        Args:
            norm: Before the attention.
            qkv: Rows (n, l) to queries, keys and values side by side.
            out: After the attention; None: nothing is.
            mlp: With its own norm; None: there is none.
            heads: Heads of the attention.
            slopes: What each head's weights lose for each unit of distance, (heads,).
        """
        super().__init__()
        self.norm, self.qkv, self.out, self.mlp = norm, qkv, out, mlp
        self.heads = checked_heads(heads, qkv.out_features // 3)
        self.slopes = None if slopes is None else nn.Parameter(slopes)

    def forward(self, x: torch.Tensor, distances: torch.Tensor | None = None) -> torch.Tensor:
        """Return the layer's answer (n, l) to rows (n, l) at distances (n, n) of each other."""
        split = self.qkv(self.norm(x)).reshape(len(x), 3, self.heads, -1)
        query, key, value = split.permute(1, 2, 0, 3)
        weights = torch.softmax(query @ key.transpose(1, 2) * query.shape[2] ** -0.5, dim=-1)
        if self.slopes is not None and distances is not None:
            weights = weights - self.slopes[:, None, None] * distances
        mixed = (weights @ value).permute(1, 0, 2).flatten(1)
        x = x + (mixed if self.out is None else self.out(mixed))
        return x if self.mlp is None else x + self.mlp(x)

    def arrays(self, at: str) -> Arrays:
        parts = {f"{at}.norm": self.norm, f"{at}.qkv": self.qkv, f"{at}.out": self.out}
        found = arrays_of(parts) | mlp_arrays(self.mlp, at)
        return found | arrays_of({f"{at}.slope": self.slopes})


class TokenTransformer(WholeBagHead):
    """A class token before the instances, layers, a norm; the token's row is classified."""

    def assemble(
        self,
        embed: nn.Module,
        token: torch.Tensor,
        layers: list[AttentionLayer],
        norm: nn.LayerNorm,
        head: nn.Linear,
        *,
        feature_dim: int,
    ) -> None:
        """Set the parts, and the sizes that follow from them."""
        self.pooling, self.embed, self.layers = "transformer", embed, nn.ModuleList(layers)
        self.cls_token, self.norm, self.last = nn.Parameter(token.flatten().clone()), norm, head
        self.feature_dim, self.value_dim = feature_dim, len(self.cls_token)
        self.channels, self.outputs = 0, head.out_features

    def forward(
        self, features: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits (c,) of a bag (n, d) at positions (n, 2); the token is at (0, 0)."""
        x = torch.cat([self.cls_token[None], self.embed(features)])
        distances = None
        if positions is not None:
            points = torch.cat([positions.new_zeros(1, 2), positions]).to(x.dtype)
            distances = torch.cdist(points, points)
        for layer in self.layers:
            x = layer(x, distances)
        logits: torch.Tensor = self.last(self.norm(x[0]))
        return logits

    def arrays(self) -> Arrays:
        found = layer_arrays(self.layers) | arrays_of({"cls_token": self.cls_token})
        return found | arrays_of({"norm": self.norm, "head": self.last})

    def describe(self) -> str:
        return f"{len(self.layers)} layers"


def layer_arrays(layers: nn.ModuleList) -> Arrays:
    """Return the arrays of layers, as `layers`.0, `layers`.1, ..., and their `heads`."""
    found: Arrays = {}
    for number, layer in enumerate(layers):
        assert isinstance(layer, AttentionLayer)
        found |= layer.arrays(f"layers.{number}")
        found["heads"] = np.array(layer.heads)
    return found


def joined(layers: list[nn.Linear]) -> nn.Linear:
    """Return linear layers of the same input as one, their outputs side by side."""
    one = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    with torch.no_grad():
        one.weight.copy_(torch.cat([layer.weight for layer in layers]))
        one.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return one


def fresh_attention(prefix: str) -> dict[str, torch.Tensor]:
    """Return a fresh attention as `torch.nn.MultiheadAttention` names it."""
    state = nn.MultiheadAttention(FRESH_WIDTH, 1).state_dict()
    return {f"{prefix}.{key}": tensor for key, tensor in state.items()}
