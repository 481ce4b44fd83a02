"""Read features files, which hold one row for each instance of a slide."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_mil.errors import DependencyError, InvalidFeaturesError
from edge_mil.limits import printable
from edge_mil.pipeline.saved_features.torch_file import read_torch_tensors
from edge_mil.types import Float32Array, Float64Array

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LFS_MAGIC = b"version https://git-lfs"
LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"
SHOWN_CHARS = 40
"""Of a name in the file, in a message."""
POSITIONS = ("positions", "coords")
"""Ours; TRIDENT's and CLAM's."""
ZIP_FAULTS = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error)
"""What zipfile raises; RuntimeError for what is encrypted, or packed in a form it does not read."""
FEATURES = ("features", "feats")
"""Ours, TRIDENT's and CLAM's; STAMP's."""
WANTED = (*FEATURES, *POSITIONS, "group")

AnyArray: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class FeaturesFile:
    """The content of a features file.

    Attributes:
        features: float32, shape (n, d); n may be 0.
        positions: x and y of each instance in any one unit, float64 (n, 2); None without.
        group: Pseudo-bag of each instance, int64 (n,); None without.
        encoder: Name of the extractor, where the file has it; else "".
    """

    features: Float32Array
    positions: Float64Array | None
    group: npt.NDArray[np.int64] | None
    encoder: str


def read_features(path: str | Path) -> FeaturesFile:
    """Read `.npz`, `.h5` as TRIDENT, CLAM and STAMP write it, or a `.pt` tensor, by the content.

    Half and double precision become float32; a leading axis of 1 is dropped.

    Raises:
        InvalidFeaturesError: The file cannot be read, has no `features`, or they are not (n, d).
        DependencyError: It is HDF5 and h5py is not installed.
    """
    path = Path(path)
    arrays, encoder = _arrays(path)
    stored = next((arrays[name] for name in FEATURES if name in arrays), None)
    if stored is None:
        held = ", ".join(printable(name, SHOWN_CHARS) for name in sorted(arrays)[:5]) or "no array"
        raise InvalidFeaturesError(
            f"{path.name} has no array `features` (it holds {held}); save them under that name."
        )
    features = _matrix(stored, path.name)
    return FeaturesFile(
        features,
        _positions(arrays, len(features), path.name),
        _group(arrays, len(features), path.name),
        encoder,
    )


def _arrays(path: Path) -> tuple[Mapping[str, AnyArray], str]:
    """Return the file's arrays by name, and the name of its encoder."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except IsADirectoryError as error:
        raise InvalidFeaturesError(f"{path} is a folder; name one features file.") from error
    except OSError as error:
        raise InvalidFeaturesError(f"{path} cannot be read ({error.strerror}).") from error
    if start.startswith(HDF5_MAGIC):
        return _read_hdf5(path)
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(LFS_MAGIC):
        raise InvalidFeaturesError(
            f"{path.name} is a Git LFS pointer, not the features; run git lfs pull."
        )
    if start.startswith(LEGACY_TORCH_MAGIC):
        raise InvalidFeaturesError(
            f"{path.name} is in the torch format older than 1.6; load it and save it again with "
            "today's torch, or as .npz."
        )
    raise InvalidFeaturesError(
        f"{path.name} is neither .npz, .h5 nor a .pt tensor; save the features as one of these."
    )


def _read_zip(path: Path) -> tuple[Mapping[str, AnyArray], str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_FAULTS as error:
        raise _damaged(path) from error
    if any(name.endswith("data.pkl") for name in names):
        return read_torch_tensors(path), ""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in WANTED if name in stored}
            encoder = str(stored["encoder"]) if "encoder" in stored else ""
            # Only names, for the message that `features` is not among them.
            return arrays or {name: np.empty(0) for name in stored.files}, encoder
    except (*ZIP_FAULTS, ValueError, KeyError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise InvalidFeaturesError(
                f"{path.name} holds Python objects in place of numbers; save plain float arrays."
            ) from error
        raise _damaged(path) from error


def _read_hdf5(path: Path) -> tuple[Mapping[str, AnyArray], str]:
    try:
        import h5py
    except ImportError as error:
        raise DependencyError(
            f'{path.name} is HDF5 and h5py is not installed; run: pip install "edge-mil[device]"'
        ) from error
    try:
        with h5py.File(path, "r") as file:
            datasets = {n: file[n] for n in file if isinstance(file[n], h5py.Dataset)}
            arrays = {name: datasets[name][()] for name in WANTED if name in datasets}
            attributes = [file.attrs, *(data.attrs for data in datasets.values())]
            encoder = next((a["encoder"] for a in attributes if "encoder" in a), "")
            if isinstance(encoder, bytes):
                encoder = encoder.decode("utf-8", "replace")
            return arrays or {name: np.empty(0) for name in datasets}, str(encoder)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path) from error


def _matrix(stored: AnyArray, name: str) -> Float32Array:
    """Return features as float32 (n, d)."""
    array = np.asarray(stored)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise InvalidFeaturesError(
            f"The features of {name} have shape {array.shape}, and they must be (n, d): one row "
            "for each instance."
        )
    if array.dtype.kind not in "fiu":
        raise InvalidFeaturesError(
            f"The features of {name} are {array.dtype}, and they must be numbers."
        )
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity: refused later
        return np.ascontiguousarray(array, dtype=np.float32)


def _positions(arrays: Mapping[str, AnyArray], rows: int, name: str) -> Float64Array | None:
    key = next((key for key in POSITIONS if key in arrays), None)
    if key is None:
        return None
    array = np.asarray(arrays[key])
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.shape != (rows, 2) or array.dtype.kind not in "fiu":
        raise InvalidFeaturesError(
            f"`{key}` of {name} has shape {array.shape}, and {rows} features want ({rows}, 2): "
            "x and y of each."
        )
    positions = array.astype(np.float64)
    if not np.isfinite(positions).all():
        raise InvalidFeaturesError(f"`{key}` of {name} holds NaN or infinity.")
    return positions


def _group(arrays: Mapping[str, AnyArray], rows: int, name: str) -> npt.NDArray[np.int64] | None:
    if "group" not in arrays:
        return None
    array = np.asarray(arrays["group"])
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InvalidFeaturesError(
            f"`group` of {name} is {array.dtype} {array.shape}, and {rows} features want as many "
            "integers."
        )
    return array.astype(np.int64)


def _damaged(path: Path) -> InvalidFeaturesError:
    return InvalidFeaturesError(
        f"{path.name} cannot be read; it was cut short or damaged, copy it again."
    )
