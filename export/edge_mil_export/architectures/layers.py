"""Layers as arrays for the device's part, and as a state dict for training from nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

FRESH_WIDTH, FRESH_HIDDEN = 64, 32
"""Widths of embedding and attention in a fresh head: the official ones (mostly 512 and 128), scaled
to what an audit or a benchmark trains in minutes."""


def linear_arrays(prefix: str, layer: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """Return the weight, and the bias where there is one, of a layer."""
    return {f"{prefix}.{k}": p.detach().numpy().copy() for k, p in layer.named_parameters()}


def fresh_parts(parts: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return the state dict of freshly initialised layers by their prefixes."""
    return {
        f"{prefix}.{key}": tensor
        for prefix, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
