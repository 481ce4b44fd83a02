"""A small real network for tests of the exporter: residual, depthwise, ReLU6, 16 features.

Torch is imported where it is used, so that tests of the runtime can be collected without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 16
TILE_PX = 32

MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(second, nn.BatchNorm2d(8), nn.ReLU6())
        self.flat = nn.Conv2d(8, 8, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())

    def forward(self, image):
        x = self.stem(image)
        x = x + self.flat(self.deep(x))
        return self.last(x).mean((2, 3))


def make():
    torch.manual_seed(0)
    net = Net()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.2, 0.6)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.5, 0.5)
    return net.eval()


def broken():
    return "not a module"


def wide():
    return nn.Sequential(nn.Conv2d(3, 4, 3))
"""


def write_module(folder: Path) -> None:
    """Write `tiny_net.py`, a user's own module, with the factory `make`."""
    (folder / "tiny_net.py").write_text(MODULE)


def tiny_net(folder: Path) -> Any:
    """Return the network itself."""
    import importlib.util

    write_module(folder)
    spec = importlib.util.spec_from_file_location("tiny_net_direct", folder / "tiny_net.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make()


def write_head(path: Path, width: int = FEATURES, *, seed: int = 0, sharp: float = 2.0) -> Path:
    """Write the checkpoint of a gated ABMIL head, as MIL-Lab names its layers."""
    import torch

    maker = torch.Generator().manual_seed(seed)
    sizes = {
        "patch_embed.0": (12, width, 1.0),
        "global_attn.attention_a.0": (8, 12, 1.0),
        "global_attn.attention_b.0": (8, 12, 1.0),
        "global_attn.attention_c": (1, 8, 1.0),
        "classifier": (2, 12, sharp),
    }
    state = {}
    for name, (rows, columns, gain) in sizes.items():
        weight = torch.randn(rows, columns, generator=maker) * gain / columns**0.5
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, torch.zeros(rows)
    torch.save(state, path)
    return path


def write_images(folder: Path, count: int, size: int, *, seed: int = 0) -> Path:
    """Write painted images of size x size px."""
    import cv2
    from edge_mil_export.fidelity.generated import paint_tiles

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = paint_tiles(1, (size, size), seed + number)[0]
        cv2.imwrite(str(folder / f"image{number:03}.png"), np.ascontiguousarray(pixels[:, :, ::-1]))
    return folder
