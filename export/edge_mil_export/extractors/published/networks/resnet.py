"""ResNets from their weights: the widths and the number of blocks are in the file."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_mil_export.errors import ExtractorError

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1; the stride is in the first 3x3 (torchvision)."""

    def __init__(self, state: dict[str, torch.Tensor], at: str, stride: int) -> None:
        super().__init__()
        names = [f"conv{n}" for n in (1, 2, 3) if f"{at}conv{n}.weight" in state]
        strided = "conv2" if "conv3" in names else "conv1"
        incoming = state[f"{at}conv1.weight"].shape[1]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for name in names:
            weight = state[f"{at}{name}.weight"]
            groups = incoming // weight.shape[1]
            step = stride if name == strided else 1
            self.convs.append(_convolution(weight, step, groups))
            self.norms.append(batch_norm(state, f"{at}bn{name[-1]}"))
            incoming = weight.shape[0]
        self.shortcut: nn.Module | None = None
        if f"{at}downsample.0.weight" in state:
            self.shortcut = nn.Sequential(
                _convolution(state[f"{at}downsample.0.weight"], stride, 1),
                batch_norm(state, f"{at}downsample.1"),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map after the block."""
        found = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            found = norm(conv(functional.relu(found) if number else found))
        kept = x if self.shortcut is None else self.shortcut(x)
        return functional.relu(found + kept)


class ResNet(nn.Module):
    """Images (n, 3, h, w) to the mean (n, d) of the last feature map.

    Source:
        pytorch/vision, torchvision/models/resnet.py. The classes of MoCo, Barlow Twins, SwAV,
        RetCCL and Lunit compute the same up to their heads.
    """

    def __init__(self, state: dict[str, torch.Tensor], *, cut: str | None) -> None:
        """Build the network that the keys describe.

        Args:
            state: Keys without a prefix, as torchvision names them; BatchNorm counters may be
                missing.
            cut: The last stage that is run; None runs all.

        Raises:
            ExtractorError: A weight is missing or has another shape.
        """
        super().__init__()
        self.stem = _convolution(state["conv1.weight"], 2, 1)
        self.norm = batch_norm(state, "bn1")
        last = STAGES.index(cut) + 1 if cut is not None else len(STAGES)
        self.stages = nn.Sequential()
        for number, stage in enumerate(STAGES[:last]):
            count = block_count(state, stage)
            if not count:
                raise ExtractorError(f"it lacks {stage}.0.conv1.weight")
            for index in range(count):
                stride = 2 if number and not index else 1
                self.stages.append(ResidualBlock(state, f"{stage}.{index}.", stride))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        x = functional.relu(self.norm(self.stem(images)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        found: torch.Tensor = self.stages(x)
        return found.mean(dim=(2, 3))


def describe_resnet(state: dict[str, torch.Tensor], cut: str | None) -> str:
    """Return the shape in words."""
    counts = [block_count(state, stage) for stage in STAGES]
    kind = "bottleneck" if "layer1.0.conv3.weight" in state else "plain"
    shown = f"ResNet of {'-'.join(str(count) for count in counts)} {kind} blocks"
    return f"{shown}, cut after {cut}" if cut else shown


def block_count(state: dict[str, torch.Tensor], stage: str) -> int:
    """Return how many blocks a stage has."""
    indices = {key.split(".")[1] for key in state if key.startswith(f"{stage}.")}
    return len([index for index in indices if index.isdecimal()])


def batch_norm(state: dict[str, torch.Tensor], name: str) -> nn.BatchNorm2d:
    """Return a batch norm with the weights under `name`.

    Raises:
        ExtractorError: One is missing.
    """
    parts = ("weight", "bias", "running_mean", "running_var")
    missing = [f"{name}.{part}" for part in parts if f"{name}.{part}" not in state]
    if missing:
        raise ExtractorError(f"it lacks {missing[0]}")
    made = nn.BatchNorm2d(state[f"{name}.weight"].shape[0])
    made.load_state_dict({part: state[f"{name}.{part}"] for part in parts}, strict=False)
    return made


def _convolution(weight: torch.Tensor, stride: int, groups: int) -> nn.Conv2d:
    outgoing, incoming, height, width = weight.shape
    made = nn.Conv2d(
        incoming * groups,
        outgoing,
        (height, width),
        stride,
        padding=(height // 2, width // 2),
        groups=groups,
        bias=False,
    )
    made.load_state_dict({"weight": weight})
    return made
