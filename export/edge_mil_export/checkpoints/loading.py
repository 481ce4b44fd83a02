"""Read the weights out of a checkpoint, in the wrapper that its authors' code wrote.

Nothing of the file is ever executed: torch files are read with `weights_only=True`, and objects
beside the tensors (configurations, arguments) become empty stand-ins.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge_mil_export.checkpoints.told import told_by, weights_and_settings
from edge_mil_export.checkpoints.unwrapping import Checkpoint, unwrap
from edge_mil_export.errors import CheckpointError, first_line

if TYPE_CHECKING:
    import torch

LFS_MAGIC = b"version https://git-lfs"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First pickle of a torch file older than 1.6: a magic number."""
LEGACY_PICKLES = 4
"""Magic number, protocol, system, object: the pickles of an old file before its storages."""
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format itself."""


def load_state_dict(path: Path, *, weights: str | None = None) -> dict[str, torch.Tensor]:
    """Return the weights of one network, without the wrappers and prefixes around them.

    Args:
        path: A .safetensors file, or a file that `torch.save` wrote; the name does not matter.
        weights: Which network, where the file holds several (student, teacher, ema and so on);
            ignored where it holds one.

    Returns:
        Key as the network's class names it -> float32 tensor on the CPU.

    Raises:
        CheckpointError: The file cannot be read, holds no state dict, or a weight is not finite.
        UsageError: The file holds several networks and `weights` does not name one.
    """
    return load_checkpoint(path, weights=weights).state


def load_checkpoint(path: Path, *, weights: str | None = None) -> Checkpoint:
    """Return the weights of one network, and which one it was; see `load_state_dict`."""
    file, settings = weights_and_settings(path)
    loaded = _load(file)
    told = told_by(loaded.get("hyper_parameters") if settings is None else settings)
    found = unwrap(loaded, name=path.name, weights=weights)
    state = {key: _checked(tensor, key, path.name) for key, tensor in found.state.items()}
    return Checkpoint(state, found.weights, found.left_out, told)


def _load(path: Path) -> Mapping[Any, Any]:
    """Return the mapping that the file holds."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_MAGIC) + len(LFS_MAGIC))
        size = path.stat().st_size
    except IsADirectoryError as error:
        raise CheckpointError(
            f"{path} is a folder; name the checkpoint file inside of it."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    if start.startswith(LFS_MAGIC):
        raise CheckpointError(
            f"{path.name} is a Git LFS pointer, not the weights; run git lfs pull where it was "
            "cloned, and export again."
        )
    if _is_safetensors(start, size):
        return _load_safetensors(path)
    if start.startswith(b"PK"):
        return _load_zip(path)
    if start.startswith(b"\x80"):
        return _load_legacy(path, start)
    raise CheckpointError(
        f"{path.name} is neither a file that torch.save wrote nor a safetensors file; "
        "save model.state_dict() with torch.save, and export that."
    )


def _is_safetensors(start: bytes, size: int) -> bool:
    """Say whether a file starts as safetensors: the length of a JSON header, then the header."""
    if len(start) < 9 or start[8:9] != b"{":
        return False
    length = int.from_bytes(start[:8], "little")
    return 0 < length <= max(size, MAX_SAFETENSORS_HEADER_BYTES)


def _load_safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    import safetensors
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} is a safetensors file that cannot be read ({first_line(error)}); it was "
            "cut short or damaged, copy it again."
        ) from error
    return tensors


def _load_zip(path: Path) -> Mapping[Any, Any]:
    """Read a torch file, a zip since torch 1.6."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1]: name for name in archive.namelist()}
            pickled = archive.read(names["data.pkl"]) if "data.pkl" in names else b""
    except (zipfile.BadZipFile, OSError) as error:
        raise _cut_short(path) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path.name} is a TorchScript program, not a state dict; save the state_dict() of the "
            "Python model, or use it as --extractor torchscript:FILE if it is an extractor."
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path.name} is a zip file that torch.save did not write; name the checkpoint itself."
        )
    try:
        found = _named_classes(io.BytesIO(pickled), 1)
    except ValueError as error:
        raise _cut_short(path) from error
    return _read_weights_only(path, found)


def _load_legacy(path: Path, start: bytes) -> Mapping[Any, Any]:
    """Read a torch file older than 1.6: pickles one after the other, then the storages."""
    if not start.startswith(LEGACY_MAGIC):
        raise CheckpointError(
            f"{path.name} is a pickle that torch.save did not write, so it is no state dict; save "
            "model.state_dict() with torch.save, and export that."
        )
    try:
        with path.open("rb") as file:
            found = _named_classes(file, LEGACY_PICKLES)
    except (OSError, ValueError) as error:
        raise _cut_short(path) from error
    return _read_weights_only(path, found)


def _named_classes(file: IO[bytes], pickles: int) -> list[str]:
    """Return the classes and functions that pickles name, without running them.

    Raises:
        ValueError: The bytes are no pickle.
    """
    return [
        str(argument).replace(" ", ".")
        for _ in range(pickles)
        for operation, argument, _position in pickletools.genops(file)
        if operation.name == "GLOBAL"
    ]


def _read_weights_only(path: Path, named: list[str]) -> Mapping[Any, Any]:
    """Read with `weights_only=True`; classes that torch does not allow become stand-ins.

    ACMIL and AEM pickle their configuration beside the weights. The unpickler builds `StandIn`
    wherever the file names a class that torch does not allow, and so never imports or calls
    anything of the file's.
    """
    import pickle

    import torch

    stand_ins: list[Any] = [
        (type(name.rsplit(".", 1)[-1], (StandIn,), {}), name) for name in dict.fromkeys(named)
    ]
    try:
        with torch.serialization.safe_globals(stand_ins):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than weights and cannot be read safely "
            f"({_reason(error)}); save model.state_dict() alone, and export that."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise _cut_short(path) from error
    if isinstance(loaded, StandIn):
        raise CheckpointError(
            f"{path.name} holds a pickled {type(loaded).__name__} object, not a state dict; save "
            "model.state_dict() with torch.save, and export that."
        )
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        raise CheckpointError(
            f"{path.name} holds a {kind}, not a state dict; save model.state_dict() with "
            "torch.save, and export that."
        )
    return loaded


class StandIn(dict[Any, Any]):
    """An empty object in place of one whose class torch does not allow."""

    def __new__(cls, *_: object, **__: object) -> StandIn:
        """Accept any arguments: they are those of the missing class."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def _checked(tensor: torch.Tensor, key: str, name: str) -> torch.Tensor:
    """Return the tensor as float32 where it holds real numbers; refuse what is not finite."""
    import torch

    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise CheckpointError(
            f"{key} of {name} is a complex, quantized or sparse tensor; export from the plain "
            "floating-point weights."
        )
    if not tensor.is_floating_point():
        if key.rsplit(".", 1)[-1].endswith("weight"):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{key} of {name} holds integers ({kind}) without the scales that make them "
                "weights; export from the floating-point weights before quantization."
            )
        return tensor
    single = tensor.detach().to(torch.float32)
    if not bool(torch.isfinite(single).all()):
        raise CheckpointError(
            f"{key} of {name} holds NaN or infinity, so the training diverged or the file is "
            "damaged; export an earlier checkpoint."
        )
    return single.contiguous()


def _cut_short(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path.name} cannot be read as a torch file; it was cut short or damaged, copy it again."
    )


def _reason(error: Exception) -> str:
    """Return the sentence of torch's message that names what it met."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if "WeightsUnpickler error" in line), None)
    return (found or (lines[0] if lines else type(error).__name__))[:160]
