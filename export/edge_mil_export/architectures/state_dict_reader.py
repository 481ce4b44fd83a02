"""The keys of a state dict, taken one layer at a time; what is left over in the end is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from edge_mil_export.errors import ArchitectureError

SHOWN_KEYS = 3
"""Keys that differ which a message names; all sixty of them tell a user nothing."""


class StateDictReader:
    """Builds layers from the tensors of a state dict, and records which were used.

    Sizes are read from shapes; a key that is missing, or a shape that does not follow from the
    layer before, is an `ArchitectureError`.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], architecture: str) -> None:
        self._state, self._architecture = state, architecture
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._state

    def tensor(self, key: str, *shape: int | None) -> torch.Tensor:
        """Return a tensor, checked against its shape; None allows any size.

        Raises:
            ArchitectureError: There is no such key, or it has another shape.
        """
        found = self._state.get(key)
        if found is None:
            raise ArchitectureError(f"it lacks {key}", key=key)
        self._used.add(key)
        fits = found.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, found.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ArchitectureError(
                f"{key} has shape {tuple(found.shape)} and should have ({wanted})", key=key
            )
        return found

    def linear(
        self,
        prefix: str,
        inputs: int | None = None,
        outputs: int | None = None,
        *,
        bias: bool | None = True,
    ) -> nn.Linear:
        """Return a fully connected layer.

        Args:
            prefix: Its keys are `prefix`.weight and `prefix`.bias.
            inputs: Its inputs, where they are known.
            outputs: Its outputs, where they are known.
            bias: True: it must have one. False: it has none. None: as in the file.
        """
        weight = self.tensor(f"{prefix}.weight", outputs, inputs)
        has_bias = bias if bias is not None else f"{prefix}.bias" in self
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if has_bias:
                layer.bias.copy_(self.tensor(f"{prefix}.bias", weight.shape[0]))
        return layer

    def multihead(self, prefix: str, width: int) -> tuple[nn.Linear, nn.Linear]:
        """Return the projections of a `torch.nn.MultiheadAttention`: before it (3 w), and after."""
        weight = self.tensor(f"{prefix}.in_proj_weight", 3 * width, width)
        has_bias = f"{prefix}.in_proj_bias" in self
        layer = nn.Linear(width, 3 * width, bias=has_bias)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if has_bias:
                layer.bias.copy_(self.tensor(f"{prefix}.in_proj_bias", 3 * width))
        return layer, self.linear(f"{prefix}.out_proj", width, width, bias=None)

    def layer_norm(self, prefix: str, width: int, *, eps: float = 1e-5) -> nn.LayerNorm:
        """Return a layer norm over the last axis; its bias may be absent."""
        has_bias = f"{prefix}.bias" in self
        layer = nn.LayerNorm(width, eps=eps, bias=has_bias)
        with torch.no_grad():
            layer.weight.copy_(self.tensor(f"{prefix}.weight", width))
            if has_bias:
                layer.bias.copy_(self.tensor(f"{prefix}.bias", width))
        return layer

    def batch_norm(self, prefix: str, width: int, *, eps: float = 1e-5) -> nn.Module:
        """Return a batch norm as it acts in eval mode: one factor and shift for each column."""
        variance = self.tensor(f"{prefix}.running_var", width)
        factor = self.tensor(f"{prefix}.weight", width) / torch.sqrt(variance + eps)
        mean = self.tensor(f"{prefix}.running_mean", width)
        self.ignore([f"{prefix}.num_batches_tracked"])
        return Affine(factor, self.tensor(f"{prefix}.bias", width) - mean * factor)

    def prefix(self, ending: str) -> str:
        """Return what comes before an ending of the first key that has it; "" for none."""
        found = sorted(key for key in self._state if key.endswith(ending))
        return found[0][: -len(ending)] if found else ""

    def indices(self, prefix: str) -> list[int]:
        """Return the numbers that follow a prefix in the keys, ascending."""
        parts = (key[len(prefix) :].split(".")[0] for key in self._state if key.startswith(prefix))
        return sorted({int(part) for part in parts if part.isdigit()})

    def ignore(self, prefixes: Iterable[str]) -> None:
        """Leave out keys that only training uses."""
        kept = tuple(prefixes)
        self._used.update(key for key in self._state if key.startswith(kept))

    def finish(self) -> None:
        """Check that every key was used.

        Raises:
            ArchitectureError: Some were not, so the file is of another architecture.
        """
        left = sorted(set(self._state) - self._used)
        if left:
            more = f" and {len(left) - SHOWN_KEYS} more" if len(left) > SHOWN_KEYS else ""
            raise ArchitectureError(
                f"it has {', '.join(left[:SHOWN_KEYS])}{more}, which {self._architecture} does not",
                key=left[0],
            )


class Affine(nn.Module):
    """A factor and a shift for each column."""

    def __init__(self, factor: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.factor, self.shift = nn.Parameter(factor), nn.Parameter(shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x * factor + shift."""
        return x * self.factor + self.shift
