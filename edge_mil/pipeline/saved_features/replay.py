"""Fold saved features as a live session does: as a stream, or as operations on fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from edge_mil.errors import UsageError
from edge_mil.pipeline.instance_order import file_order
from edge_mil.pipeline.model import Model
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, Int64Array, SlideScore

MAX_ROWS = 8192
"""Rows of one run of `attend.onnx`, which bounds the memory for bags of any size."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the bag.

    Attributes:
        kind: add, replace or remove.
        field: Number of the field.
        rows: Rows of the features file that the field shows, each once; empty for remove.
    """

    kind: str
    field: int
    rows: tuple[int, ...]


class Replay:
    """A bag built from saved features through `update` and `merge`, as a live one is.

    Attributes:
        state: The aggregator's state of the bag.
    """

    def __init__(
        self,
        model: Model,
        features: Float32Array,
        *,
        step: int | None,
        positions: Float64Array | None = None,
        groups: Int64Array | None = None,
    ) -> None:
        """Start with the empty bag.

        Args:
            model: Scores the bag.
            features: float32, (n, d).
            step: Instances that are folded at a time; None takes MAX_ROWS.
            positions: x and y of each row, float64 (n, 2); None: the file's order counts.
            groups: Pseudo-bag of each row, int64 (n,); None: drawn from the positions.

        Raises:
            InvalidFeaturesError: Another width, or a number that is not finite.
        """
        model.check_features(features)
        self._model, self._features = model, features
        self._positions, self._groups = positions, groups
        self._step = min(step or MAX_ROWS, MAX_ROWS)
        self._fields: dict[int, tuple[int, ...]] = {}
        self._states: dict[int, tuple[tuple[int, ...], Any]] = {}
        self.state: Any = model.aggregator.initial_state()

    @property
    def instances(self) -> int:
        """How many instances the bag holds."""
        return self._model.aggregator.instances(self.state)

    def stream(self, order: Rows) -> None:
        """Fold rows in an order of arrival."""
        self.state = self._fold(self.state, order)

    def score(self) -> SlideScore | None:
        """Return the score, None where there is none yet."""
        return self._model.aggregator.scores([self.state])[0]

    def attention(self) -> list[list[float]] | None:
        """Return each channel's weights in the file's order; a row that is not in the bag has 0.

        None where the model has no attention.
        """
        channels = self._model.bundle.manifest.aggregator.channels
        if not channels:
            return None
        weights = np.zeros((len(self._features), channels))
        held = self._held()
        # A whole-bag head runs over the bag for its attention: once, not for each batch.
        at_once = self._model.aggregator.incremental == "whole-bag"
        for rows in [held] if at_once else self._batches(held):
            share = self._model.aggregator.attention(self.state, self._attend(rows))
            if share is None:
                return None
            weights[rows] = share
        return [column.tolist() for column in weights.T]

    def apply(self, operation: Operation) -> None:
        """Add, replace or remove a field, and fold all fields again in the order of their numbers.

        Raises:
            UsageError: A field is added twice with different rows, or one that is not in the bag
                is removed or replaced.
        """
        field, held = operation.field, self._fields
        if operation.kind == "add" and field in held:
            if set(held[field]) != set(operation.rows):
                raise UsageError(
                    f"The operations add field {field} twice with different rows; use replace."
                )
            return
        if operation.kind != "add" and field not in held:
            raise UsageError(
                f"The operations {operation.kind} field {field}, which is not held at that point."
            )
        if operation.kind == "remove":
            del held[field]
        else:
            held[field] = operation.rows
        self._fold_fields()

    def _fold_fields(self) -> None:
        """Merge the states of all fields; a row that two fields show counts for the first."""
        aggregator = self._model.aggregator
        counted = np.zeros(len(self._features), dtype=bool)
        states: dict[int, tuple[tuple[int, ...], Any]] = {}
        self.state = aggregator.initial_state()
        for field in sorted(self._fields):
            shown = np.asarray(self._fields[field], dtype=np.int64)
            new = shown[~counted[shown]]
            counted[new] = True
            rows = tuple(new.tolist())
            known = self._states.get(field)
            if known is None or known[0] != rows:
                known = (rows, self._fold(aggregator.initial_state(), new))
            states[field] = known
            self.state = aggregator.merge(self.state, known[1])
        self._states = states

    def _fold(self, state: Any, order: Rows) -> Any:
        for rows in self._batches(order):
            state = self._model.aggregator.update(state, self._attend(rows))
        return state

    def _attend(self, rows: Rows) -> InstanceBatch:
        instance_order = None
        if self._model.aggregator.needs_instance_order:
            instance_order = file_order(rows, self._positions, self._groups)
        return self._model.attend(self._features[rows], instance_order)

    def _batches(self, order: Rows) -> Iterator[Rows]:
        return (order[first : first + self._step] for first in range(0, len(order), self._step))

    def _held(self) -> Rows:
        if not self._states:
            return np.arange(len(self._features) if self.instances else 0)
        return np.asarray([r for rows, _ in self._states.values() for r in rows], dtype=np.int64)


def arrival(count: int, seed: int | None) -> Rows:
    """Return the order in which `count` instances arrive: the file's, or one that a seed draws."""
    if seed is None:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(count)


def read_operations(path: Path, count: int) -> list[Operation]:
    """Read a JSON list of operations on fields.

    Args:
        path: Objects with `op` (add, replace, remove), `field` and, but for remove, `rows`; other
            keys are ignored. An object with such a list as its `operations` is taken too.
        count: Rows of the features file.

    Raises:
        UsageError: The file cannot be read, or an operation is not valid.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UsageError(f"{path.name} is not JSON ({error}).") from error
    if isinstance(raw, dict):
        raw = raw.get("operations")
    if not isinstance(raw, list):
        raise UsageError(f"{path.name} is no JSON list of operations.")
    return [_operation(item, number, count) for number, item in enumerate(raw)]


def _operation(item: object, number: int, count: int) -> Operation:
    if not isinstance(item, dict):
        raise UsageError(f"Operation {number} is no JSON object.")
    kind, field, rows = item.get("op"), item.get("field"), item.get("rows", [])
    if kind not in ("add", "replace", "remove"):
        raise UsageError(f"Operation {number} has op {kind!r}; it must be add, replace or remove.")
    if not _is_number(field):
        raise UsageError(f"Operation {number} names no field by a number.")
    if kind == "remove":
        return Operation(kind, field, ())
    if not (isinstance(rows, Sequence) and all(_is_number(row) for row in rows)):
        raise UsageError(f"Operation {number} has no list of row numbers.")
    wrong = next((row for row in rows if not 0 <= row < count), None)
    if wrong is not None:
        raise UsageError(
            f"Operation {number} names row {wrong}, and the file has 0 to {count - 1}."
        )
    return Operation(kind, field, tuple(dict.fromkeys(rows)))


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
