"""Build the aggregator that a bundle's manifest names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from edge_mil.aggregators.banked.dsmil import DsmilAggregator
from edge_mil.aggregators.banked.dtfd_ranked import DtfdRankedAggregator
from edge_mil.aggregators.banked.hopfield import HopfieldAggregator
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.mergeable.attention import AttentionAggregator
from edge_mil.aggregators.mergeable.columnwise import (
    MaxAggregator,
    MeanAggregator,
    SumAggregator,
)
from edge_mil.aggregators.mergeable.dtfd import DtfdMeanAggregator, PseudoBags
from edge_mil.aggregators.mergeable.dtfd_linear import (
    DtfdLinearTopAggregator,
    DtfdSumAggregator,
)
from edge_mil.aggregators.mergeable.dtfd_top import DtfdTopAggregator
from edge_mil.aggregators.mergeable.mean_probability import MeanProbabilityAggregator
from edge_mil.aggregators.mergeable.merged_tokens import MergedTokensAggregator
from edge_mil.aggregators.mergeable.multihead import MultiheadAggregator
from edge_mil.aggregators.mergeable.top_instance import TopInstanceAggregator
from edge_mil.aggregators.whole_bag.cobra import CobraAggregator
from edge_mil.aggregators.whole_bag.ilra import IlraAggregator
from edge_mil.aggregators.whole_bag.longnet import LongNetAggregator, LongNetSettings
from edge_mil.aggregators.whole_bag.mambamil import MambaMilAggregator
from edge_mil.aggregators.whole_bag.otsurv import OtSurvAggregator
from edge_mil.aggregators.whole_bag.rrtmil import RrtMilAggregator, RrtSettings
from edge_mil.aggregators.whole_bag.transformer import TransformerAggregator
from edge_mil.aggregators.whole_bag.transmil import NystromPoolAggregator, TransMilAggregator
from edge_mil.aggregators.whole_bag.wikg import WikgAggregator
from edge_mil.aggregators.whole_bag.wikg_millab import WikgMillabAggregator
from edge_mil.errors import NotThereYetError
from edge_mil.protocols import Aggregator, Network


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts of a bundle that a head is built from.

    Attributes:
        architecture: As `edge-mil-export --arch` names it.
        options: The options of the head.
        feature_dim: Width of a feature.
        value_dim: Width of an embedding.
        channels: Attention channels; 0 without attention.
        classifier: From pooled vectors, or logits, to the score.
        networks: Further small graphs of the bundle, by role.
        arrays: Arrays of `aggregator.npz`, by name.
    """

    architecture: str
    options: Mapping[str, str | int | float | bool]
    feature_dim: int
    value_dim: int
    channels: int
    classifier: Classifier
    networks: Mapping[str, Network] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


Builder = Callable[[Parts], Aggregator[Any]]


def _dtfd(p: Parts, *, normalised: bool = True, keeps_empty: bool = True) -> Aggregator[Any]:
    groups = int(p.options["groups"])
    pseudo_bags = PseudoBags(
        str(p.options["distill"]),
        groups,
        int(p.options.get("instances", groups)) // groups,
        int(p.options.get("mean_inference", 1)),
        normalised=normalised,
        keeps_empty=keeps_empty,
    )
    parts = (p.value_dim, p.classifier, p.arrays, pseudo_bags)
    if not normalised:
        is_sum = pseudo_bags.distill == "afs"
        return DtfdSumAggregator(*parts) if is_sum else DtfdLinearTopAggregator(*parts)
    if pseudo_bags.distill == "afs":
        return DtfdMeanAggregator(*parts)
    # With up to two classes the order of a pseudo-bag does not depend on what else is in it.
    is_fixed = len(p.classifier.classes) <= 2
    return DtfdTopAggregator(*parts) if is_fixed else DtfdRankedAggregator(*parts)


def _longnet(p: Parts) -> Aggregator[Any]:
    segments, ratios = (
        [int(number) for number in str(p.options[name]).split(",")]
        for name in ("segment_length", "dilated_ratio")
    )
    settings = LongNetSettings(
        heads=int(p.options["heads"]),
        grid=int(p.options["grid"]),
        tile_size=int(p.options["tile_size"]),
        mean=str(p.options["global_pool"]).lower() == "true",
        branches=tuple(zip(segments, ratios, strict=True)),
    )
    return LongNetAggregator(p.value_dim, p.classifier, p.arrays, settings)


BUILDERS: dict[str, Builder] = {
    "attention": lambda p: AttentionAggregator(p.channels, p.value_dim, p.classifier),
    "mean": lambda p: MeanAggregator(p.value_dim, p.classifier),
    "multihead": lambda p: MultiheadAggregator(
        p.channels, p.value_dim, p.classifier, heads=int(p.options.get("heads", p.channels))
    ),
    "sum": lambda p: SumAggregator(p.value_dim, p.classifier),
    "mean_probability": lambda p: MeanProbabilityAggregator(p.value_dim, p.classifier),
    "hopfield": lambda p: HopfieldAggregator(
        p.value_dim, p.classifier, p.arrays, steps=int(p.options["update_steps_max"])
    ),
    "merged_tokens": lambda p: MergedTokensAggregator(
        p.channels,
        p.value_dim,
        p.classifier,
        p.arrays,
        activation=str(p.options["attention_activation"]),
    ),
    "cobra": lambda p: CobraAggregator(p.value_dim, p.classifier, p.arrays),
    "longnet": _longnet,
    "ilra": lambda p: IlraAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        blocks=sum(name.endswith(".latent") for name in p.arrays),
        heads=int(p.options["heads"]),
    ),
    "wikg": lambda p: WikgAggregator(
        p.value_dim, p.classifier, p.arrays, topk=int(p.options["topk"])
    ),
    "wikg_millab": lambda p: WikgMillabAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        topk=int(p.options["topk"]),
        activation=str(p.options["activation"]),
        readout=str(p.options.get("pooling", "gate")),
    ),
    "max": lambda p: MaxAggregator(p.value_dim, p.classifier),
    "dtfd": _dtfd,
    "dtfd_linear": lambda p: _dtfd(p, normalised=False),
    "dtfd_filled": lambda p: _dtfd(p, keeps_empty=False),
    "top_positive": lambda p: TopInstanceAggregator(p.value_dim, p.classifier, any_class=False),
    "top_class": lambda p: TopInstanceAggregator(p.value_dim, p.classifier, any_class=True),
    "dsmil": lambda p: DsmilAggregator(
        p.channels,
        p.value_dim,
        int(p.arrays["query_dim"]),
        p.classifier,
        str(p.options["score"]),
    ),
    "mhim_dsmil": lambda p: DsmilAggregator(
        p.channels, p.value_dim, int(p.arrays["query_dim"]), p.classifier, "logits"
    ),
    "transmil": lambda p: TransMilAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        keep_last=p.options.get("nystrom", "later") == "later",
        repeated=True,
    ),
    "nystrom_pool": lambda p: NystromPoolAggregator(
        p.value_dim, p.classifier, p.arrays, activation=str(p.options["attention_activation"])
    ),
    "transformer": lambda p: TransformerAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        activation=str(p.options.get("attention_activation", "tanh")),
    ),
    "mhim_transmil": lambda p: TransMilAggregator(
        p.value_dim, p.classifier, p.arrays, keep_last=True, repeated=False
    ),
    "mambamil": lambda p: MambaMilAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        scan=str(p.options.get("scan", "mamba")),
        rate=int(p.options.get("rate", 1)),
        layers=sum(name.endswith(".in_proj.weight") for name in p.arrays),
    ),
    "rrtmil": lambda p: RrtMilAggregator(
        p.value_dim,
        p.classifier,
        p.arrays,
        RrtSettings(
            regions=int(p.options["region_num"]),
            layers=sum(name.startswith("layers.") and name.endswith(".pe") for name in p.arrays),
            cross_heads=int(p.options["crmsa_heads"]),
            all_shortcut=str(p.options["all_shortcut"]).lower() == "true",
            attention_activation=str(p.options["attention_activation"]),
        ),
    ),
    "otsurv": lambda p: OtSurvAggregator(
        p.value_dim, p.classifier, p.arrays, rho=float(p.options["rho"])
    ),
}
"""`AggregatorSpec.pooling` -> what builds it."""


def build_aggregator(pooling: str, parts: Parts) -> Aggregator[Any]:
    """Return the aggregator of a head.

    Raises:
        NotThereYetError: This release has no such pooling.
    """
    builder = BUILDERS.get(pooling)
    if builder is None:
        raise NotThereYetError(
            f"The pooling {pooling!r} of {parts.architecture} is not there yet in this release; "
            "update edge_mil on this device."
        )
    return builder(parts)
