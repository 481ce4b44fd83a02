"""The layers of a report that say how a slide was seen: focus and coverage, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge_mil.types import CellLayer

SOFT, SHARP = (68, 1, 84), (253, 231, 37)
"""Ends of viridis: they differ in lightness, so every eye and every printer tells them apart."""

SEEN, PARTLY, NOT_SEEN = (27, 120, 55), (230, 159, 0), (213, 94, 0)
OPACITY = 0.45

LEAST = 1e-3
"""Less sharpness than any picture has."""

ENDS_PERCENT = (5.0, 95.0)
"""The scale of focus leaves out the softest and sharpest twentieth."""

WORDS = {
    "focus": "Focus: yellow cells were seen sharpest, violet ones softest, on a logarithmic scale "
    "of this slide's own. Smooth tissue is soft of itself, so compare like with like.",
    "coverage": "Coverage: green cells were seen wholly, amber ones in part, and red ones, which "
    "the tissue outline holds, not at all.",
}


def layer_svg(layer: CellLayer) -> str:
    """Return one coloured rectangle for each cell that the layer says something of; stage um."""
    paint = _coverage if layer.name == "coverage" else _focus(layer)
    wide, high = layer.um_per_column, layer.um_per_row
    parts = []
    for row, column in np.argwhere(np.isfinite(layer.values)):
        value = float(layer.values[row, column])
        (r, g, b), words = paint(value)
        x, y = layer.origin_x_um + column * wide, layer.origin_y_um + row * high
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" '
            f'fill="rgb({r},{g},{b})" fill-opacity="{OPACITY}"><title>{words}</title></rect>'
        )
    return f'<g class="{layer.name}">{"".join(parts)}</g>'


def _coverage(share: float) -> tuple[tuple[int, int, int], str]:
    colour = SEEN if share >= 1 else PARTLY if share > 0 else NOT_SEEN
    return colour, f"{share:.0%} seen"


def _focus(layer: CellLayer) -> Callable[[float], tuple[tuple[int, int, int], str]]:
    known = np.log(np.maximum(layer.values[np.isfinite(layer.values)], LEAST))
    low, high = np.percentile(known, ENDS_PERCENT) if known.size else (0.0, 0.0)

    def paint(sharpness: float) -> tuple[tuple[int, int, int], str]:
        at = (math.log(max(sharpness, LEAST)) - low) / max(float(high - low), LEAST)
        share = min(1.0, max(0.0, float(at)))
        r, g, b = (round(s + share * (e - s)) for s, e in zip(SOFT, SHARP, strict=True))
        return (r, g, b), f"sharpness {sharpness:.0f}"

    return paint
