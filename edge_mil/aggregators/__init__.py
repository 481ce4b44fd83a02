"""Pool embedded instances into a slide-level score, in NumPy.

An `InstanceBatch` goes in, a `SlideScore` comes out; between them is a state that a session keeps
for each field (`edge_mil.protocols.Aggregator`). `registry` builds the aggregator that a bundle
names, and `catalogue` lists the heads. The folders are the three kinds: `mergeable`, `banked` and
`whole_bag`. They share `counted` (the base class, and the check of a batch), `pooled` (heads whose
state gives one pooled array), `classifier` (logits to a score), `dense` (layers), `ranking` (the k
first, ties included) and `state_bytes`. The mathematics: `docs/design/aggregators.md`.
"""

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
