"""ABMIL as MHIM-MIL's repository writes it, and MHIM-MIL's own attention form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edge_mil_export.architectures.aem import pool_heads
from edge_mil_export.architectures.head import (
    ACTIVATION,
    AttentionHead,
    Option,
    Options,
    activation,
    gated,
)
from edge_mil_export.architectures.nystrom import fresh_parts, linear_arrays
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

MERGE_HEADS = 8
"""Heads of the tokens' attention, as published; the file does not tell."""
TOKEN_OUTPUTS = ("token_values", "token_logits")

FRESH_WIDTH, FRESH_HIDDEN, MERGE_DIM, FRESH_TOKENS = 64, 32, 64, 5
"""The official 512, 128, 512 and 10, scaled."""


@architecture(
    "abmil_mhim_repo",
    keys=("feature.0.weight", "attention.2.weight", "classifier.weight"),
    row=171,
)
class AbmilMhimRepo(AttentionHead):
    """`DAttention` with the repository's norms and biases, all of which the keys tell.

    A layer norm before the embedding is `feature.0` and moves the layer to `feature.1`; a norm
    after it, or a batch norm, is `norm`; `norm1` acts on the pooled vector.

    Source:
        DearCaat/MHIM-MIL, modules/abmil.py; `aggregators.md`, 4.1. No official output of the
        variants with norms was at hand.
    """

    options = (ACTIVATION,)

    def __init__(self, layout: StateDictReader, options: Options) -> None:
        super().__init__(layout, options)
        if "feature.1.weight" in layout:
            feature_dim = layout.tensor("feature.1.weight", None, None).shape[1]
            before: nn.Module = layout.layer_norm("feature.0", feature_dim)
            first = layout.linear("feature.1", feature_dim, bias=None)
        else:
            before = nn.Identity()
            first = layout.linear("feature.0", bias=None)
            feature_dim = first.in_features
        width = first.out_features
        after: nn.Module = nn.Identity()
        if "norm.running_mean" in layout:
            if feature_dim == width:
                raise ArchitectureError(
                    "its batch norm may lie before or after the embedding, since both are "
                    f"{width} wide, and the file does not say which"
                )
            if len(layout.tensor("norm.weight", None)) == width:
                after = layout.batch_norm("norm", width)
            else:
                before = layout.batch_norm("norm", feature_dim)
        elif "norm.weight" in layout:
            after = layout.layer_norm("norm", width)
        attention = gated(layout, "attention.0", "", "attention.2", width, bias=None)
        if "norm1.running_mean" in layout:
            last: nn.Module = layout.batch_norm("norm1", attention.channels * width)
        elif "norm1.weight" in layout:
            last = layout.layer_norm("norm1", attention.channels * width)
        else:
            last = nn.Identity()
        classifier = layout.linear("classifier", attention.channels * width, bias=None)
        embed = nn.Sequential(before, first, activation(options["activation"]), after)
        self.assemble(embed, attention, classifier, feature_dim=feature_dim, before_classifier=last)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh head of width 64, without norms."""
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "attention.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                "attention.2": nn.Linear(FRESH_HIDDEN, 1),
                "classifier": nn.Linear(FRESH_WIDTH, outputs),
            }
        )


@architecture(
    "mhim_abmil",
    keys=(
        "online_encoder.attention.attention.0.weight|online_encoder.attention.attention_a.0.weight"
        "|online_encoder.attention.attention_a.weight",
        "predictor.weight",
    ),
    row=80,
)
class MhimAbmil(AttentionHead):
    """MHIM-MIL over attention: `forward_test` of the student or the teacher.

    The masking is training only, and so is `merge.*` unless merge_test says that the test merges
    too: then tokens that attend the whole bag join it.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py; `aggregators.md`,
        4.1 and 4.5.
    """

    options = (
        ACTIVATION,
        Option("attention_activation", ("relu", "gelu", "tanh"), "the attention of each instance"),
        Option("merge_test", ("true", "false"), "the pooled vector", "false"),
    )

    def __init__(self, layout: StateDictReader, options: Options) -> None:
        super().__init__(layout, options)
        first = layout.linear("feature.0", bias=None)
        width = first.out_features
        at = "online_encoder.attention"
        names = (f"{at}.attention.0", "", f"{at}.attention.2")
        if f"{at}.attention_c.weight" in layout:
            tail = "" if f"{at}.attention_a.weight" in layout else ".0"
            names = (f"{at}.attention_a{tail}", f"{at}.attention_b{tail}", f"{at}.attention_c")
        bend = options["attention_activation"]
        attention = gated(layout, *names, width, bias=None, bend=bend)
        classifier = layout.linear("predictor", attention.channels * width, bias=None)
        embed = nn.Sequential(first, activation(options["activation"]))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)
        self.merge: Merge | None = None
        if options["merge_test"] == "true":
            self.merge = Merge(layout, width)
            self.pooling = "merged_tokens"
            self.extra_outputs = TOKEN_OUTPUTS  # type: ignore[misc] # only where tokens are merged
        else:
            layout.ignore(["merge."])

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings and attention logits, and what the tokens attend."""
        h = self.embed(features)
        logits = self.attention(h)
        return (h, logits) if self.merge is None else (h, logits, *self.merge.attend(h))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a whole bag (n, d)."""
        if self.merge is None:
            return super().forward(features)
        h, logits, values, token_logits = self.attend(features)
        tokens = self.merge.join(pool_heads(values, token_logits, MERGE_HEADS))
        weights = torch.softmax(torch.cat([logits, self.attention(tokens)]), dim=0)
        return self.classify((weights.T @ torch.cat([h, tokens]))[None])[0]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what makes tokens, and the attention that weighs them."""
        if self.merge is None:
            return {}
        found = linear_arrays("to_out", self.merge.join)
        found |= linear_arrays("branch", self.attention.branch)
        found |= linear_arrays("last", self.attention.last)
        if self.attention.gate is not None:
            found |= linear_arrays("gate", self.attention.gate)
        return found | {
            "heads": np.array(MERGE_HEADS),
            "tokens": np.array(self.merge.queries.shape[1]),
            "token_dim": np.array(self.merge.width),
        }

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a fresh student of width 64, with what merge_test=true merges."""
        at, width = "online_encoder.attention.attention", FRESH_WIDTH
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, width),
                f"{at}.0": nn.Linear(width, FRESH_HIDDEN, bias=False),
                f"{at}.2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
                "predictor": nn.Linear(width, outputs),
                "merge.norm": nn.LayerNorm(width),
                "merge.attn.to_q": nn.Linear(width, MERGE_DIM, bias=False),
                "merge.attn.to_kv": nn.Linear(width, 2 * MERGE_DIM, bias=False),
                "merge.attn.to_out.0": nn.Linear(MERGE_DIM, width),
            }
        ) | {"merge.global_q": nn.init.normal_(torch.empty(1, FRESH_TOKENS, width), std=0.02)}


class Merge(nn.Module):
    """Tokens that attend the bag from learned queries, in eight heads.

    The file holds the queries twice, tied, as `global_q` and `global_q_mm`.

    Source:
        DearCaat/MHIM-MIL, modules/mhim.py; `aggregators.md`, 2 and 4.5.
    """

    def __init__(self, layout: StateDictReader, width: int) -> None:
        super().__init__()
        query = layout.tensor("merge.global_q", 1, None, width)
        if "merge.global_q_mm" in layout:
            tied = layout.tensor("merge.global_q_mm", *query.shape)
            if not torch.equal(query, tied):
                raise ArchitectureError("its merge.global_q and merge.global_q_mm differ")
        self.queries = nn.Parameter(query.clone())
        self.norm = layout.layer_norm("merge.norm", width)
        self.to_q = layout.linear("merge.attn.to_q", width, bias=None)
        self.width = self.to_q.out_features
        self.to_kv = layout.linear("merge.attn.to_kv", width, 2 * self.width, bias=None)
        self.join = layout.linear("merge.attn.to_out.0", self.width, width, bias=None)
        if self.width % MERGE_HEADS:
            raise ArchitectureError(
                f"merge.attn.to_q gives {self.width} columns, which {MERGE_HEADS} heads do not "
                "share evenly"
            )

    def attend(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values (n, w) and logits (n, heads * tokens), head by head, of (n, l)."""
        each = self.width // MERGE_HEADS
        queries = self.to_q(self.norm(self.queries[0])) * each**-0.5
        split = queries.reshape(-1, MERGE_HEADS, each).permute(1, 0, 2)
        both = self.to_kv(self.norm(h))
        keys = both[:, : self.width].reshape(h.shape[0], MERGE_HEADS, each).permute(1, 2, 0)
        return both[:, self.width :], torch.bmm(split, keys).flatten(0, 1).T
