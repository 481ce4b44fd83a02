"""The canonical order of instances, which does not depend on the order of their arrival.

A head that depends on the order sees the bag by grid position, row by row, so that its score is a
function of the set of instances (`docs/design/aggregators.md`, "The order of the bag"). Features
without positions have the order of their file, independent fields that of their location ids.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from edge_mil.types import Float64Array, InstanceOrder, Int64Array

_SIGN = 1 << 63
"""Sign bit of 64: added to a signed number it makes bytes that sort as the numbers do."""


def grid_order(cells: Sequence[tuple[int, int]]) -> InstanceOrder:
    """Return the order of cells or slots (column, row): by row, then column."""
    keys = tuple(struct.pack(">QQ", row + _SIGN, column + _SIGN) for column, row in cells)
    return InstanceOrder(keys, np.array(cells, dtype=np.int64).reshape(-1, 2))


def named_order(names: Sequence[str]) -> InstanceOrder:
    """Return the order of independent fields: that of their location ids."""
    # An independent field has no grid position; its column is a hash of its id.
    cells = [(_hash(name), 0) for name in names]
    keys = tuple(name.encode("utf-8") for name in names)
    return InstanceOrder(keys, np.array(cells, dtype=np.int64).reshape(-1, 2))


def file_order(
    rows: Int64Array, positions: Float64Array | None, groups: Int64Array | None
) -> InstanceOrder:
    """Return the order of some rows of a features file.

    Args:
        rows: Row numbers, int64, (n,).
        positions: x and y of every row of the file in any one unit, float64 (N, 2); None: the
            file's order is the canonical one, and a row's cell is (row, 0).
        groups: Pseudo-bag of every row, int64 (N,), where the file has them.
    """
    of_rows = None if groups is None else groups[rows]
    numbers = rows.tolist()
    if positions is None:
        keys = tuple(struct.pack(">Q", row) for row in numbers)
        cells = np.stack([rows, np.zeros_like(rows)], axis=1)
        return InstanceOrder(keys, cells, of_rows)
    centres = positions[rows]
    keys = tuple(
        _sortable(y) + _sortable(x) + struct.pack(">Q", row)
        for (x, y), row in zip(centres.tolist(), numbers, strict=True)
    )
    return InstanceOrder(keys, np.rint(centres).astype(np.int64), of_rows, centres)


def _sortable(number: float) -> bytes:
    """Return bytes that sort as the numbers do; -0.0 as 0.0."""
    bits: int = struct.unpack(">Q", struct.pack(">d", number + 0.0))[0]
    return struct.pack(">Q", ~bits & (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN)


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
