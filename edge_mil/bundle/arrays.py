"""Reads the arrays of an .npz file that may lie about its sizes."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.errors import BundleError

LARGEST_BYTES = 2 << 30
"""All arrays of one file together; a reference of 100 000 features of width 1024 has 400 MB."""
MOST_ARRAYS = 4096
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What numpy and zipfile raise for files that are not what they say."""


def read_arrays(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an .npz file by name; nothing is unpickled.

    The size of each is computed from its header and compared with what the file holds before
    memory is taken for it.

    Args:
        data: The file.
        name: What messages call it.

    Raises:
        BundleError: It is no such file, holds objects, or is larger than it may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS:
                raise ValueError(f"{len(members)} arrays")
            total = sum(member.file_size for member in members)
            if total > LARGEST_BYTES:
                raise ValueError(f"arrays of {total} bytes")
            return {
                member.filename.removesuffix(".npy"): _array(archive, member) for member in members
            }
    except BROKEN as error:
        raise BundleError(
            f"{name} cannot be read ({str(error)[:100] or type(error).__name__}); copy the bundle "
            "again, or export it again.",
            file=name,
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version} of an array")
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or size > member.file_size:
            raise ValueError(f"{member.filename}: {dtype} {shape} in {member.file_size} bytes")
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
