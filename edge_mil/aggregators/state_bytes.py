"""States as bytes: numpy's own format, no pickle, the same to the bit when read back."""

from __future__ import annotations

import io

import numpy as np

from edge_mil.errors import StoreError
from edge_mil.types import Float64Array


def to_bytes(numbers: Float64Array) -> bytes:
    """Return a float64 vector as an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(numbers, dtype="<f8"), allow_pickle=False)
    return buffer.getvalue()


def from_bytes(data: bytes, length: int) -> Float64Array:
    """Read what `to_bytes` wrote.

    Raises:
        StoreError: The bytes are no float64 vector of that length.
    """
    try:
        numbers = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise StoreError(f"A stored aggregator state cannot be read ({error}).") from error
    if numbers.dtype != np.float64 or numbers.shape != (length,):
        raise StoreError(
            f"A stored aggregator state is {numbers.dtype} {numbers.shape}, and this bundle's is "
            f"float64 ({length},); the session belongs to another bundle."
        )
    return np.asarray(numbers, dtype=np.float64)
