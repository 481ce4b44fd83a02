"""Rows of a growing bag: appended in place, and still a value that never changes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_mil.errors import StoreError
from edge_mil.types import Float32Array, Float64Array, InstanceOrder, Int64Array

NO_GROUP = -1
BLOCK = 1024
"""Rows of one block, of which a result can be kept."""
NO_RESTS: Mapping[str, str] = {}
"""No array has a rest."""


class Bank:
    """Named arrays with one row for each instance, float32 or exact, and where the instances lie.

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
        rests: Mapping[str, str] = NO_RESTS,
        buffers: _Buffers | None = None,
    ) -> None:
        """Make the empty bank, or one of all that the buffers hold.

        Args:
            widths: Name of each array -> its width.
            rests: Array -> name of the float32 numbers that are left of it when it is rounded. The
                two come and are stored side by side, and are held as one float64 array.
            buffers: For this module alone.
        """
        self._buffers = _Buffers(widths, rests) if buffers is None else buffers
        self._order: Int64Array | None = None
        self.count = self._buffers.used

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, name: str) -> Float32Array:
        """Return an array, float32 (count, width), in the order of arrival; do not write to it."""
        return self._buffers.arrays[name][: self.count]

    def exact(self, name: str) -> Float64Array:
        """Return an array that has a rest, float64 (count, width), as `[]` does."""
        return self._buffers.exact[name][: self.count]

    def blocks(self, make: Callable[[slice], Any], *, keep: bool) -> list[Any]:
        """Return what `make` finds of each block of rows, in the order of arrival.

        Args:
            make: From the rows of a block to what depends on them alone.
            keep: What is found of a full block is found once, and is there for the next bank; for
                one and the same `make`.
        """
        return [
            self._buffers.block(slice(at, min(at + BLOCK, self.count)), make, keep=keep)
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
        """Return the canonical key of a row."""
        return self._buffers.keys[row]

    def order(self) -> Int64Array:
        """Return the rows in canonical order: that of their keys."""
        if self._order is None:
            keys = self.keys
            rows = sorted(range(self.count), key=keys.__getitem__)
            self._order = np.array(rows, dtype=np.int64)
        return self._order

    def append(self, arrays: Mapping[str, Float32Array], instance_order: InstanceOrder) -> Bank:
        """Return the bank with more rows; this one stays.

        Args:
            arrays: All of the bank's arrays, float32 (n, width).
            instance_order: Where the rows lie.
        """
        buffers = (
            self._buffers if self._buffers.used == self.count else self._buffers.copy(self.count)
        )
        buffers.write(arrays, instance_order)
        return Bank({}, NO_RESTS, buffers)

    def extend(self, other: Bank) -> Bank:
        """Return the rows of both."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        return other._joined(self) if other.count > self.count else self._joined(other)

    def _joined(self, other: Bank) -> Bank:
        groups = None if (other.groups == NO_GROUP).all() else other.groups
        arrays = other._rounded()
        return self.append(arrays, InstanceOrder(tuple(other.keys), other.cells, groups))

    def _rounded(self) -> dict[str, Float32Array]:
        """Return all arrays, float32, each with its rest where it has one."""
        found = {name: self[name] for name in self._buffers.arrays}
        for name, rest in self._buffers.rests.items():
            exact = self.exact(name)
            found[name] = exact.astype(np.float32)
            # Nothing is lost: the array was made of two float32 numbers.
            found[rest] = (exact - found[name]).astype(np.float32)
        return found

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives it back to the bit."""
        out = io.BytesIO()
        lengths = np.array([len(key) for key in self.keys], dtype="<i8")
        arrays: dict[str, Any] = dict(self._rounded())
        arrays["_keys"] = np.frombuffer(b"".join(self.keys), dtype=np.uint8)
        arrays |= {"_lengths": lengths, "_cells": self.cells, "_groups": self.groups}
        np.savez(out, **arrays)
        return out.getvalue()

    @staticmethod
    def from_bytes(
        data: bytes, widths: Mapping[str, int], rests: Mapping[str, str] = NO_RESTS
    ) -> Bank:
        """Read what `to_bytes` wrote.

        Raises:
            StoreError: The bytes are no bank with such arrays.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                ends = np.cumsum(stored["_lengths"])
                text = stored["_keys"].tobytes()
                keys = tuple(
                    text[end - length : end]
                    for end, length in zip(ends.tolist(), stored["_lengths"].tolist(), strict=True)
                )
                instance_order = InstanceOrder(keys, stored["_cells"], stored["_groups"])
                arrays = {name: stored[name] for name in widths}
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise StoreError(f"A stored aggregator state cannot be read ({error}).") from error
        if any(
            a.shape != (len(keys), widths[n]) or a.dtype != np.float32 for n, a in arrays.items()
        ):
            raise StoreError(
                "A stored aggregator state does not fit this bundle; the session is of another."
            )
        return Bank(widths, rests).append(arrays, instance_order)


class _Buffers:
    """What banks share; rows below `used` are never written again."""

    def __init__(
        self, widths: Mapping[str, int], rests: Mapping[str, str], capacity: int = 0
    ) -> None:
        self.widths, self.rests = widths, rests
        paired = {*rests, *rests.values()}
        self.arrays: dict[str, Float32Array] = {
            name: np.empty((capacity, width), dtype=np.float32)
            for name, width in widths.items()
            if name not in paired
        }
        self.exact: dict[str, Float64Array] = {
            name: np.empty((capacity, widths[name]), dtype=np.float64) for name in rests
        }
        self.kept: dict[int, Any] = {}
        self.cells: Int64Array = np.empty((capacity, 2), dtype=np.int64)
        self.groups: Int64Array = np.empty(capacity, dtype=np.int64)
        self.keys: list[bytes] = []
        self.used = 0

    def copy(self, count: int) -> _Buffers:
        """Return buffers of their own with the first rows."""
        made = _Buffers(self.widths, self.rests, count)
        for name, array in self.arrays.items():
            made.arrays[name][:] = array[:count]
        for name, wide in self.exact.items():
            made.exact[name][:] = wide[:count]
        made.kept = {at: found for at, found in self.kept.items() if at + BLOCK <= count}
        made.cells[:], made.groups[:] = self.cells[:count], self.groups[:count]
        made.keys, made.used = self.keys[:count], count
        return made

    def block(self, rows: slice, make: Callable[[slice], Any], *, keep: bool) -> Any:
        """Return what `make` finds of some rows; a full block's is kept."""
        if not keep or rows.stop - rows.start < BLOCK:
            return make(rows)
        if rows.start not in self.kept:
            self.kept[rows.start] = make(rows)
        return self.kept[rows.start]

    def write(self, arrays: Mapping[str, Float32Array], instance_order: InstanceOrder) -> None:
        """Write rows behind the used ones."""
        end = self.used + len(instance_order)
        if end > len(self.cells):
            self._grow(max(end, 2 * len(self.cells), 64))
        for name, array in self.arrays.items():
            array[self.used : end] = arrays[name]
        for name, wide in self.exact.items():
            rest = arrays[self.rests[name]]
            np.add(arrays[name], rest, out=wide[self.used : end], dtype=np.float64)
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
        for name, wide in self.exact.items():
            self.exact[name] = _grown(wide, capacity)
        self.cells, self.groups = _grown(self.cells, capacity), _grown(self.groups, capacity)


def _grown(array: Any, capacity: int) -> Any:
    made = np.empty((capacity, *array.shape[1:]), dtype=array.dtype)
    made[: len(array)] = array
    return made
