"""DenseNets from their weights, as torchvision and KimiaNet name them."""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn import functional

from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.published.networks.resnet import batch_norm

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
"""Names of torchvision before 0.3, which its own loader still renames."""


class DenseNet(nn.Module):
    """Images (n, 3, h, w) to the mean (n, d) of the last feature map.

    Source:
        pytorch/vision, torchvision/models/densenet.py; KimiaLabMayo/KimiaNet,
        KimiaNet_PyTorch_Feature_Extraction.py, which pools without the last ReLU.
    """

    def __init__(self, state: dict[str, torch.Tensor], *, last_relu: bool) -> None:
        """Build the network that the keys describe.

        Args:
            state: Keys below `features.`: conv0.weight, denseblock1.denselayer1.norm1.weight.
            last_relu: Whether the last norm is followed by a ReLU, as in torchvision.

        Raises:
            ExtractorError: A weight is missing.
        """
        super().__init__()
        state = {OLD_NAME.sub(r"\1\2", key): value for key, value in state.items()}
        self.last_relu = last_relu
        self.conv0, self.norm0 = _convolution(state, "conv0", 2), batch_norm(state, "norm0")
        self.steps = nn.ModuleList()
        for block in _numbers(state, r"denseblock(\d+)\."):
            for layer in _numbers(state, rf"denseblock{block}\.denselayer(\d+)\."):
                self.steps.append(DenseLayer(state, f"denseblock{block}.denselayer{layer}"))
            if f"transition{block}.conv.weight" in state:
                self.steps.append(Transition(state, f"transition{block}"))
        self.norm5 = batch_norm(state, "norm5")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        x = functional.relu(self.norm0(self.conv0(images)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for step in self.steps:
            x = step(x)
        x = self.norm5(x)
        if self.last_relu:
            x = functional.relu(x)
        return x.mean(dim=(2, 3))


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution whose maps are added to the input's channels."""

    def __init__(self, state: dict[str, torch.Tensor], at: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm(state, f"{at}.norm1"), batch_norm(state, f"{at}.norm2")
        self.conv1 = _convolution(state, f"{at}.conv1", 1)
        self.conv2 = _convolution(state, f"{at}.conv2", 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input with new channels behind it."""
        found = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(found)))], dim=1)


class Transition(nn.Module):
    """A 1x1 convolution, then the mean of each 2x2 square."""

    def __init__(self, state: dict[str, torch.Tensor], at: str) -> None:
        super().__init__()
        self.norm, self.conv = batch_norm(state, f"{at}.norm"), _convolution(state, f"{at}.conv", 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a map of half the sides."""
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


def _convolution(state: dict[str, torch.Tensor], name: str, stride: int) -> nn.Conv2d:
    key = f"{name}.weight"
    if key not in state:
        raise ExtractorError(f"it lacks {key}")
    outgoing, incoming, height, width = state[key].shape
    padding = (height // 2, width // 2)
    made = nn.Conv2d(incoming, outgoing, (height, width), stride, padding, bias=False)
    made.load_state_dict({"weight": state[key]})
    return made


def _numbers(state: dict[str, torch.Tensor], pattern: str) -> list[int]:
    """Return the numbers that a pattern finds at the start of keys, in order."""
    return sorted({int(found[1]) for key in state if (found := re.match(pattern, key))})
