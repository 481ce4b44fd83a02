"""Rows of a growing bag: appended in place, and still a value that never changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_mil.aggregators.state_bytes import arrays_to_bytes, join_keys, split_keys, stored_arrays
from edge_mil.errors import StoreError
from edge_mil.types import Float32Array, Float64Array, InstanceOrder, Int64Array

NO_GROUP = -1
"""The pseudo-bag where none is given."""
BLOCK = 1024
"""Rows of one block, of which a result can be kept."""
SMALLEST_CAPACITY = 64
"""Rows that a buffer is made for at first; it then doubles."""
NO_REMAINDERS: Mapping[str, str] = {}
"""No array comes in two parts."""


class Bank:
    """Named arrays with one row for each instance, and the canonical order of the instances.

    Banks share their buffers: appending to the newest one writes behind its rows, which the older
    ones do not see, and appending to an older one copies. So a field costs its own rows, and
    every state stays what it was.

    Attributes:
        count: Number of rows.
    """

    __slots__ = ("_buffers", "_order", "count")

    def __init__(
        self,
        widths: Mapping[str, int],
        remainders: Mapping[str, str] = NO_REMAINDERS,
        buffers: _Buffers | None = None,
    ) -> None:
        """Make the empty bank, or one of all rows of the buffers.

        Args:
            widths: Name of each array -> its width.
            remainders: Array -> name of the float32 numbers that are left of it when it is rounded.
                The two come and are stored side by side, and are held as one float64 array.
            buffers: For this module alone.
        """
        self._buffers = _Buffers(widths, remainders) if buffers is None else buffers
        self._order: Int64Array | None = None
        self.count = self._buffers.used

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, name: str) -> Float32Array:
        """Return an array, float32 (count, width), in the order of arrival; do not write to it."""
        return self._buffers.arrays[name][: self.count]

    def exact(self, name: str) -> Float64Array:
        """Return an array that has a remainder, float64 (count, width), as `[]` does."""
        return self._buffers.exact[name][: self.count]

    def blocks(self, compute: Callable[[slice], Any], *, keep: bool) -> list[Any]:
        """Return a result for each block of rows, in the order of arrival.

        Args:
            compute: From the rows of a block to a result that depends on them alone.
            keep: Compute the result of a full block once, for later banks too; only for one and the
                same `compute`.
        """
        return [
            self._buffers.block(slice(at, min(at + BLOCK, self.count)), compute, keep=keep)
            for at in range(0, self.count, BLOCK)
        ]

    @property
    def cells(self) -> Int64Array:
        """Grid position of each row, int64 (count, 2)."""
        return self._buffers.cells[: self.count]

    @property
    def groups(self) -> Int64Array:
        """Pseudo-bag of each row, int64 (count,); NO_GROUP where none is given."""
        return self._buffers.groups[: self.count]

    @property
    def keys(self) -> list[bytes]:
        """Canonical key of each row."""
        return self._buffers.keys[: self.count]

    def key(self, row: int) -> bytes:
        return self._buffers.keys[row]

    def rows_of(self, keys: Sequence[bytes]) -> list[int]:
        """Return the rows of some instances by their canonical keys."""
        at = {key: row for row, key in enumerate(self.keys)}
        return [at[key] for key in keys]

    def order(self) -> Int64Array:
        """Return the rows in canonical order: that of their keys."""
        if self._order is None:
            keys = self.keys
            rows = sorted(range(self.count), key=keys.__getitem__)
            self._order = np.array(rows, dtype=np.int64)
        return self._order

    def append(self, arrays: Mapping[str, Float32Array], instance_order: InstanceOrder) -> Bank:
        """Return the bank with more rows; this one stays as it is.

        Args:
            arrays: All of the bank's arrays, float32 (n, width).
            instance_order: The canonical order of the rows.
        """
        is_newest = self._buffers.used == self.count
        buffers = self._buffers if is_newest else self._buffers.copy(self.count)
        buffers.write(arrays, instance_order)
        return Bank({}, NO_REMAINDERS, buffers)

    def extend(self, other: Bank) -> Bank:
        """Return the rows of both."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        return other._joined(self) if other.count > self.count else self._joined(other)

    def _joined(self, other: Bank) -> Bank:
        """Return the rows of this bank, then those of the other."""
        groups = None if (other.groups == NO_GROUP).all() else other.groups
        arrays = other._rounded()
        return self.append(arrays, InstanceOrder(tuple(other.keys), other.cells, groups))

    def _rounded(self) -> dict[str, Float32Array]:
        """Return all arrays, float32, each with its remainder where it has one."""
        found = {name: self[name] for name in self._buffers.arrays}
        for name, remainder in self._buffers.remainders.items():
            exact = self.exact(name)
            found[name] = exact.astype(np.float32)
            # Nothing is lost: the array was made of two float32 numbers.
            found[remainder] = (exact - found[name]).astype(np.float32)
        return found

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives it back to the bit."""
        text, lengths = join_keys(self.keys)
        arrays: dict[str, Any] = {**self._rounded(), "_keys": text, "_lengths": lengths}
        return arrays_to_bytes(arrays | {"_cells": self.cells, "_groups": self.groups})

    @staticmethod
    def from_bytes(
        data: bytes, widths: Mapping[str, int], remainders: Mapping[str, str] = NO_REMAINDERS
    ) -> Bank:
        """Read what `to_bytes` wrote.

        Raises:
            StoreError: The bytes are no bank with such arrays.
        """
        with stored_arrays(data) as stored:
            keys = split_keys(stored["_keys"], stored["_lengths"])
            instance_order = InstanceOrder(keys, stored["_cells"], stored["_groups"])
            arrays = {name: stored[name] for name in widths}
        if any(
            a.shape != (len(keys), widths[n]) or a.dtype != np.float32 for n, a in arrays.items()
        ):
            raise StoreError(
                "A stored aggregator state does not fit this bundle; the session is of another."
            )
        return Bank(widths, remainders).append(arrays, instance_order)


class _Buffers:
    """The arrays that banks share; rows below `used` are never written again."""

    def __init__(
        self, widths: Mapping[str, int], remainders: Mapping[str, str], capacity: int = 0
    ) -> None:
        self.widths, self.remainders = widths, remainders
        paired = {*remainders, *remainders.values()}
        self.arrays: dict[str, Float32Array] = {
            name: np.empty((capacity, width), dtype=np.float32)
            for name, width in widths.items()
            if name not in paired
        }
        self.exact: dict[str, Float64Array] = {
            name: np.empty((capacity, widths[name]), dtype=np.float64) for name in remainders
        }
        self.kept: dict[int, Any] = {}
        self.cells: Int64Array = np.empty((capacity, 2), dtype=np.int64)
        self.groups: Int64Array = np.empty(capacity, dtype=np.int64)
        self.keys: list[bytes] = []
        self.used = 0

    def copy(self, count: int) -> _Buffers:
        """Return buffers of their own with the first rows."""
        copied = _Buffers(self.widths, self.remainders, count)
        for name, array in self.arrays.items():
            copied.arrays[name][:] = array[:count]
        for name, exact in self.exact.items():
            copied.exact[name][:] = exact[:count]
        copied.kept = {at: found for at, found in self.kept.items() if at + BLOCK <= count}
        copied.cells[:], copied.groups[:] = self.cells[:count], self.groups[:count]
        copied.keys, copied.used = self.keys[:count], count
        return copied

    def block(self, rows: slice, compute: Callable[[slice], Any], *, keep: bool) -> Any:
        """Return the result of some rows; that of a full block can be kept."""
        if not keep or rows.stop - rows.start < BLOCK:
            return compute(rows)
        if rows.start not in self.kept:
            self.kept[rows.start] = compute(rows)
        return self.kept[rows.start]

    def write(self, arrays: Mapping[str, Float32Array], instance_order: InstanceOrder) -> None:
        """Write rows behind the used ones."""
        end = self.used + len(instance_order)
        if end > len(self.cells):
            self._grow(max(end, 2 * len(self.cells), SMALLEST_CAPACITY))
        for name, array in self.arrays.items():
            array[self.used : end] = arrays[name]
        for name, exact in self.exact.items():
            remainder = arrays[self.remainders[name]]
            np.add(arrays[name], remainder, out=exact[self.used : end], dtype=np.float64)
        self.cells[self.used : end] = instance_order.cells
        self.groups[self.used : end] = (
            NO_GROUP if instance_order.groups is None else instance_order.groups
        )
        self.keys.extend(instance_order.keys)
        self.used = end

    def _grow(self, capacity: int) -> None:
        # New arrays, never resized ones: older banks go on reading the old.
        for name, array in self.arrays.items():
            self.arrays[name] = _grown(array, capacity)
        for name, exact in self.exact.items():
            self.exact[name] = _grown(exact, capacity)
        self.cells, self.groups = _grown(self.cells, capacity), _grown(self.groups, capacity)


def _grown(array: Any, capacity: int) -> Any:
    grown = np.empty((capacity, *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown
