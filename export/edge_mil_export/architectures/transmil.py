"""TransMIL, and MHIM-MIL over a transformer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

from edge_mil.errors import NotThereYetError
from edge_mil_export.architectures.head import WholeBagHead, activation
from edge_mil_export.architectures.layers import FRESH_WIDTH, Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.nystrom import (
    GridConvolution,
    NystromLayer,
    fresh_grid,
    fresh_nystrom,
)
from edge_mil_export.architectures.options import ACTIVATION, BOOLEAN, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader

NYSTROM = Option(
    "nystrom",
    ("0.0.9", "later"),
    "which rows the attention of nystrom-attention 0.0.9 or of a later version returns",
)
SMALLEST_GRID = 7
"""MHIM-MIL's grids are at least as large as their largest kernel."""


class TransformerHead(WholeBagHead):
    """Embeds each instance; `edge_mil.aggregators.whole_bag.transmil` does the rest."""

    order = "grid"

    def assemble(
        self,
        reader: StateDictReader,
        embed: nn.Module,
        prefix: str,
        *,
        feature_dim: int,
        layers: Sequence[NystromLayer],
        grid: str,
        head: str,
    ) -> None:
        """Build what is around the layers.

        Args:
            reader: The state dict.
            embed: Features (n, d) to embeddings (n, l).
            prefix: Before the keys of the transformer.
            feature_dim: Width d of a feature.
            layers: The Nystrom layers; the grid convolution comes after the first.
            grid: Name of the grid convolution.
            head: Prefix of the classifier.
        """
        width = layers[0].norm.normalized_shape[0]
        self.embed, self.layers = embed, nn.ModuleList(layers)
        self.cls_token = nn.Parameter(reader.tensor(f"{prefix}cls_token", 1, 1, width).clone())
        self.grid = GridConvolution(reader, f"{prefix}{grid}", width)
        self.norm = reader.layer_norm(f"{prefix}norm", width)
        self.last = reader.linear(head, width)
        self.feature_dim, self.value_dim = feature_dim, width
        self.channels, self.outputs = 0, self.last.out_features

    def arrays(self) -> Arrays:
        found = arrays_of({"cls_token": self.cls_token.flatten()})
        found |= nystrom_arrays(self.layers)
        found |= self.grid.arrays("ppeg")
        return found | arrays_of({"norm": self.norm, "head": self.last})

    def classified(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) after the layers that follow the grid convolution."""
        for layer in self.layers[1:]:
            sequence = layer(sequence)
        logits: torch.Tensor = self.last(self.norm(sequence[0]))
        return logits


class RepeatingTransformerHead(TransformerHead):
    """TransMIL's form: the first instances fill the grid, and attention counts them again."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        side = math.isqrt(len(h) - 1) + 1
        filled = torch.cat([self.cls_token[0], h, h[: side * side - len(h)]])
        filled = self.layers[0](filled)
        return self.classified(torch.cat([filled[:1], self.grid(filled[1:], side)]))


def nystrom_arrays(layers: Iterable[nn.Module]) -> Arrays:
    """Return the arrays of layers, as `layer1`, `layer2`, ..."""
    found: Arrays = {}
    for number, layer in enumerate(layers, start=1):
        assert isinstance(layer, NystromLayer)
        found |= layer.arrays(f"layer{number}")
    return found


@architecture(
    "transmil",
    keys=("_fc1.0.weight", "pos_layer.proj.weight", "layer1.attn.to_qkv.weight"),
    row=190,
)
class TransMil(RepeatingTransformerHead):
    """TransMIL; its answer depends on the version of nystrom-attention that it was trained with.

    Source:
        Shao et al. 2021, arXiv:2106.00908; szc19990412/TransMIL, models/TransMIL.py, and PyPI
        nystrom-attention.
    """

    options = (NYSTROM,)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "transmil"
        first = reader.linear("_fc1.0")
        keep_last = options["nystrom"] == "later"
        layers = [
            NystromLayer(reader, name, first.out_features, keep_last=keep_last)
            for name in ("layer1", "layer2")
        ]
        self.assemble(
            reader,
            nn.Sequential(first, nn.ReLU()),
            "",
            feature_dim=first.in_features,
            layers=layers,
            grid="pos_layer",
            head="_fc2",
        )

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "_fc1.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "norm": nn.LayerNorm(FRESH_WIDTH),
            "_fc2": nn.Linear(FRESH_WIDTH, outputs),
        }
        return fresh_parts(parts) | _fresh_transformer("", "pos_layer")


@architecture("mhim_transmil", keys=("online_encoder.cls_token",), row=70)
class MhimTransMil(TransformerHead):
    """MHIM-MIL over a transformer: `forward_test` of the student or the teacher.

    Unlike TransMIL its attention counts each instance once, and its grid is at least 7 x 7. The
    masking is training only, and so is `merge.*` unless its authors' test merges.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
    """

    options = (
        ACTIVATION,
        Option(
            "merge_test",
            BOOLEAN,
            "the bag that the transformer takes",
            "false",
            matters=lambda state: any(key.startswith("merge.") for key in state),
        ),
    )
    training_only = ("merge.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        self.pooling = "mhim_transmil"
        if options.get("merge_test") == "true":
            raise NotThereYetError(
                "merge_test=true is there for mhim_abmil only; without it the score is that of "
                "the authors' default test."
            )
        first, at = reader.linear("feature.0"), "online_encoder."
        layers = [
            NystromLayer(reader, f"{at}{name}", first.out_features, keep_last=True)
            for name in ("layer1", "layer2")
        ]
        self.assemble(
            reader,
            nn.Sequential(first, activation(options["activation"])),
            at,
            feature_dim=first.in_features,
            layers=layers,
            grid="pos_embedding",
            head="predictor",
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        sequence = self.layers[0](torch.cat([self.cls_token[0], h]))
        rows, count = sequence[1:], len(h)
        side = math.isqrt(count - 1) + 1
        grid = torch.cat([rows, rows[: side * side - count]])
        side = max(side, SMALLEST_GRID)
        grid = functional.pad(grid, (0, 0, 0, side * side - len(grid)))
        convolved = self.grid(grid, side)[:count]
        return self.classified(torch.cat([sequence[:1], convolved]))

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        parts: dict[str, nn.Module] = {
            "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
            "online_encoder.norm": nn.LayerNorm(FRESH_WIDTH),
            "predictor": nn.Linear(FRESH_WIDTH, outputs),
        }
        return fresh_parts(parts) | _fresh_transformer("online_encoder.", "pos_embedding")


def _fresh_transformer(prefix: str, grid: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}cls_token": torch.randn(1, 1, FRESH_WIDTH),
        **fresh_nystrom(f"{prefix}layer1", FRESH_WIDTH),
        **fresh_nystrom(f"{prefix}layer2", FRESH_WIDTH),
        **fresh_grid(f"{prefix}{grid}", FRESH_WIDTH),
    }
