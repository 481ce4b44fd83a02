"""Nystrom attention and the depth-wise grid convolution of transformer heads.

Source:
    Xiong et al. 2021, arXiv:2102.03902 (Nystrom attention, iterated pseudo-inverse); Shao et al.
    2021, arXiv:2106.00908 (PPEG); PyPI nystrom-attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.aggregators.dense import Arrays, gelu, layer_norm, linear, softmax_rows
from edge_mil.types import Float32Array, Float64Array

PINV_ROUNDS = 6
"""Rounds of the pseudo-inverse, as published."""
BLOCK = 2048
"""Rows of the attention that are held at once: with 256 landmarks, 2 MB."""
CONV_BLOCK = 128
"""Rows of one product with the banded matrix of the residual convolution."""


@dataclass(frozen=True, slots=True, eq=False)
class NystromLayer:
    """x + Nystrom attention of LN(x), then perhaps + MLP of LN(x).

    Attributes:
        arrays: Hold `prefix`.norm and .to_qkv; .to_out and .res_conv (heads, kernel) where the
            layer has them; .norm2, .mlp.0 and .mlp.1 where it has a network after the attention;
            .heads where there is no .res_conv, and .landmarks where they are not half the width.
        prefix: Of the layer.
        keep_last: Which rows of the padded sequence are the answer: the last ones, as meant, or
            the first ones, as nystrom-attention 0.0.9 returns.
    """

    arrays: Arrays
    prefix: str
    keep_last: bool = True

    @property
    def landmarks(self) -> int:
        """Landmarks of the attention."""
        given = self.arrays.get(f"{self.prefix}.landmarks")
        width = len(self.arrays[f"{self.prefix}.norm.weight"])
        return max(width // 2, 1) if given is None else int(given)

    def __call__(self, x: Float32Array, *, rows: int | None = None) -> Float32Array:
        """Return the first `rows` rows, or all, of the layer's answer, float32 (rows, l).

        Args:
            x: float32 (n, l).
            rows: How many to return; the layer still takes all of x.
        """
        count, width = x.shape
        landmarks = self.landmarks
        pad = -count % landmarks
        padded = np.zeros((pad + count, width), dtype=np.float32)
        padded[pad:] = layer_norm(x, self.arrays, f"{self.prefix}.norm")
        first = pad if self.keep_last else 0
        wanted = count if rows is None else rows
        mixed = self._attend(padded, landmarks, first, first + wanted)
        if f"{self.prefix}.to_out.weight" in self.arrays:
            mixed = linear(mixed, self.arrays, f"{self.prefix}.to_out")
        return with_mlp(x[:wanted] + mixed, self.arrays, self.prefix)

    def _attend(self, x: Float32Array, landmarks: int, start: int, end: int) -> Float32Array:
        """Return rows `start` to `end` of the attention of all heads side by side.

        With landmark queries Q' and keys K', means of consecutive rows, that is
        softmax(Q K'^T) pinv(softmax(Q' K'^T)) softmax(Q' K^T) V + conv(V), conv along the sequence.
        """
        kernels = self.arrays.get(f"{self.prefix}.res_conv.weight")
        heads = int(self.arrays[f"{self.prefix}.heads"]) if kernels is None else len(kernels)
        # Queries, keys and values of each head, (heads, n, each).
        projected = linear(x, self.arrays, f"{self.prefix}.to_qkv")
        inner = projected.shape[1] // 3
        each = inner // heads
        split = projected.reshape(len(x), 3, heads, each).transpose(1, 2, 0, 3)
        query, key, value = (np.ascontiguousarray(part) for part in split)
        query *= np.float32(each**-0.5)
        # Landmarks, and the pseudo-inverse of their own attention, in float64.
        landmark_queries, landmark_keys = (
            part.reshape(heads, landmarks, -1, each).mean(axis=2) for part in (query, key)
        )
        among_landmarks = softmax_rows(
            landmark_queries.astype(np.float64)
            @ landmark_keys.astype(np.float64).transpose(0, 2, 1)
        )
        inverse = pseudo_inverse(among_landmarks)
        out = np.empty((end - start, inner), dtype=np.float32)
        for head in range(heads):
            # What each landmark gathers from all values, and the inverse of the landmarks' mixing.
            gathered = softmax_rows(landmark_queries[head] @ key[head].T) @ value[head]
            unmixed = (inverse[head] @ gathered.astype(np.float64)).astype(np.float32)
            # The wanted rows attend the landmarks, a block at a time.
            column = out[:, head * each : (head + 1) * each]
            for at in range(start, end, BLOCK):
                upto = min(at + BLOCK, end)
                weights = softmax_rows(query[head, at:upto] @ landmark_keys[head].T)
                column[at - start : upto - start] = weights @ unmixed
            if kernels is not None:
                column += sequence_convolution(value[head], kernels[head], start, end)
        return out


def with_mlp(x: Float32Array, arrays: Arrays, prefix: str) -> Float32Array:
    """Return x + W2 gelu(W1 LN(x)) where the layer has such a network, else x."""
    if f"{prefix}.mlp.0.weight" not in arrays:
        return x
    hidden = gelu(linear(layer_norm(x, arrays, f"{prefix}.norm2"), arrays, f"{prefix}.mlp.0"))
    return x + linear(hidden, arrays, f"{prefix}.mlp.1")


def pseudo_inverse(matrices: Float64Array) -> Float64Array:
    """Return approximate pseudo-inverses by six rounds of a third-order iteration.

    The start is scaled by maxima over all matrices together, as the published code does.

    Args:
        matrices: float64 (heads, m, m).

    Source:
        Xiong et al. 2021, arXiv:2102.03902; nystrom-attention, `moore_penrose_iter_pinv`.
    """
    magnitude = np.abs(matrices)
    scale = magnitude.sum(axis=2).max() * magnitude.sum(axis=1).max()
    z: Float64Array = matrices.transpose(0, 2, 1) / scale
    one = np.eye(matrices.shape[1])
    for _ in range(PINV_ROUNDS):
        product = matrices @ z
        z = 0.25 * z @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return z


def sequence_convolution(
    values: Float32Array, kernel: Float32Array, start: int, end: int
) -> Float32Array:
    """Return rows `start` to `end` of a convolution along the sequence, the same for each column.

    As products with a banded matrix, which is several times faster than a loop over the taps.

    Args:
        values: float32 (n, d).
        kernel: float32 (taps,), an odd number.
        start: First row.
        end: Row after the last one.
    """
    # The rows that the convolution reads, with zeros beyond the ends of the sequence.
    half = len(kernel) // 2
    around = np.zeros((end - start + 2 * half, values.shape[1]), dtype=np.float32)
    low, high = max(start - half, 0), min(end + half, len(values))
    around[low - start + half : high - start + half] = values[low:high]
    # Row r of the band holds the kernel at columns r to r + taps.
    size = min(CONV_BLOCK, end - start)
    band = np.zeros((size, size + 2 * half), dtype=np.float32)
    for tap, weight in enumerate(kernel):
        band[np.arange(size), np.arange(size) + tap] = weight
    out = np.empty((end - start, values.shape[1]), dtype=np.float32)
    for at in range(0, end - start, size):
        rows = min(size, end - start - at)
        out[at : at + rows] = band[:rows, : rows + 2 * half] @ around[at : at + rows + 2 * half]
    return out


def grid_convolution(grid: Float32Array, arrays: Arrays, prefix: str) -> Float32Array:
    """Return a depth-wise convolution of a grid with zeros around it, float32 (rows, columns, l).

    Args:
        grid: float32 (rows, columns, l).
        arrays: Hold `prefix`.kernel (k, k, l), odd k, and `prefix`.bias (l,).
        prefix: Of the layer.
    """
    kernel, bias = arrays[f"{prefix}.kernel"], arrays[f"{prefix}.bias"]
    rows, columns, width = grid.shape
    half = len(kernel) // 2
    around = np.zeros((rows + 2 * half, columns + 2 * half, width), dtype=np.float32)
    around[half : half + rows, half : half + columns] = grid
    out = np.empty_like(grid)
    term = np.empty((columns, width), dtype=np.float32)
    for row in range(rows):  # one row of the answer stays in the processor's cache
        out[row] = bias
        for down in range(len(kernel)):
            line = around[row + down]
            for right in range(len(kernel)):
                np.multiply(line[right : right + columns], kernel[down, right], out=term)
                out[row] += term
    return out
