"""States as bytes: numpy's own formats, without pickle, the same to the bit when read back."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.errors import StoreError
from edge_mil.types import Float64Array, Int64Array, UInt8Array


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
        raise _unreadable(error) from error
    if numbers.dtype != np.float64 or numbers.shape != (length,):
        raise StoreError(
            f"A stored aggregator state is {numbers.dtype} {numbers.shape}, and this bundle's is "
            f"float64 ({length},); the session belongs to another bundle."
        )
    return np.asarray(numbers, dtype=np.float64)


def arrays_to_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return named arrays as an .npz file."""
    out = io.BytesIO()
    np.savez(out, **dict(arrays))  # type: ignore[arg-type] # its stub takes every name for an option
    return out.getvalue()


@contextlib.contextmanager
def stored_arrays(data: bytes) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Give the arrays of an .npz file to a `with` block.

    Raises:
        StoreError: The bytes are no such file, or the block names an array that is not in it.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            yield stored
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(error) from error


def join_keys(keys: Sequence[bytes]) -> tuple[UInt8Array, Int64Array]:
    """Return canonical keys end to end, uint8, and the length of each, int64."""
    text = np.frombuffer(b"".join(keys), dtype=np.uint8)
    return text, np.array([len(key) for key in keys], dtype="<i8")


def split_keys(text: UInt8Array, lengths: Int64Array) -> tuple[bytes, ...]:
    """Return the keys that `join_keys` joined."""
    joined, ends = text.tobytes(), np.cumsum(lengths).tolist()
    pairs = zip(ends, lengths.tolist(), strict=True)
    return tuple(joined[end - length : end] for end, length in pairs)


def _unreadable(error: Exception) -> StoreError:
    return StoreError(f"A stored aggregator state cannot be read ({error}).")
