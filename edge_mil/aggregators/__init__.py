"""Instances to a slide-level score: one file for each pooling, NumPy only."""

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.mergeable.attention import AttentionAggregator, AttentionState
from edge_mil.aggregators.mergeable.columnwise import ColumnState, MaxAggregator, MeanAggregator
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.aggregators.whole_bag.whole_bag_aggregator import WholeBagAggregator

__all__ = [
    "AttentionAggregator",
    "AttentionState",
    "Bank",
    "Classifier",
    "ColumnState",
    "MaxAggregator",
    "MeanAggregator",
    "Parts",
    "WholeBagAggregator",
    "build_aggregator",
]
