"""Compute what the report's drawings show: coordinates, colours and the numbers beside them.

The drawings themselves are templates, `templates/*.svg.j2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.session.report.content import HistoryPoint
from edge_mil.types import CellLayer, Float32Array, InfluenceMap, Region

RAISES, LOWERS = (217, 72, 1), (8, 81, 156)
"""Orange and blue differ for every kind of colour blindness (ColorBrewer's PuOr and RdBu ends)."""

INFLUENCE_LIMIT = 0.5
"""Logits at which the colour is full; fixed, so that slides and moments can be compared."""

FULL_OPACITY = 0.62
PALE = 0.03
"""Influences below this many logits are left without colour: they would only tint the tissue."""

SOFT, SHARP = (68, 1, 84), (253, 231, 37)
"""Ends of viridis: they differ in lightness, so that they can be told apart without colour."""

SEEN, PARTLY, NOT_SEEN = (27, 120, 55), (230, 159, 0), (213, 94, 0)
LAYER_OPACITY = 0.45
LEAST_SHARPNESS = 1e-3
"""Less than that of any field; keeps the logarithm finite."""
ENDS_PERCENT = (5.0, 95.0)
"""The scale of focus leaves out the softest and sharpest twentieth."""

LEGEND_STEPS = 60
SCALE_BAR_SHARE = 0.18
"""Longest scale bar, as a share of the slide's width."""
LEVELS = 5
"""Lines across the chart of the score, both ends included."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ColouredCell:
    """A rectangle of the slide with a colour.

    Attributes:
        x: Left end, stage um.
        y: Upper end, stage um.
        colour: RGB, 0 to 255.
        opacity: 0 to 1.
        label: Text shown when the mouse points at the rectangle.
    """

    x: float
    y: float
    colour: Colour
    opacity: float
    label: str


@dataclass(frozen=True, slots=True)
class CellDrawing:
    """Coloured cells of one size.

    Attributes:
        name: "heat", "focus" or "coverage".
        width: Of a cell, stage um.
        height: Of a cell, stage um.
        cells: Those that have a colour.
    """

    name: str
    width: float
    height: float
    cells: tuple[ColouredCell, ...]


@dataclass(frozen=True, slots=True)
class LegendStep:
    """One step of the scale of influence: its position (0 to 1), colour and opacity."""

    position: float
    colour: Colour
    opacity: float


@dataclass(frozen=True, slots=True)
class PlotArea:
    """The rectangle of a chart's curve in its drawing; y grows downwards."""

    left: float
    right: float
    top: float
    floor: float


@dataclass(frozen=True, slots=True)
class HistoryChart:
    """The score and the coverage over the fields, in the coordinates of a drawing.

    Attributes:
        area: The rectangle of the curves.
        levels: (y, value) of the lines across it.
        coverage: (x, y) of the coverage after each field; its scale is always 0 to 1.
        score: (x, y) of the score after each field that had one.
        fields: (x of its left end, field) of each mark below the curves.
        mark_width: Width of such a mark.
    """

    area: PlotArea
    levels: tuple[tuple[float, float], ...]
    coverage: tuple[tuple[float, float], ...]
    score: tuple[tuple[float, float], ...]
    fields: tuple[tuple[float, HistoryPoint], ...]
    mark_width: float


def influence_colour(value: float) -> tuple[Colour, float]:
    """Return the colour (RGB) and opacity (0 to 1) of an influence in logits."""
    strength = min(1.0, abs(value) / INFLUENCE_LIMIT)
    # The square root keeps small influences visible; the legend is drawn by this function too.
    return (RAISES if value >= 0 else LOWERS), FULL_OPACITY * math.sqrt(strength)


def influence_cells(heat_map: InfluenceMap) -> CellDrawing:
    """Return the cells that changed the score by `PALE` logits or more."""

    def paint(value: float) -> tuple[Colour, float, str]:
        return *influence_colour(value), f"{value:+.3f} logit"

    shown = np.where(np.abs(heat_map.values) < PALE, np.nan, heat_map.values)
    return _coloured("heat", heat_map, shown, paint)


def layer_cells(layer: CellLayer) -> CellDrawing:
    """Return the cells of a layer that says how the slide was seen."""
    paint = _coverage_paint if layer.name == "coverage" else _focus_paint(layer.values)
    return _coloured(layer.name, layer, layer.values, paint)


def legend_steps() -> tuple[LegendStep, ...]:
    """Return the scale of influence from -INFLUENCE_LIMIT to +INFLUENCE_LIMIT."""
    steps = []
    for k in range(LEGEND_STEPS):
        value = INFLUENCE_LIMIT * (2 * (k + 0.5) / LEGEND_STEPS - 1)
        colour, opacity = influence_colour(value)
        steps.append(LegendStep(k / LEGEND_STEPS, colour, 0.0 if abs(value) < PALE else opacity))
    return tuple(steps)


def scale_bar_um(region: Region) -> float:
    """Return the longest of 1, 2 or 5 times a power of ten that suits a picture's width."""
    longest = region.width_um * SCALE_BAR_SHARE
    step: float = 10 ** math.floor(math.log10(longest)) if longest > 0 else 1.0
    return max(step * factor for factor in (1, 2, 5) if factor == 1 or step * factor <= longest)


def history_chart(history: Sequence[HistoryPoint], area: PlotArea) -> HistoryChart | None:
    """Return the chart of a session's score; None where no field had one."""
    values = [point.value for point in history if point.value is not None]
    if not values:
        return None
    low, high = min(0.0, *values), max(1.0, *values)
    step = (area.right - area.left) / max(1, len(history) - 1)
    height = area.floor - area.top

    def x(k: int) -> float:
        return round(area.left + step * k, 1)

    def y(share: float) -> float:
        return round(area.floor - height * share, 1)

    mark_width = round(max(1.5, 0.86 * step), 1)
    return HistoryChart(
        area,
        levels=tuple(
            (y(k / (LEVELS - 1)), low + (high - low) * k / (LEVELS - 1)) for k in range(LEVELS)
        ),
        coverage=tuple((x(k), y(point.coverage)) for k, point in enumerate(history)),
        score=tuple(
            (x(k), y((point.value - low) / (high - low)))
            for k, point in enumerate(history)
            if point.value is not None
        ),
        fields=tuple((round(x(k) - mark_width / 2, 1), p) for k, p in enumerate(history)),
        mark_width=mark_width,
    )


def _coloured(
    name: str,
    grid: InfluenceMap | CellLayer,
    values: Float32Array,
    paint: Callable[[float], tuple[Colour, float, str]],
) -> CellDrawing:
    """Return the cells whose value is known, each painted; the lattice is that of `grid`."""
    width, height = grid.um_per_column, grid.um_per_row
    cells = [
        ColouredCell(
            grid.origin_x_um + column * width,
            grid.origin_y_um + row * height,
            *paint(float(values[row, column])),
        )
        for row, column in np.argwhere(np.isfinite(values))
    ]
    return CellDrawing(name, width, height, tuple(cells))


def _coverage_paint(share: float) -> tuple[Colour, float, str]:
    colour = SEEN if share >= 1 else PARTLY if share > 0 else NOT_SEEN
    return colour, LAYER_OPACITY, f"{share:.0%} seen"


def _focus_paint(values: Float32Array) -> Callable[[float], tuple[Colour, float, str]]:
    """Return the paint of sharpness: from soft to sharp by its logarithm, between the ends."""
    known = np.log(np.maximum(values[np.isfinite(values)], LEAST_SHARPNESS))
    low, high = np.percentile(known, ENDS_PERCENT) if known.size else (0.0, 0.0)

    def paint(sharpness: float) -> tuple[Colour, float, str]:
        above = math.log(max(sharpness, LEAST_SHARPNESS)) - low
        share = min(1.0, max(0.0, above / max(float(high - low), LEAST_SHARPNESS)))
        red, green, blue = (
            round(soft + share * (sharp - soft)) for soft, sharp in zip(SOFT, SHARP, strict=True)
        )
        return (red, green, blue), LAYER_OPACITY, f"sharpness {sharpness:.0f}"

    return paint
