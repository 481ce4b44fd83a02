"""DSMIL: each class attends with the query of its own most suspicious instance.

Source:
    Li, Li and Eliceiri 2021, arXiv:2011.08939; binli123/dsmil-wsi, dsmil.py. The same pooling is in
    Self-ViT-MIL, AEM and MHIM-MIL. `aggregators.md`, 4.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.banked.bank import Bank
from edge_mil.aggregators.classifier import Classifier
from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

VALUES, QUERIES, INSTANCE_LOGITS = "values", "queries", "instance_logits"
CHUNK = 4096
"""Rows whose queries are widened to float64 at a time."""
SINGLE = 512
"""Rows whose weighted values are summed in float32, where all of the bag is weighed again: a sum of
so few is good to 1e-6 of its largest terms, and the bank is read at its own width."""


@dataclass(frozen=True, slots=True, eq=False)
class DsmilState:
    """The bag, and each class' attention over it.

    Attributes:
        bank: Values, queries and instance logits of every instance.
        critical: Row of each class' critical instance, int64 (c,).
        peak: Largest attention logit of each class, float64 (c,).
        mass: Sum of exp(logit - peak), float64 (c,).
        weighted_sum: Sum of exp(logit - peak) * value, float64 (c, l).
    """

    bank: Bank
    critical: Int64Array
    peak: Float64Array
    mass: Float64Array
    weighted_sum: Float64Array

    @property
    def count(self) -> int:
        """Number of instances."""
        return self.bank.count


class DsmilAggregator(Aggregator[DsmilState]):
    """Folds new instances with the fixed queries; a class whose critical instance changes is new.

    The critical instance of a class has its largest instance logit, and of several the first in
    canonical order, so that the score is a function of the set.

    Attributes:
        classes: Classes c.
        value_dim: Width l of a value.
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
        self._widths = {VALUES: value_dim, QUERIES: query_dim, INSTANCE_LOGITS: classes}

    def initial_state(self) -> DsmilState:
        """Return the empty bag."""
        return self._empty(Bank(self._widths))

    def update(self, state: DsmilState, batch: InstanceBatch) -> DsmilState:
        """Return the state after also seeing `batch`."""
        if batch.values.shape[1] != self.value_dim or (len(batch) and batch.instance_order is None):
            raise InvalidInstancesError(
                f"Expected values of width {self.value_dim} with their order, got "
                f"{batch.values.shape[1]}; the graphs are of another bundle."
            )
        if len(batch) == 0 or batch.instance_order is None:
            return state
        arrays = {VALUES: batch.values, **batch.extra}
        for name in (QUERIES, INSTANCE_LOGITS):
            if name not in arrays or arrays[name].shape[1] != self._widths[name]:
                raise InvalidInstancesError(
                    f"Expected {name} of width {self._widths[name]}; the graphs are of another "
                    "bundle."
                )
        bank = Bank(self._widths).append(arrays, batch.instance_order)
        return self.merge(state, self._advanced(self.initial_state(), bank))

    def merge(self, left: DsmilState, right: DsmilState) -> DsmilState:
        """Return the state of the two bags taken together."""
        if right.count == 0:
            return left
        if left.count == 0:
            return right
        # The bank puts the smaller bag behind the larger one.
        larger = right if right.count > left.count else left
        return self._advanced(larger, left.bank.extend(right.bank))

    def instances(self, state: DsmilState) -> int:
        """Return how many instances the bag holds."""
        return state.count

    def score(self, state: DsmilState) -> SlideScore:
        """Return the slide-level score of the instances seen so far."""
        found = self.scores([state])[0]
        if found is None:
            raise EmptyBagError
        return found

    def scores(self, states: list[DsmilState]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one, in one run of the classifier."""
        held = [s for s in states if s.count]
        if not held:
            return [None] * len(states)
        bag = self.classifier.logits(np.stack([s.weighted_sum / s.mass[:, None] for s in held]))
        columns = np.arange(self.classes)
        top = np.stack([s.bank[INSTANCE_LOGITS][s.critical, columns] for s in held])
        counts = [s.count for s in held]
        found = iter(self._finished(bag, top.astype(np.float64), counts))
        return [next(found) if s.count else None for s in states]

    def attention(self, state: DsmilState, batch: InstanceBatch) -> Float32Array | None:
        """Return each instance's share of the bag, (n, c) float32."""
        if state.count == 0 or len(batch) == 0:
            return np.empty((0, self.classes), dtype=np.float32)
        queries = state.bank[QUERIES][state.critical]
        logits = self._logits(batch.extra[QUERIES], queries)
        return np.asarray(np.exp(logits - state.peak) / state.mass, dtype=np.float32)

    def to_bytes(self, state: DsmilState) -> bytes:
        """Serialise a state: its bank, from which the rest follows."""
        return state.bank.to_bytes()

    def from_bytes(self, data: bytes) -> DsmilState:
        """Read what `to_bytes` wrote."""
        return self._advanced(self.initial_state(), Bank.from_bytes(data, self._widths))

    def _empty(self, bank: Bank) -> DsmilState:
        c = self.classes
        return DsmilState(
            bank,
            np.full(c, -1, dtype=np.int64),
            np.full(c, -np.inf),
            np.zeros(c),
            np.zeros((c, self.value_dim)),
        )

    def _advanced(self, state: DsmilState, bank: Bank) -> DsmilState:
        """Return the state of a bank whose first rows are those of `state`."""
        if bank.count == state.count:
            return state
        critical = self._critical(state, bank)
        kept = critical == state.critical
        parts = [(np.flatnonzero(kept), state.count), (np.flatnonzero(~kept), 0)]
        peak, mass, total = state.peak.copy(), state.mass.copy(), state.weighted_sum.copy()
        peak[~kept], mass[~kept], total[~kept] = -np.inf, 0.0, 0.0
        for columns, start in parts:
            queries = bank[QUERIES][critical[columns]]
            for at in range(start, bank.count, CHUNK) if len(columns) else ():
                rows = slice(at, min(at + CHUNK, bank.count))
                logits = self._logits(bank[QUERIES][rows], queries)
                higher = np.maximum(peak[columns], logits.max(axis=0))
                keep = np.exp(peak[columns] - higher)
                raised = np.exp(logits - higher)
                added = _weighed(raised, bank[VALUES][rows])
                mass[columns] = keep * mass[columns] + raised.sum(axis=0)
                total[columns] = keep[:, None] * total[columns] + added
                peak[columns] = higher
        return DsmilState(bank, critical, peak, mass, total)

    def _critical(self, state: DsmilState, bank: Bank) -> Int64Array:
        """Return each class' critical row; only rows behind those of `state` can be new ones."""
        new = bank[INSTANCE_LOGITS][state.count :]
        found = state.critical.copy()
        for column, best in enumerate(new.max(axis=0)):
            ties = np.flatnonzero(new[:, column] == best) + state.count
            row = min(ties.tolist(), key=bank.key)
            old = int(found[column])
            held = bank[INSTANCE_LOGITS][old, column] if old >= 0 else -np.inf
            if best > held or (best == held and bank.key(row) < bank.key(old)):
                found[column] = row
        return np.asarray(found, dtype=np.int64)

    def _logits(self, rows: Float32Array, queries: Float32Array) -> Float64Array:
        """Return attention logits, float64 (n, c), of the rows' queries."""
        product = rows.astype(np.float64) @ queries.astype(np.float64).T
        return np.asarray(product / np.sqrt(self.query_dim), dtype=np.float64)

    def _finished(
        self, bag: Float64Array, top: Float64Array, counts: list[int]
    ) -> list[SlideScore]:
        if self.score_kind == "logits":
            return self.classifier.finish(0.5 * bag + 0.5 * top, counts)
        if self.score_kind == "bag":
            return self.classifier.finish(bag, counts)
        chances = _softmax if self.score_kind == "average_softmax" else _sigmoid
        return self.classifier.finish(bag, counts, 0.5 * chances(top) + 0.5 * chances(bag))


def _weighed(raised: Float64Array, values: Float32Array) -> Float64Array:
    """Return sums of values (n, l) with weights (n, c), float64 (c, l)."""
    whole = len(raised) // SINGLE * SINGLE
    rest = raised[whole:].T @ values[whole:].astype(np.float64)
    if not whole:
        return np.asarray(rest, dtype=np.float64)
    weights = raised[:whole].astype(np.float32).reshape(-1, SINGLE, raised.shape[1])
    parts = weights.transpose(0, 2, 1) @ values[:whole].reshape(-1, SINGLE, values.shape[1])
    return np.asarray(rest + parts.sum(axis=0, dtype=np.float64), dtype=np.float64)


def _sigmoid(logits: Float64Array) -> Float64Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float64)


def _softmax(logits: Float64Array) -> Float64Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)
