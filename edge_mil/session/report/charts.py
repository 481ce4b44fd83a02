"""The drawings of a report as SVG: slide with heat map, legend, score over the fields."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_mil.session.report.layer_charts import layer_svg
from edge_mil.types import CellLayer, InfluenceMap, Region

RAISES, LOWERS = (217, 72, 1), (8, 81, 156)
"""Orange and blue differ for every kind of colour blindness (ColorBrewer's PuOr and RdBu ends)."""

INFLUENCE_LIMIT = 0.5
"""Logits at which the colour is full; fixed, so that slides and moments can be compared."""

FULL_OPACITY = 0.62
PALE = 0.03
"""Influences below this many logits are left without colour: they would only tint the tissue."""

VERDICT_COLOURS = {
    "ACCEPTED": "#1b7837",
    "DUPLICATE": "#9aa5b1",
    "BLANK": "#d9dee4",
    "DROPPED": "#7b3294",
}
OTHER_VERDICT = "#c2571a"


@dataclass(frozen=True, slots=True, eq=False)
class SlidePicture:
    """A picture of the slide and where it lies.

    Attributes:
        image: PNG or JPEG.
        region: What it shows, stage um.
    """

    image: bytes
    region: Region


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """Where the session stood after one field.

    Attributes:
        sequence: The field's number.
        verdict: Its verdict, by name.
        value: Probability of the class shown, else its logit; None while there was no score.
        coverage: 0 to 1.
    """

    sequence: int
    verdict: str
    value: float | None
    coverage: float


def influence_colour(value: float) -> tuple[tuple[int, int, int], float]:
    """Return the colour (RGB) and opacity (0 to 1) of an influence in logits."""
    strength = min(1.0, abs(value) / INFLUENCE_LIMIT)
    # The square root keeps small influences visible; the legend is drawn by this function too.
    return (RAISES if value >= 0 else LOWERS), FULL_OPACITY * math.sqrt(strength)


def slide_svg(
    picture: SlidePicture,
    heat_map: InfluenceMap | None,
    marks: Sequence[tuple[int, Region]],
    layers: Sequence[CellLayer] = (),
) -> str:
    """Return the slide with its heat map, other layers, and the outlines of the top fields."""
    region = picture.region
    kind = "png" if picture.image.startswith(b"\x89PNG") else "jpeg"
    image = base64.b64encode(picture.image).decode()
    width, height = region.width_um, region.height_um
    unit = width / 1000.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{region.x_um:g} {region.y_um:g} '
        f'{width:g} {height:g}" role="img" aria-label="slide with heat map">',
        f'<image href="data:image/{kind};base64,{image}" x="{region.x_um:g}" y="{region.y_um:g}" '
        f'width="{width:g}" height="{height:g}" preserveAspectRatio="none"/>',
    ]
    if heat_map is not None:
        parts.append('<g class="heat">' + cells_svg(heat_map) + "</g>")
    parts += map(layer_svg, layers)
    outlines = []
    for number, place in marks:
        outlines.append(
            f'<rect x="{place.x_um:g}" y="{place.y_um:g}" width="{place.width_um:g}" '
            f'height="{place.height_um:g}" fill="none" stroke="#111" stroke-opacity=".75" '
            f'stroke-width="{1.4 * unit:g}" stroke-dasharray="{5 * unit:g} {3 * unit:g}"/>'
            f'<circle cx="{place.x_um + 15 * unit:g}" cy="{place.y_um + 15 * unit:g}" '
            f'r="{10 * unit:g}" fill="#111"/><text x="{place.x_um + 15 * unit:g}" '
            f'y="{place.y_um + 19.5 * unit:g}" font-size="{13 * unit:g}" fill="#fff" '
            f'text-anchor="middle">{number}</text>'
        )
    parts.append('<g class="marks">' + "".join(outlines) + "</g>")
    parts.append(_scale_bar(region))
    return "".join(parts) + "</svg>"


def cells_svg(heat_map: InfluenceMap) -> str:
    """Return one coloured rectangle for each cell that changed the score; stage um."""
    wide, high = heat_map.um_per_column, heat_map.um_per_row
    parts = []
    for row, line in enumerate(heat_map.values):
        for column, number in enumerate(line):
            value = float(number)
            if math.isnan(value) or abs(value) < PALE:
                continue
            (r, g, b), opacity = influence_colour(value)
            x = heat_map.origin_x_um + column * wide
            y = heat_map.origin_y_um + row * high
            parts.append(
                f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" '
                f'fill="rgb({r},{g},{b})" fill-opacity="{opacity:.2f}">'
                f"<title>{value:+.3f} logit</title></rect>"
            )
    return "".join(parts)


def _scale_bar(region: Region) -> str:
    wanted = region.width_um * 0.18
    step: float = 10 ** math.floor(math.log10(wanted)) if wanted > 0 else 1.0
    length = max(step * factor for factor in (1, 2, 5) if step * factor <= wanted)
    unit = region.width_um / 1000.0
    right = region.x_um + region.width_um - 20 * unit
    bottom = region.y_um + region.height_um - 20 * unit
    words = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    return (
        f'<rect x="{right - length:g}" y="{bottom - 4 * unit:g}" width="{length:g}" '
        f'height="{4 * unit:g}" fill="#222"/><text x="{right - length / 2:g}" '
        f'y="{bottom - 9 * unit:g}" font-size="{14 * unit:g}" text-anchor="middle" '
        f'fill="#222">{words}</text>'
    )


def legend_svg(class_name: str) -> str:
    """Return the scale of the heat map, with numbers."""
    steps, left, width = 60, 20, 320
    parts = ['<svg viewBox="0 0 360 62" width="360" height="62" role="img" aria-label="scale">']
    for k in range(steps):
        value = INFLUENCE_LIMIT * (2 * (k + 0.5) / steps - 1)
        (r, g, b), opacity = influence_colour(value)
        opacity = 0.0 if abs(value) < PALE else opacity
        parts.append(
            f'<rect x="{left + k * width / steps:.2f}" y="18" width="{width / steps + 0.4:.2f}" '
            f'height="16" fill="rgb({r},{g},{b})" fill-opacity="{opacity:.2f}"/>'
        )
    parts.append(
        f'<rect x="{left}" y="18" width="{width}" height="16" fill="none" stroke="#667"/>'
        f'<text x="{left}" y="11">lowers {html.escape(class_name)}</text>'
        f'<text x="{left + width}" y="11" text-anchor="end">raises {html.escape(class_name)}</text>'
    )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = INFLUENCE_LIMIT * (2 * share - 1)
        words = "0" if share == 0.5 else f"{value:+g}"
        parts.append(
            f'<text x="{left + share * width:g}" y="50" text-anchor="middle">{words}</text>'
        )
    return "".join(parts) + "</svg>"


def history_svg(history: Sequence[HistoryPoint], class_name: str) -> str:
    """Return the score and the coverage after each field, and each field's verdict below."""
    wide, high, left, top, bottom = 640, 320, 46, 16, 62
    right = wide - 14
    values = [point.value for point in history if point.value is not None]
    if not values:
        return "<p>No field brought tissue, so there is no score to draw.</p>"
    low, highest = min(0.0, *values), max(1.0, *values)
    span = max(1, len(history) - 1)
    floor = high - bottom

    def x(k: int) -> float:
        return left + (right - left) * k / span

    def y(value: float) -> float:
        return floor - (floor - top) * (value - low) / (highest - low)

    parts = [f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="score over the fields">']
    for k in range(5):
        level = low + (highest - low) * k / 4
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}" '
            f'stroke="#e3e7ec"/><text x="{left - 7}" y="{y(level) + 4:.1f}" '
            f'text-anchor="end">{level:.2f}</text>'
        )
    covered = " ".join(
        f"{x(k):.1f},{floor - (floor - top) * p.coverage:.1f}" for k, p in enumerate(history)
    )
    parts.append(
        f'<polygon points="{left},{floor} {covered} {x(len(history) - 1):.1f},{floor}" '
        'fill="#dfe5ec" fill-opacity=".7"/>'
    )
    line = " ".join(
        f"{x(k):.1f},{y(p.value):.1f}" for k, p in enumerate(history) if p.value is not None
    )
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="#d94801" stroke-width="2.4" '
        'stroke-linejoin="round"/>'
    )
    last = max(k for k, p in enumerate(history) if p.value is not None)
    parts.append(f'<circle cx="{x(last):.1f}" cy="{y(values[-1]):.1f}" r="4" fill="#d94801"/>')
    wide_mark = max(1.5, 0.86 * (right - left) / span)
    for k, point in enumerate(history):
        colour = VERDICT_COLOURS.get(point.verdict, OTHER_VERDICT)
        parts.append(
            f'<rect x="{x(k) - wide_mark / 2:.1f}" y="{floor + 8}" width="{wide_mark:.1f}" '
            f'height="9" fill="{colour}"><title>field {point.sequence}: '
            f"{html.escape(point.verdict)}</title></rect>"
        )
    parts.append(
        f'<text x="{left}" y="{floor + 34}">field {history[0].sequence}</text>'
        f'<text x="{right}" y="{floor + 34}" text-anchor="end">field {history[-1].sequence}</text>'
        f'<rect x="{left + 90}" y="{floor + 42}" width="22" height="3" fill="#d94801"/>'
        f'<text x="{left + 118}" y="{floor + 48}">score of {html.escape(class_name)}</text>'
        f'<rect x="{left + 290}" y="{floor + 38}" width="22" height="11" fill="#dfe5ec"/>'
        f'<text x="{left + 318}" y="{floor + 48}">coverage (0 to 100 %)</text>'
    )
    return "".join(parts) + "</svg>"
