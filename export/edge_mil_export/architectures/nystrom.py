"""Nystrom attention and the grid convolution of transformer heads, in torch: to train, to compare.

Source:
    Xiong et al. 2021, arXiv:2102.03902; Shao et al. 2021, arXiv:2106.00908.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_mil.errors import UsageError
from edge_mil_export.architectures.layers import Arrays, arrays_of, fresh_parts
from edge_mil_export.architectures.state_dict_reader import StateDictReader

PINV_ROUNDS = 6
KERNELS = (("proj", 7), ("proj1", 5), ("proj2", 3))
"""Keys of the grid convolutions and their sizes."""
HEADS, TAPS = 8, 33
"""Of a fresh layer, as published."""


@dataclass(frozen=True, slots=True)
class NystromKeys:
    """How a repository names the parts of a layer, after the layer's own prefix.

    Attributes:
        norm: Layer norm before the attention.
        qkv: Projection to queries, keys and values.
        out: Projection after the attention; "" where there is none.
        conv: Residual convolution of the values; "" where there is none.
        norm2: Layer norm before the network that follows; "" where none can follow.
        mlp: The two layers of that network.
    """

    norm: str = "norm"
    qkv: str = "attn.to_qkv"
    out: str = "attn.to_out.0"
    conv: str = "attn.res_conv.weight"
    norm2: str = ""
    mlp: tuple[str, str] = ("", "")


TRANSMIL_KEYS = NystromKeys()


class NystromLayer(nn.Module):
    """x + attention of LN(x) over landmarks, half as many as the width; perhaps + MLP of LN(x).

    The device's part, in NumPy, is `edge_mil.aggregators.whole_bag.nystrom`.
    """

    def __init__(
        self,
        reader: StateDictReader,
        prefix: str,
        width: int,
        *,
        keep_last: bool,
        keys: NystromKeys = TRANSMIL_KEYS,
        heads: int | None = None,
        landmarks: int | None = None,
    ) -> None:
        """Build the layer.

        Args:
            reader: The state dict.
            prefix: Before the keys of the layer.
            width: Of a row.
            keep_last: Which rows are the answer, as `edge_mil` takes it.
            keys: How the parts are named.
            heads: Heads, where no residual convolution tells.
            landmarks: Landmarks; None takes half of the width.
        """
        super().__init__()
        self.norm = reader.layer_norm(f"{prefix}.{keys.norm}", width)
        self.to_qkv = reader.linear(f"{prefix}.{keys.qkv}", width, bias=False)
        inner = self.to_qkv.out_features // 3
        self.to_out = reader.linear(f"{prefix}.{keys.out}", inner, width) if keys.out else None
        self.res_conv: nn.Parameter | None = None
        if keys.conv:
            kernel = reader.tensor(f"{prefix}.{keys.conv}", None, 1, None, 1)
            self.res_conv, heads = nn.Parameter(kernel.clone()), len(kernel)
        self.heads = checked_heads(heads or 0, inner)
        self.each = inner // self.heads
        self.own_landmarks = landmarks
        self.landmarks, self.keep_last = landmarks or max(width // 2, 1), keep_last
        self.mlp = read_mlp(reader, prefix, keys.norm2, keys.mlp, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's answer (n, l) to rows (n, l)."""
        count = len(x)
        pad = -count % self.landmarks
        padded = functional.pad(self.norm(x), (0, 0, pad, 0))
        split = self.to_qkv(padded).reshape(pad + count, 3, self.heads, self.each)
        query, key, value = split.permute(1, 2, 0, 3)
        query = query * self.each**-0.5
        queries, keys = (
            part.reshape(self.heads, self.landmarks, -1, self.each).mean(dim=2)
            for part in (query, key)
        )
        outer = torch.softmax(query @ keys.transpose(1, 2), dim=-1)
        among = torch.softmax(queries @ keys.transpose(1, 2), dim=-1)
        inward = torch.softmax(queries @ key.transpose(1, 2), dim=-1)
        mixed = (outer @ _pseudo_inverse(among)) @ (inward @ value)
        if self.res_conv is not None:
            half = self.res_conv.shape[2] // 2
            mixed = mixed + functional.conv2d(
                value[None], self.res_conv, padding=(half, 0), groups=self.heads
            ).squeeze(0)
        out = mixed.permute(1, 0, 2).flatten(1)
        out = out if self.to_out is None else self.to_out(out)
        x = x + (out[pad:] if self.keep_last else out[:count])
        return x if self.mlp is None else x + self.mlp(x)

    def arrays(self, prefix: str) -> Arrays:
        found = arrays_of(
            {
                f"{prefix}.norm": self.norm,
                f"{prefix}.to_qkv": self.to_qkv,
                f"{prefix}.to_out": self.to_out,
            }
        )
        if self.res_conv is not None:
            found |= arrays_of({f"{prefix}.res_conv.weight": self.res_conv[:, 0, :, 0]})
        else:
            found[f"{prefix}.heads"] = np.array(self.heads)
        if self.own_landmarks is not None:
            found[f"{prefix}.landmarks"] = np.array(self.own_landmarks)
        return found | mlp_arrays(self.mlp, prefix)


def checked_heads(heads: int, width: int) -> int:
    """Return the heads of an attention, which must share its width evenly.

    Raises:
        UsageError: They do not.
    """
    if heads < 1 or width % heads:
        raise UsageError(
            f"heads={heads} does not divide the width {width} evenly; name the heads that it was "
            "trained with."
        )
    return heads


def read_mlp(
    reader: StateDictReader, prefix: str, norm: str, layers: tuple[str, str], width: int
) -> nn.Sequential | None:
    """Return LN, linear, gelu and linear as one network; None where the file has no such layers.

    Args:
        reader: The state dict.
        prefix: Of the layer that they are in.
        norm: Name of the layer norm; "" where none can be.
        layers: Names of the two linear layers.
        width: Of a row.
    """
    if not norm:
        return None
    if f"{prefix}.{layers[0]}.weight" not in reader:
        reader.ignore([f"{prefix}.{norm}."])  # torchmil makes the norm also where nothing follows
        return None
    first = reader.linear(f"{prefix}.{layers[0]}", width)
    last = reader.linear(f"{prefix}.{layers[1]}", first.out_features, width)
    return nn.Sequential(reader.layer_norm(f"{prefix}.{norm}", width), first, nn.GELU(), last)


def mlp_arrays(mlp: nn.Sequential | None, prefix: str) -> Arrays:
    """Return the arrays of `read_mlp`'s network."""
    if mlp is None:
        return {}
    names = {f"{prefix}.norm2": mlp[0], f"{prefix}.mlp.0": mlp[1], f"{prefix}.mlp.1": mlp[3]}
    return arrays_of(names)


class GridConvolution(nn.Module):
    """f + depth-wise convolutions of three sizes over a grid, with zeros around it."""

    def __init__(self, reader: StateDictReader, prefix: str, width: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for name, size in KERNELS:
            weight = reader.tensor(f"{prefix}.{name}.weight", width, 1, size, size)
            has_bias = f"{prefix}.{name}.bias" in reader
            bias = reader.tensor(f"{prefix}.{name}.bias", width) if has_bias else torch.zeros(width)
            self.weights.append(nn.Parameter(weight.clone()))
            self.biases.append(nn.Parameter(bias.clone()))

    def forward(self, rows: torch.Tensor, side: int) -> torch.Tensor:
        grid = rows.T.reshape(1, -1, side, side)
        out = grid
        for weight, bias in zip(self.weights, self.biases, strict=True):
            half = weight.shape[-1] // 2
            out = out + functional.conv2d(grid, weight, bias, padding=half, groups=len(weight))
        return out.flatten(2).squeeze(0).T

    def arrays(self, prefix: str) -> Arrays:
        """Return the sum of all kernels and the identity, (7, 7, l), and of their biases."""
        largest = KERNELS[0][1]
        kernel = np.zeros((largest, largest, len(self.biases[0])))
        kernel[largest // 2, largest // 2] = 1
        for weight in self.weights:
            edge = (largest - weight.shape[-1]) // 2
            inside = slice(edge, largest - edge)
            kernel[inside, inside] += weight.detach().double().numpy()[:, 0].transpose(1, 2, 0)
        bias = sum(bias.detach().double().numpy() for bias in self.biases)
        return {
            f"{prefix}.kernel": kernel.astype(np.float32),
            f"{prefix}.bias": np.asarray(bias, dtype=np.float32),
        }


def fresh_nystrom(prefix: str, width: int) -> dict[str, torch.Tensor]:
    """Return a layer as torch initialises it."""
    parts: dict[str, nn.Module] = {
        "norm": nn.LayerNorm(width),
        "attn.to_qkv": nn.Linear(width, 3 * width, bias=False),
        "attn.to_out.0": nn.Linear(width, width),
        "attn.res_conv": nn.Conv2d(HEADS, HEADS, (TAPS, 1), groups=HEADS, bias=False),
    }
    return fresh_parts({f"{prefix}.{name}": part for name, part in parts.items()})


def fresh_grid(prefix: str, width: int) -> dict[str, torch.Tensor]:
    """Return the grid convolutions as torch initialises them."""
    return fresh_parts(
        {f"{prefix}.{name}": nn.Conv2d(width, width, k, groups=width) for name, k in KERNELS}
    )


def _pseudo_inverse(matrices: torch.Tensor) -> torch.Tensor:
    size = matrices.abs()
    z = matrices.transpose(1, 2) / (size.sum(dim=2).max() * size.sum(dim=1).max())
    one = torch.eye(matrices.shape[1], dtype=matrices.dtype)
    for _ in range(PINV_ROUNDS):
        product = matrices @ z
        z = 0.25 * z @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return z
