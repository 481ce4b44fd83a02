"""Read the tensors of a file that `torch.save` wrote, without torch and without unpickling it.

Since torch 1.6 such a file is a zip: `data.pkl` says how tensors view storages, and each storage
is a member of raw bytes. The unpickler here knows tensors and containers, and nothing else.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_mil.errors import InvalidFeaturesError

DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
"""Storage class -> numpy type of its elements; bfloat16 is the upper half of a float32."""

REBUILDERS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"),
}


@dataclass(frozen=True, slots=True)
class _StorageKind:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    elements: npt.NDArray[np.generic]
    kind: str


class _Unpickler(pickle.Unpickler):
    """Builds arrays from `data.pkl`; an unknown name is an error and never an import."""

    def __init__(self, archive: zipfile.ZipFile, root: str, order: Literal["<", ">"]) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root, self._order = archive, root, order

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that a global of the pickle names."""
        if (module, name) in REBUILDERS:
            return _parameter if name == "_rebuild_parameter" else _tensor
        if module in ("torch", "torch.storage") and name in DTYPES:
            return _StorageKind(name)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Return a storage: ("storage", kind, member, location, elements)."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and isinstance(pid[1], _StorageKind)):
            raise pickle.UnpicklingError("it names a storage of an unknown kind")
        data = self._archive.read(f"{self._root}data/{pid[2]}")
        dtype = np.dtype(DTYPES[pid[1].name]).newbyteorder(self._order)
        return _Storage(np.frombuffer(data, dtype), pid[1].name)


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> npt.NDArray[np.generic]:
    """Return a tensor as an array; offset, size and stride are in elements of its storage."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    elements = storage.elements
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        found = np.empty(size, elements.dtype)
    elif offset < 0 or min(stride, default=0) < 0 or last >= len(elements):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    else:
        steps = tuple(step * elements.itemsize for step in stride)
        found = np.lib.stride_tricks.as_strided(elements[offset:], size, steps).copy()
    native = found.astype(found.dtype.newbyteorder("="))
    if storage.kind == "BFloat16Storage":
        return np.asarray((native.astype(np.uint32) << 16).view(np.float32))
    return native


def _parameter(data: Any, *_: object) -> Any:
    return data


def read_torch_tensors(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of a torch file.

    Args:
        path: A zip that `torch.save` wrote: one tensor, or a dict of them.

    Returns:
        Name -> array; a lone tensor is named "features". Entries that are no tensors are left out.

    Raises:
        InvalidFeaturesError: It is no such file, is damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = next(n for n in names if n.endswith("data.pkl"))[: -len("data.pkl")]
            big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
            found = _Unpickler(archive, root, ">" if big else "<").load()
    except pickle.UnpicklingError as error:
        raise InvalidFeaturesError(
            f"{path.name} is no tensor that can be read safely: {error}; save the features alone "
            "with torch.save(features, path), or as .npz."
        ) from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, StopIteration) as error:
        raise InvalidFeaturesError(
            f"{path.name} cannot be read as a torch file; it was cut short or damaged, copy it "
            "again."
        ) from error
    except (ValueError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise InvalidFeaturesError(
            f"{path.name} is no torch file of tensors ({error}); save the features alone with "
            "torch.save(features, path), or as .npz."
        ) from error
    if isinstance(found, np.ndarray):
        return {"features": found}
    if isinstance(found, dict):
        return {str(k): v for k, v in found.items() if isinstance(v, np.ndarray)}
    raise InvalidFeaturesError(
        f"{path.name} holds a {type(found).__name__} and no tensor; save the features with "
        "torch.save(features, path), or as .npz."
    )
