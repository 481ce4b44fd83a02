"""Multi-head attention with learned queries: AEM's, and ACMIL's of several branches."""

from __future__ import annotations

import torch
from torch import nn

from edge_mil.errors import UsageError
from edge_mil_export.architectures.acmil import DimReduction
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.layers import FRESH_WIDTH, fresh_parts
from edge_mil_export.architectures.options import INTEGER, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

NORM_EPS = 1e-6
"""Of the layer norm after the attention."""
FRESH_BRANCHES = 5

HEADS = Option("heads", INTEGER, "the attention of each instance", "8")


class LearnedQueries(Head):
    """Embedding, multi-head attention of queries that the file holds, layer norm, classifier.

    The product of queries and key projection is a constant, so an instance costs one product for
    its logits.
    """

    def assemble(
        self,
        reader: StateDictReader,
        options: Options,
        *,
        scored: tuple[str, ...],
        valued: str,
        classifier: str,
    ) -> None:
        """Build the layers.

        Args:
            reader: The state dict.
            options: Hold `heads`.
            scored: Prefixes of the attentions, one for each row of `q`.
            valued: Prefix of what projects and joins the values.
            classifier: Prefix of the last layer.

        Raises:
            UsageError: The heads do not divide the attention's width.
        """
        self.pooling, self.heads = "multihead", int(options["heads"])
        self.embed = DimReduction(reader, "dimreduction")
        width = self.embed.fc1.out_features
        self.queries = nn.Parameter(reader.tensor("q", 1, len(scored), width).clone())
        self.query_layers = nn.ModuleList(reader.linear(f"{p}.q_proj", width) for p in scored)
        self.key_layers = nn.ModuleList(reader.linear(f"{p}.k_proj", width) for p in scored)
        self.value_layer = reader.linear(f"{valued}.v_proj", width)
        inner = self.value_layer.out_features
        self.join = reader.linear(f"{valued}.out_proj", inner, width)
        self.norm = reader.layer_norm(f"{valued}.layer_norm", width, eps=NORM_EPS)
        self.classifier = reader.linear(classifier, width)
        if inner % self.heads:
            raise UsageError(
                f"heads={self.heads} does not divide the attention's width {inner} evenly; name "
                "the heads that it was trained with (8 as published)."
            )
        self.feature_dim, self.value_dim = self.embed.fc1.in_features, inner
        self.channels, self.outputs = self.heads * len(scored), self.classifier.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return projected values (n, l) and logits (n, heads * branches), head by head."""
        h = self.embed(features)
        weights, shifts = [], []
        layers = zip(self.query_layers, self.key_layers, strict=True)
        for number, (query_layer, key_layer) in enumerate(layers):
            row = self.queries[0, number : number + 1]
            query = query_layer(row).reshape(self.heads, 1, -1)
            query = query / query.shape[-1] ** 0.5
            key_weight, key_bias = (
                p.reshape(self.heads, query.shape[-1], *p.shape[1:]) for p in _both(key_layer)
            )
            weights.append(torch.bmm(query, key_weight)[:, 0])
            shifts.append((query[:, 0] * key_bias).sum(dim=1))
        weight = torch.stack(weights, dim=1).flatten(0, 1)
        return self.value_layer(h), h @ weight.T + torch.stack(shifts, dim=1).flatten()

    @property
    def pooled_rows(self) -> int:
        """One row for each branch, its heads side by side."""
        return self.channels // self.heads

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits (b, c) of the branches' mean; pooled is (b, branches, l)."""
        logits: torch.Tensor = self.classifier(self.norm(self.join(pooled.mean(dim=1))))
        return logits

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        values, logits = self.attend(features)
        return self.classify(pool_heads(values, logits, self.heads)[None])[0]

    def describe(self) -> str:
        return f"{self.pooled_rows} branch{'es' if self.pooled_rows > 1 else ''}"


def pool_heads(values: torch.Tensor, logits: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the heads side by side for each query, (q, l), of values (n, l) and logits (n, k)."""
    count = values.shape[0]  # len would be a constant in an exported graph
    weights = torch.softmax(logits, dim=0).T.reshape(heads, -1, count)
    slices = values.reshape(count, heads, -1).permute(1, 0, 2)
    return torch.bmm(weights, slices).permute(1, 0, 2).flatten(1)


@architecture(
    "acmil_mha",
    keys=("Slide_classifier.fc.weight", "sub_attention.0.q_proj.weight"),
    row=120,
)
class AcmilMha(LearnedQueries):
    """ACMIL with multi-head attention: branches attend, and one shared projection is pooled.

    The branches' own values and classifiers help training only.

    Source:
        Zhang et al. 2024, arXiv:2311.07125; dazhangyu123/ACMIL, architecture/transformer.py,
        `ACMIL_MHA`.
    """

    options = (HEADS,)
    training_only = ("classifier.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        scored = tuple(f"sub_attention.{i}" for i in reader.indices("sub_attention."))
        reader.ignore(
            f"{p}.{part}." for p in scored for part in ("v_proj", "out_proj", "layer_norm")
        )
        self.assemble(
            reader,
            options,
            scored=scored,
            valued="bag_attention",
            classifier="Slide_classifier.fc",
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        width, branches = FRESH_WIDTH, FRESH_BRANCHES
        parts: dict[str, nn.Module] = {
            "dimreduction.fc1": nn.Linear(feature_dim, width, bias=False),
            "Slide_classifier.fc": nn.Linear(width, outputs),
        }
        for number in range(branches):
            parts |= _attention_parts(f"sub_attention.{number}", width, "qkv")
            parts[f"classifier.{number}.fc"] = nn.Linear(width, outputs)
        parts |= _attention_parts("bag_attention", width, "v")
        return fresh_parts(parts) | {"q": _fresh_queries(branches, width)}


@architecture(
    "aem_mha",
    keys=("dimreduction.fc1.weight", "attention.q_proj.weight", "q"),
    row=130,
)
class AemMha(LearnedQueries):
    """AEM with multi-head attention; its entropy term is a loss only.

    Source:
        Zhang et al. 2024, arXiv:2406.15303; dazhangyu123/AEM, architecture/transformer.py, `MHA`.
    """

    options = (HEADS,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.assemble(
            reader,
            options,
            scored=("attention",),
            valued="attention",
            classifier="classifier.fc",
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "dimreduction.fc1": nn.Linear(feature_dim, FRESH_WIDTH, bias=False),
            "classifier.fc": nn.Linear(FRESH_WIDTH, outputs),
        }
        parts |= _attention_parts("attention", FRESH_WIDTH, "qkv")
        return fresh_parts(parts) | {"q": _fresh_queries(1, FRESH_WIDTH)}


def _both(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight and bias of a linear layer out of a ModuleList, which forgets the kind."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")


def _attention_parts(prefix: str, width: int, projections: str) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {
        f"{prefix}.{name}_proj": nn.Linear(width, width) for name in projections
    }
    parts[f"{prefix}.out_proj"] = nn.Linear(width, width)
    parts[f"{prefix}.layer_norm"] = nn.LayerNorm(width, eps=NORM_EPS)
    return parts


def _fresh_queries(branches: int, width: int) -> torch.Tensor:
    queries = torch.empty(1, branches, width)
    nn.init.normal_(queries, std=1e-6)  # as published
    return queries
