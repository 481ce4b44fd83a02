"""Layers as arrays for the device's part, and as a state dict for training from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

Arrays = dict[str, np.ndarray[Any, Any]]
"""What the device needs of a head: name in `aggregator.npz` -> array."""

FRESH_WIDTH, FRESH_HIDDEN = 64, 32
"""Widths of embedding and attention in a fresh head: the official ones (mostly 512 and 128), scaled
to what an audit or a benchmark trains in minutes."""


def arrays_of(parts: Mapping[str, nn.Module | torch.Tensor | None]) -> Arrays:
    """Return copies of tensors, and of the parameters of layers, by their names; None has none."""
    found: Arrays = {}
    for name, part in parts.items():
        if isinstance(part, torch.Tensor):
            found[name] = part.detach().numpy().copy()
        elif part is not None:
            found |= arrays_of({f"{name}.{key}": p for key, p in part.named_parameters()})
    return found


def fresh_parts(parts: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return the state dict of freshly initialised layers by their prefixes."""
    return {
        f"{prefix}.{key}": tensor
        for prefix, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
