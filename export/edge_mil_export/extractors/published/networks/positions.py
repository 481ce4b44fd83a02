"""Bring a learned position embedding to the grid of another tile size.

The rules differ by up to some percent of the features' range, and no file says which one its
authors use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mil_export.errors import ExtractorError

if TYPE_CHECKING:
    import torch

OFFSET = 0.1
"""What DINO and DINOv2 add to the wanted grid before they divide by the old one.

Source: facebookresearch/dino, vision_transformer.py, `interpolate_pos_encoding`;
facebookresearch/dinov2, dinov2/models/vision_transformer.py, `interpolate_offset`."""


@dataclass(frozen=True, slots=True, eq=False)
class PositionEmbedding:
    """A position embedding, taken apart.

    Attributes:
        prefix: For class and register tokens, (1, p, d); p may be 0.
        patches: For the patches, row by row, (1, h * w, d).
        grid: h and w, in patches.
    """

    prefix: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, int]


def split_positions(
    positions: torch.Tensor, prefixes: Sequence[int], wanted: tuple[int, int], *, file: str
) -> PositionEmbedding:
    """Tell the entries of class and register tokens from those of the patches.

    Args:
        positions: (1, p, d), prefix first.
        prefixes: How many entries may precede the patches.
        wanted: Grid of the tiles, in patches.
        file: Name of the file, for messages.

    Raises:
        ExtractorError: No such number leaves a square grid, or several do.
    """
    count = positions.shape[1]
    found: dict[int, tuple[int, int]] = {}
    for prefix in prefixes:
        patches = count - prefix
        side = math.isqrt(max(0, patches))
        if patches == wanted[0] * wanted[1] and side * side != patches:
            found[prefix] = wanted
        elif patches > 0 and side * side == patches:
            found[prefix] = (side, side)
    fitting = {prefix: grid for prefix, grid in found.items() if grid == wanted}
    if len(found) > 1 and len(fitting) == 1:
        found = fitting
    if len(found) != 1:
        raise ExtractorError(
            f"The position embedding of {file} has {count} entries, which "
            f"{'more than one grid explains' if found else 'is no square grid of patches'}; "
            "export at the tile size that the model was trained at."
        )
    ((prefix, grid),) = found.items()
    return PositionEmbedding(positions[:, :prefix], positions[:, prefix:], grid)


def interpolate_positions(
    positions: PositionEmbedding, grid: tuple[int, int], rule: str
) -> torch.Tensor:
    """Return the embedding of the patches on another grid, (1, h * w, d).

    Args:
        positions: As the file holds it.
        grid: Wanted, in patches.
        rule: timm, dinov2, dinov2_antialias, dino or transformers: all bicubic. timm (its
            resample_abs_pos_embed) and dinov2_antialias (DINOv2's models with registers) smooth
            before they sample and go to the exact grid, transformers goes to the exact grid
            without smoothing, dino and dinov2 scale by (grid + 0.1) / old grid without smoothing.
    """
    from torch.nn import functional

    if positions.grid == grid:
        return positions.patches
    old_h, old_w = positions.grid
    planes = positions.patches.reshape(1, old_h, old_w, -1).permute(0, 3, 1, 2)
    if rule in ("dino", "dinov2"):
        scale = ((grid[0] + OFFSET) / old_h, (grid[1] + OFFSET) / old_w)
        made = functional.interpolate(planes, scale_factor=scale, mode="bicubic")
    else:
        smooth = rule in ("timm", "dinov2_antialias")
        made = functional.interpolate(planes, size=grid, mode="bicubic", antialias=smooth)
    return made.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
