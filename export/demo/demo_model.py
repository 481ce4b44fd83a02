"""The demo's two networks: a small extractor for painted tissue and a gated attention head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURE_DIM = 64
HEAD_DIM = 64
ATTENTION_DIM = 32
CLASSES = ("negative", "positive")

MEAN, STD = (0.8, 0.6, 0.75), (0.2, 0.2, 0.2)
"""Normalisation of pixels of 0 to 1; `edge-mil-export` writes it into the graph."""

WIDTHS = (16, 32, 64, 96)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DemoExtractor(nn.Module):
    """Five convolutions and a mean: normalised RGB float32 (n, 3, 128, 128) to (n, 64)."""

    def __init__(self) -> None:
        super().__init__()
        inputs, blocks = 3, []
        for width in WIDTHS:
            blocks.append(_block(inputs, width, stride=2))
            inputs = width
        blocks.append(_block(inputs, WIDTHS[-1], stride=1))
        self.blocks = nn.Sequential(*blocks)
        self.project = nn.Conv2d(WIDTHS[-1], FEATURE_DIM, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return features (n, 64) of normalised tiles (n, 3, h, w)."""
        return self.pool(torch.relu(self.project(self.blocks(tiles)))).flatten(1)


class _GatedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(HEAD_DIM, ATTENTION_DIM), nn.Tanh())
        self.attention_b = nn.Sequential(nn.Linear(HEAD_DIM, ATTENTION_DIM), nn.Sigmoid())
        self.attention_c = nn.Linear(ATTENTION_DIM, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.attention_c(self.attention_a(hidden) * self.attention_b(hidden))


class DemoHead(nn.Module):
    """Gated attention pooling in the key layout that the exporter calls `abmil_millab`."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Linear(FEATURE_DIM, HEAD_DIM), nn.ReLU())
        self.global_attn = _GatedAttention()
        self.classifier = nn.Linear(HEAD_DIM, len(CLASSES))

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (2,) and attention (n,) of one bag of features (n, 64)."""
        hidden = self.patch_embed(bag)
        attention = torch.softmax(self.global_attn(hidden), dim=0)
        return self.classifier((attention * hidden).sum(dim=0)), attention[:, 0]


def extractor() -> nn.Module:
    """Return the extractor; `edge-mil-export bundle --extractor python:demo_model:extractor`."""
    return DemoExtractor()
