"""Instances to a slide-level score: one file for each pooling, NumPy only."""

from edge_mil.aggregators.attention import AttentionAggregator, AttentionState
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.columnwise import ColumnState, MaxAggregator, MeanAggregator

__all__ = [
    "AttentionAggregator",
    "AttentionState",
    "Classifier",
    "ColumnState",
    "MaxAggregator",
    "MeanAggregator",
]
