"""ABMIL as MHIM-MIL's repository writes it, and MHIM-MIL's own attention form."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edge_mil_export.architectures.aem import pool_heads
from edge_mil_export.architectures.head import AttentionHead, activation, gated, mhim_attention
from edge_mil_export.architectures.layers import (
    FRESH_HIDDEN,
    FRESH_WIDTH,
    Arrays,
    arrays_of,
    fresh_parts,
)
from edge_mil_export.architectures.options import ACTIVATION, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader
from edge_mil_export.errors import ArchitectureError

MERGE_HEADS = 8
"""Heads of the tokens' attention, as published; the file does not tell."""
TOKEN_OUTPUTS = ("token_values", "token_logits")
FRESH_MERGE_DIM, FRESH_TOKENS = 64, 5
"""The official 512 and 10, scaled."""


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
        DearCaat/MHIM-MIL, modules/abmil.py. No official output of the
        variants with norms was at hand.
    """

    options = (ACTIVATION,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        if "feature.1.weight" in reader:
            feature_dim = reader.tensor("feature.1.weight", None, None).shape[1]
            before: nn.Module = reader.layer_norm("feature.0", feature_dim)
            first = reader.linear("feature.1", feature_dim, bias=None)
        else:
            before = nn.Identity()
            first = reader.linear("feature.0", bias=None)
            feature_dim = first.in_features
        width = first.out_features
        after: nn.Module = nn.Identity()
        if "norm.running_mean" in reader:
            if feature_dim == width:
                raise ArchitectureError(
                    "its batch norm may lie before or after the embedding, since both are "
                    f"{width} wide, and the file does not say which"
                )
            if len(reader.tensor("norm.weight", None)) == width:
                after = reader.batch_norm("norm", width)
            else:
                before = reader.batch_norm("norm", feature_dim)
        elif "norm.weight" in reader:
            after = reader.layer_norm("norm", width)
        attention = gated(reader, "attention.0", "", "attention.2", width, bias=None)
        if "norm1.running_mean" in reader:
            last: nn.Module = reader.batch_norm("norm1", attention.channels * width)
        elif "norm1.weight" in reader:
            last = reader.layer_norm("norm1", attention.channels * width)
        else:
            last = nn.Identity()
        classifier = reader.linear("classifier", attention.channels * width, bias=None)
        embed = nn.Sequential(before, first, activation(options["activation"]), after)
        self.assemble(embed, attention, classifier, feature_dim=feature_dim, before_classifier=last)

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
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
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
    """

    options = (
        ACTIVATION,
        Option("attention_activation", ("relu", "gelu", "tanh"), "the attention of each instance"),
        Option("merge_test", ("true", "false"), "the pooled vector", "false"),
    )

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("feature.0", bias=None)
        width = first.out_features
        branch_activation = options["attention_activation"]
        attention = mhim_attention(reader, "online_encoder.attention", width, branch_activation)
        classifier = reader.linear("predictor", attention.channels * width, bias=None)
        embed = nn.Sequential(first, activation(options["activation"]))
        self.assemble(embed, attention, classifier, feature_dim=first.in_features)
        self.merge: Merge | None = None
        if options["merge_test"] == "true":
            self.merge = Merge(reader, width)
            self.pooling = "merged_tokens"
            self.extra_outputs = TOKEN_OUTPUTS  # type: ignore[misc] # only where tokens are merged
        else:
            reader.ignore(["merge."])

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings and attention logits, and what the tokens attend."""
        h = self.embed(features)
        logits = self.attention(h)
        return (h, logits) if self.merge is None else (h, logits, *self.merge.attend(h))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.merge is None:
            return super().forward(features)
        h, logits, values, token_logits = self.attend(features)
        tokens = self.merge.join(pool_heads(values, token_logits, MERGE_HEADS))
        weights = torch.softmax(torch.cat([logits, self.attention(tokens)]), dim=0)
        return self.classify((weights.T @ torch.cat([h, tokens]))[None])[0]

    def arrays(self) -> Arrays:
        """Return what makes tokens, and the attention that weighs them."""
        if self.merge is None:
            return {}
        attention = self.attention
        layers = {"branch": attention.branch, "last": attention.last, "gate": attention.gate}
        return arrays_of({"to_out": self.merge.join, **layers}) | {
            "heads": np.array(MERGE_HEADS),
            "tokens": np.array(self.merge.queries.shape[1]),
            "token_dim": np.array(self.merge.width),
        }

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at, width = "online_encoder.attention.attention", FRESH_WIDTH
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, width),
                f"{at}.0": nn.Linear(width, FRESH_HIDDEN, bias=False),
                f"{at}.2": nn.Linear(FRESH_HIDDEN, 1, bias=False),
                "predictor": nn.Linear(width, outputs),
                "merge.norm": nn.LayerNorm(width),
                "merge.attn.to_q": nn.Linear(width, FRESH_MERGE_DIM, bias=False),
                "merge.attn.to_kv": nn.Linear(width, 2 * FRESH_MERGE_DIM, bias=False),
                "merge.attn.to_out.0": nn.Linear(FRESH_MERGE_DIM, width),
            }
        ) | {"merge.global_q": nn.init.normal_(torch.empty(1, FRESH_TOKENS, width), std=0.02)}


class Merge(nn.Module):
    """Tokens that attend the bag from learned queries, in eight heads.

    The file holds the queries twice, tied, as `global_q` and `global_q_mm`.

    Source:
        DearCaat/MHIM-MIL, modules/mhim.py.
    """

    def __init__(self, reader: StateDictReader, width: int) -> None:
        super().__init__()
        query = reader.tensor("merge.global_q", 1, None, width)
        if "merge.global_q_mm" in reader:
            tied = reader.tensor("merge.global_q_mm", *query.shape)
            if not torch.equal(query, tied):
                raise ArchitectureError("its merge.global_q and merge.global_q_mm differ")
        self.queries = nn.Parameter(query.clone())
        self.norm = reader.layer_norm("merge.norm", width)
        self.to_q = reader.linear("merge.attn.to_q", width, bias=None)
        self.width = self.to_q.out_features
        self.to_kv = reader.linear("merge.attn.to_kv", width, 2 * self.width, bias=None)
        self.join = reader.linear("merge.attn.to_out.0", self.width, width, bias=None)
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
