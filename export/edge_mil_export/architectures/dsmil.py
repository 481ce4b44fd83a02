"""DSMIL as its authors, Self-ViT-MIL and AEM write it, and MHIM-MIL's DSMIL form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_mil_export.architectures.head import Head, activation
from edge_mil_export.architectures.layers import FRESH_HIDDEN, FRESH_WIDTH, Arrays, fresh_parts
from edge_mil_export.architectures.options import ACTIVATION, Option, Options
from edge_mil_export.architectures.registry import architecture
from edge_mil_export.architectures.state_dict_reader import StateDictReader


def _passes_v(state: Mapping[str, torch.Tensor]) -> bool:
    return "b_classifier.v.1.weight" in state


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """How a repository names the bag's stream.

    Attributes:
        query: Prefix of the queries' layer or layers.
        value: Prefix of the embeddings' layer, whose number is 1.
        last: Prefix of the bag's classifier.
        norm: Prefix of a layer norm of each class' row; "" where there is none.
        is_flat: Whether the classifier of one class is a plain linear layer.
    """

    query: str
    value: str
    last: str
    norm: str = ""
    is_flat: bool = False


class TwoStreams(Head):
    """Instance logits, queries and embeddings; each class attends with its critical query."""

    incremental, logits_in_attend = "banked", False
    extra_outputs = ("queries", "instance_logits")

    def assemble(
        self,
        reader: StateDictReader,
        keys: StreamKeys,
        embed: nn.Module,
        instance: nn.Linear,
        *,
        value_activation: nn.Module,
    ) -> None:
        """Build the layers.

        Args:
            reader: The state dict.
            keys: How the bag's stream is named.
            embed: Features (n, d) to what both streams see.
            instance: The instances' stream.
            value_activation: After the embeddings' layer, where there is one.
        """
        width = instance.in_features
        self.pooling, self.embed, self.instance = "dsmil", embed, instance
        if f"{keys.query}.weight" in reader:
            self.query: nn.Module = reader.linear(keys.query, width)
            self.query_dim = reader.tensor(f"{keys.query}.weight", None, width).shape[0]
        else:
            first = reader.linear(f"{keys.query}.0", width)
            last = reader.linear(f"{keys.query}.2", first.out_features)
            self.query = nn.Sequential(first, nn.ReLU(), last, nn.Tanh())
            self.query_dim = last.out_features
        self.value: nn.Module = nn.Identity()
        value_dim = width
        if f"{keys.value}.1.weight" in reader:
            layer = reader.linear(f"{keys.value}.1", width)
            self.value, value_dim = nn.Sequential(layer, value_activation), layer.out_features
        classes = instance.out_features
        shape = (1, value_dim) if keys.is_flat and classes == 1 else (classes, classes, value_dim)
        weight = reader.tensor(f"{keys.last}.weight", *shape)
        # The convolution is as wide as its input: a product with all rows at once.
        self.last = nn.Linear(classes * value_dim, classes)
        with torch.no_grad():
            self.last.weight.copy_(weight.flatten(1))
            self.last.bias.copy_(reader.tensor(f"{keys.last}.bias", classes))
        self.row_norm: nn.Module = nn.Identity()
        if keys.norm:
            self.row_norm = reader.layer_norm(keys.norm, value_dim)
        self.value_dim, self.channels, self.outputs = value_dim, classes, classes

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings, instance logits (for the attention's), queries and instance logits."""
        h = self.embed(features)
        scores = self.instance(h)
        return self.value(h), scores, self.query(h), scores

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the bag's logits: each is a sum over the rows of all classes."""
        logits: torch.Tensor = self.last(self.row_norm(pooled).flatten(1))
        return logits

    def streams(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bag's logits and the largest instance logits, each (c,)."""
        values, _, queries, scores = self.attend(features)
        chosen = queries[scores.argmax(dim=0)]
        weights = torch.softmax(queries @ chosen.T / math.sqrt(self.query_dim), dim=0)
        return self.classify((weights.T @ values)[None])[0], scores.amax(dim=0)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.streams(features)[0]

    def arrays(self) -> Arrays:
        return {"query_dim": np.asarray(self.query_dim, dtype=np.int64)}

    def describe(self) -> str:
        linear = "linear" if isinstance(self.query, nn.Linear) else "two-layer"
        passing = "features" if isinstance(self.value, nn.Identity) else "a layer"
        return f"{linear} query of {self.query_dim}, values from {passing}"


DSMIL_KEYS = StreamKeys("b_classifier.q", "b_classifier.v", "b_classifier.fcc")


@architecture(
    "dsmil",
    keys=("b_classifier.fcc.weight",),
    row=100,
    aliases={"aem_dsmil": {}, "selfvit_dsmil": {"value_activation": "none"}},
)
class Dsmil(TwoStreams):
    """DSMIL over saved features; an extractor in the file (`IClassifier`) is left out.

    Source:
        Li, Li and Eliceiri 2021, arXiv:2011.08939; binli123/dsmil-wsi, dsmil.py;
        gokberkgul/self-learning-transformer-mil, src/dsmil/dsmil.py; dazhangyu123/AEM,
        architecture/dsmil.py.
    """

    options = (
        Option("value_activation", ("relu", "none"), "what is pooled", matters=_passes_v),
        Option("score", ("bag", "average", "average_softmax"), "the probabilities", "bag"),
    )
    training_only = ("i_classifier.feature_extractor.",)

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        at = "i_classifier.fc.0" if "i_classifier.fc.0.weight" in reader else "i_classifier.fc"
        instance = reader.linear(at)
        value_activation = nn.ReLU() if options.get("value_activation") == "relu" else nn.Identity()
        self.assemble(
            reader, DSMIL_KEYS, nn.Identity(), instance, value_activation=value_activation
        )
        self.feature_dim = instance.in_features
        self.sigmoid = options["score"] != "average_softmax"

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        return fresh_parts(
            {
                "i_classifier.fc.0": nn.Linear(feature_dim, outputs),
                "b_classifier.q.0": nn.Linear(feature_dim, FRESH_HIDDEN),
                "b_classifier.q.2": nn.Linear(FRESH_HIDDEN, FRESH_HIDDEN),
                "b_classifier.fcc": nn.Conv1d(outputs, outputs, feature_dim),
            }
        )


@architecture("mhim_dsmil", keys=("online_encoder.b_classifier.fcc.weight",), row=60)
class MhimDsmil(TwoStreams):
    """MHIM-MIL over DSMIL: its logits are the mean of the bag's and the largest instances'.

    Source:
        Tang et al. 2023, arXiv:2307.15254; DearCaat/MHIM-MIL, modules/mhim.py.
    """

    options = (ACTIVATION,)
    training_only = ("merge.", "predictor.")

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__(reader, options)
        first = reader.linear("feature.0", bias=None)
        embed = nn.Sequential(first, activation(options["activation"]))
        instance = reader.linear("online_encoder.i_classifier.0", first.out_features)
        at = "online_encoder.b_classifier"
        keys = StreamKeys(f"{at}.q", f"{at}.v", f"{at}.fcc")
        self.assemble(reader, keys, embed, instance, value_activation=nn.ReLU())
        self.feature_dim = first.in_features
        self.pooling = "mhim_dsmil"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean of both streams' logits (c,) of a whole bag (n, d)."""
        bag, top = self.streams(features)
        return 0.5 * bag + 0.5 * top

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        at = "online_encoder.b_classifier"
        return fresh_parts(
            {
                "feature.0": nn.Linear(feature_dim, FRESH_WIDTH),
                "online_encoder.i_classifier.0": nn.Linear(FRESH_WIDTH, outputs),
                f"{at}.q.0": nn.Linear(FRESH_WIDTH, FRESH_HIDDEN),
                f"{at}.q.2": nn.Linear(FRESH_HIDDEN, FRESH_HIDDEN),
                f"{at}.v.1": nn.Linear(FRESH_WIDTH, FRESH_WIDTH),
                f"{at}.fcc": nn.Conv1d(outputs, outputs, FRESH_WIDTH),
            }
        )
