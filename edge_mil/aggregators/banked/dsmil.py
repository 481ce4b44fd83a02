"""DSMIL: each class attends with the query of its own most suspicious instance.

Source:
    Li, Li and Eliceiri 2021, arXiv:2011.08939; binli123/dsmil-wsi, dsmil.py. The same
    pooling is in Self-ViT-MIL, AEM and MHIM-MIL (`docs/design/aggregators.md`, "DSMIL").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.aggregators.counted import CountedAggregator, check_batch
from edge_mil.aggregators.dense import sigmoid, softmax_rows
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

EMBEDDINGS, QUERIES, INSTANCE_LOGITS = "values", "queries", "instance_logits"
"""Arrays of the bank, and outputs of `attend.onnx`."""
CHUNK = 4096
"""Rows whose queries are widened to float64 at a time."""
SINGLE = 512
"""Rows that are summed in float32 where the whole bag is pooled again: a sum of so few is good to
1e-6 of its largest terms, and the bank is read at its own width."""


@dataclass(frozen=True, slots=True, eq=False)
class DsmilState:
    """The bag, and each class' attention over it.

    Attributes:
        bank: Embeddings, queries and instance logits of every instance.
        critical: Row of each class' critical instance, int64 (c,).
        peak: Largest attention logit of each class, float64 (c,).
        mass: Sum of exp(logit - peak), float64 (c,).
        weighted_sum: Sum of exp(logit - peak) * embedding, float64 (c, l).
    """

    bank: Bank
    critical: Int64Array
    peak: Float64Array
    mass: Float64Array
    weighted_sum: Float64Array

    @property
    def count(self) -> int:
        return self.bank.count


class DsmilAggregator(CountedAggregator[DsmilState]):
    """Folds new instances with the queries of the critical instances.

    The critical instance of a class has its largest instance logit, and of several the first in
    canonical order, so that the score is a function of the set. Where the critical instance of a
    class changes, that class is pooled again over the whole bank.

    Attributes:
        classes: Classes c.
        value_dim: Width l of an embedding.
        query_dim: Width of a query.
        score_kind: bag: probabilities of the bag logits. average, average_softmax: the mean of
            theirs and the largest instance logits', by sigmoid or softmax. logits: the logits
            themselves are averaged (MHIM-MIL).
    """

    incremental = "banked"
    needs_instance_order = True

    def __init__(
        self,
        classes: int,
        value_dim: int,
        query_dim: int,
        classifier: Classifier,
        score_kind: str = "bag",
    ) -> None:
        self.classes, self.value_dim, self.query_dim = classes, value_dim, query_dim
        self.classifier, self.score_kind = classifier, score_kind
        self._widths = {EMBEDDINGS: value_dim, QUERIES: query_dim, INSTANCE_LOGITS: classes}

    def initial_state(self) -> DsmilState:
        c = self.classes
        return DsmilState(
            Bank(self._widths),
            np.full(c, -1, dtype=np.int64),
            np.full(c, -np.inf),
            np.zeros(c),
            np.zeros((c, self.value_dim)),
        )

    def update(self, state: DsmilState, batch: InstanceBatch) -> DsmilState:
        extra = {name: self._widths[name] for name in (QUERIES, INSTANCE_LOGITS)}
        check_batch(batch, self.value_dim, ordered=True, extra=extra)
        if len(batch) == 0 or batch.instance_order is None:
            return state
        arrays = {EMBEDDINGS: batch.embeddings, **batch.extra}
        bank = Bank(self._widths).append(arrays, batch.instance_order)
        return self.merge(state, self._advanced(self.initial_state(), bank))

    def merge(self, left: DsmilState, right: DsmilState) -> DsmilState:
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        # The bank puts the smaller bag behind the larger one.
        larger = right if right.count > left.count else left
        return self._advanced(larger, left.bank.extend(right.bank))

    def score_all(self, states: list[DsmilState]) -> list[SlideScore]:
        pooled = np.stack([s.weighted_sum / s.mass[:, None] for s in states])
        bag = self.classifier.logits(pooled)
        classes = np.arange(self.classes)
        top = np.stack([s.bank[INSTANCE_LOGITS][s.critical, classes] for s in states])
        return self._scores_of(bag, top.astype(np.float64), [s.count for s in states])

    def _scores_of(
        self, bag: Float64Array, top: Float64Array, counts: list[int]
    ) -> list[SlideScore]:
        """Return scores of bag logits and of the largest instance logits, both (b, c)."""
        if self.score_kind == "logits":
            return self.classifier.scores_of_logits(0.5 * bag + 0.5 * top, counts)
        if self.score_kind == "bag":
            return self.classifier.scores_of_logits(bag, counts)
        if self.score_kind == "average_softmax":
            mean = 0.5 * softmax_rows(top) + 0.5 * softmax_rows(bag.copy())
        else:
            mean = 0.5 * sigmoid(top) + 0.5 * sigmoid(bag)
        return self.classifier.scores_of_logits(bag, counts, mean)

    def attention(self, state: DsmilState, batch: InstanceBatch) -> Float32Array | None:
        if state.count == 0 or len(batch) == 0:
            return np.empty((0, self.classes), dtype=np.float32)
        logits = self._logits(batch.extra[QUERIES], state.bank[QUERIES][state.critical])
        return np.asarray(np.exp(logits - state.peak) / state.mass, dtype=np.float32)

    def to_bytes(self, state: DsmilState) -> bytes:
        """Serialise the bank, from which the rest follows."""
        return state.bank.to_bytes()

    def from_bytes(self, data: bytes) -> DsmilState:
        return self._advanced(self.initial_state(), Bank.from_bytes(data, self._widths))

    def _advanced(self, state: DsmilState, bank: Bank) -> DsmilState:
        """Return the state of a bank whose first rows are those of `state`."""
        if bank.count == state.count:
            return state
        critical = self._critical(state, bank)
        peak, mass, total = state.peak.copy(), state.mass.copy(), state.weighted_sum.copy()
        # Classes with the same critical instance go on with the new rows; others start anew.
        kept = critical == state.critical
        peak[~kept], mass[~kept], total[~kept] = -np.inf, 0.0, 0.0
        for classes, start in ((np.flatnonzero(kept), state.count), (np.flatnonzero(~kept), 0)):
            queries = bank[QUERIES][critical[classes]]
            for at in range(start, bank.count, CHUNK) if len(classes) else ():
                rows = slice(at, min(at + CHUNK, bank.count))
                # One step of the online softmax, as in `mergeable/attention.py`.
                logits = self._logits(bank[QUERIES][rows], queries)
                higher = np.maximum(peak[classes], logits.max(axis=0))
                keep = np.exp(peak[classes] - higher)
                unnormalised = np.exp(logits - higher)
                added = _weighted_sum(unnormalised, bank[EMBEDDINGS][rows])
                mass[classes] = keep * mass[classes] + unnormalised.sum(axis=0)
                total[classes] = keep[:, None] * total[classes] + added
                peak[classes] = higher
        return DsmilState(bank, critical, peak, mass, total)

    def _critical(self, state: DsmilState, bank: Bank) -> Int64Array:
        """Return each class' critical row; only rows behind those of `state` can be new ones."""
        new = bank[INSTANCE_LOGITS][state.count :]
        critical = state.critical.copy()
        for column, largest in enumerate(new.max(axis=0)):
            ties = np.flatnonzero(new[:, column] == largest) + state.count
            row = min(ties.tolist(), key=bank.key)
            old = int(critical[column])
            held = bank[INSTANCE_LOGITS][old, column] if old >= 0 else -np.inf
            if largest > held or (largest == held and bank.key(row) < bank.key(old)):
                critical[column] = row
        return np.asarray(critical, dtype=np.int64)

    def _logits(self, rows: Float32Array, queries: Float32Array) -> Float64Array:
        """Return attention logits, float64 (n, c), of the rows' queries."""
        product = rows.astype(np.float64) @ queries.astype(np.float64).T
        return np.asarray(product / np.sqrt(self.query_dim), dtype=np.float64)


def _weighted_sum(unnormalised: Float64Array, embeddings: Float32Array) -> Float64Array:
    """Return sums of embeddings (n, l) with weights (n, c), float64 (c, l)."""
    whole = len(unnormalised) // SINGLE * SINGLE
    rest = unnormalised[whole:].T @ embeddings[whole:].astype(np.float64)
    if not whole:
        return np.asarray(rest, dtype=np.float64)
    weights = unnormalised[:whole].astype(np.float32).reshape(-1, SINGLE, unnormalised.shape[1])
    blocks = embeddings[:whole].reshape(-1, SINGLE, embeddings.shape[1])
    parts = weights.transpose(0, 2, 1) @ blocks
    return np.asarray(rest + parts.sum(axis=0, dtype=np.float64), dtype=np.float64)
