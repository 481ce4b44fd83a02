"""Render a camera passport as one HTML page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from edge_mil.calibration.passport.pairs import PairedField, Pairs
from edge_mil.calibration.passport.passport import CameraPassport
from edge_mil.errors import StoreError
from edge_mil.pages import page_templates
from edge_mil.types import RESEARCH_USE_ONLY, Float64Array, UInt8Array

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, FLOOR = 46, 500, 14, 176
"""A chart and its plot area, px."""
DENSITY_BINS = 48
MAX_DENSITY = 1.0
"""Optical density at the end of a histogram: a tenth of the light is left."""
SHOWN = 4
EXAMPLE_PX = 224
JPEG_QUALITY = 88
CHANNELS = ("red", "green", "blue")
MTF_TOP = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class PassportPage:
    """What the page shows.

    Attributes:
        name: Of the calibration.
        optics: In the user's words.
        passport: The measurement.
        pairs: The pairs that it was measured on.
    """

    name: str
    optics: str
    passport: CameraPassport
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: its name, and its points as SVG writes them."""

    name: str
    points: str


def render_page(page: PassportPage) -> str:
    """Return the page as HTML."""
    passport, fields = page.passport, page.pairs.fields
    mended = [passport.correction.apply(one.camera) for one in fields]
    when = datetime.fromtimestamp(passport.measured, timezone.utc)
    templates = page_templates("edge_mil.calibration.passport")
    return templates.get_template("passport.html.j2").render(
        page=page,
        passport=passport,
        notice=RESEARCH_USE_ONLY,
        measured=when.strftime("%Y-%m-%d %H:%M UTC"),
        densities=_density_charts(fields, mended),
        detail=_detail_chart(passport),
        examples=_examples(fields, mended),
        shifts=list(zip(passport.before.shifts, passport.after.shifts, strict=True)),
        area={"left": LEFT, "right": RIGHT, "top": TOP, "floor": FLOOR},
        size={"width": WIDTH, "height": HEIGHT},
    )


def write_page(page: PassportPage, out: Path) -> None:
    """Write the page to a file.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        out.write_text(render_page(page), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The page cannot be written to {out} ({error.strerror}); name another --page."
        ) from error


def _density_charts(
    fields: tuple[PairedField, ...], mended: list[UInt8Array]
) -> list[tuple[str, list[Curve]]]:
    """Return for each channel the histograms of optical density of scan, camera and mended."""
    shown = {
        "scan": np.concatenate([one.scan for one in fields]),
        "camera": np.concatenate([one.camera for one in fields]),
        "mended": np.concatenate(mended),
    }
    edges = np.linspace(0, MAX_DENSITY, DENSITY_BINS + 1)
    charts = []
    for channel, name in enumerate(CHANNELS):
        counts = {}
        for kind, tiles in shown.items():
            levels = np.maximum(tiles[:, ::4, ::4, channel].astype(np.float64), 1.0) / 255
            counts[kind] = np.histogram(-np.log10(levels), edges)[0].astype(np.float64)
        highest = max(float(count.max()) for count in counts.values())
        middles = (edges[:-1] + edges[1:]) / 2 / MAX_DENSITY
        curves = [Curve(kind, _points(middles, c / highest)) for kind, c in counts.items()]
        charts.append((name, curves))
    return charts


def _detail_chart(passport: CameraPassport) -> list[Curve]:
    """Return the camera's transfer of detail, and the gain that is applied."""
    mtf = np.array(passport.mtf)
    curves = [Curve("camera", _points(np.linspace(0, 1, len(mtf)), mtf / MTF_TOP))]
    if passport.correction.gains:
        gains = np.interp(np.linspace(0, 1, len(mtf)), *_spaced(passport.correction.gains))
        after = mtf * gains
        curves.append(Curve("mended", _points(np.linspace(0, 1, len(mtf)), after / MTF_TOP)))
    return curves


def _spaced(values: tuple[float, ...]) -> tuple[Float64Array, Float64Array]:
    return np.linspace(0, 1, len(values)), np.array(values)


def _points(across: Float64Array, up: Float64Array) -> str:
    """Return points of SVG for values of 0 to 1; higher ones stay at the top."""
    x = LEFT + across * (RIGHT - LEFT)
    y = FLOOR - np.clip(up, 0, 1) * (FLOOR - TOP)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _examples(
    fields: tuple[PairedField, ...], mended: list[UInt8Array]
) -> list[tuple[str, bytes, bytes, bytes]]:
    """Return some cells, as camera, mended and scan show them: JPEG."""
    chosen = np.linspace(0, len(fields) - 1, min(SHOWN, len(fields))).astype(int)
    out = []
    for k in chosen:
        one, at = fields[k], len(fields[k].camera) // 2
        tiles = (one.camera[at], mended[k][at], one.scan[at])
        first, second, third = (_jpeg(tile) for tile in tiles)
        out.append((one.name, first, second, third))
    return out


def _jpeg(tile: UInt8Array) -> bytes:
    height = round(EXAMPLE_PX * tile.shape[0] / tile.shape[1])
    small = cv2.resize(tile, (EXAMPLE_PX, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
