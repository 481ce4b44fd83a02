"""Compare the light of a field with what the tissue test takes for granted; learn nothing from it.

The tissue test knows one colour of empty glass. Where the lamp gives another one, glass passes for
tissue. Empty glass is recognised without that colour: it is even, and it has the colour of a lamp
and not of a stain (`docs/design/imaging.md`, "The light is checked, never learnt").
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, Measure, UInt8Array

SMALL_PX, SMALL_PX_OF_LARGE, LARGE_PX = 8, 16, 2_000_000
"""Side of the squares, pixels, whose mean colours are examined: a mean of 64 pixels has an eighth
of the sensor's noise. In a field of more than two million pixels they are larger, for speed."""

BRIGHT_QUANTILE = 0.995
"""Quantile of the brightest channel that stands for the brightest level of a field: a speck of
reflected light is smaller."""

THINNING = 8
"""Every eighth row and column is examined for the brightest level."""

CLIPPED_LEVEL, BRIGHTER_GLASS = 254.0, 8.0
"""Level from which glass is clipped, so that its true level is unknown, and grey levels by which it
must be brighter than a measured background to contradict it."""

MIN_SQUARES = 100
"""Squares from which a field is examined."""

EVEN_LEVELS = 2.0
"""Largest standard deviation of 3 x 3 squares of empty glass about the plane that fits them best,
grey levels, in each channel. Noise of 10 grey levels makes 1.3."""

MAX_SLOPE = 5.0
"""Largest slope of that plane, grey levels per square: a lamp that falls by half in 200 px."""

STAIN_SHARE, STAIN_LEVELS = 0.04, 1.0
"""Green lies below both red and blue by more than this share of the mean, and this many levels, in
stained tissue: eosin, haematoxylin and the blood stains absorb green most. A lamp that grows warmer
or colder moves red against blue, with green between them."""

BRIGHTER_LEVELS = 20.0
"""Grey levels by which structure is brighter than empty glass only where the light is inverted."""

MIN_BRIGHTER_SHARE = 0.05
"""Share of the squares that must be so: less may be highlights of dust, or pale tissue in the
brighter part of uneven light."""

GREEN_RATIO, MIN_GREEN_SHARE = 1.08, 0.6
"""Green over red and blue from which a square is green, and the share of green squares from which a
field without glass is no bright-field image. No good field of six sets has more than 0.49."""

GREY_LEVELS, MIN_GREY_SHARE = 1.5, 0.2
"""Largest difference between the channels of structure that has no colour, grey levels, and the
share of the squares that must show structure: a field of glass may show nothing but grey dust."""

LIGHT_ON_DARK, CHANNEL_DIFFERENCE = "light_on_dark", "channel_difference"
"""Measures that are there, and fail, where the light is inverted and where there is no colour."""

GLASS_CHANNELS = ("glass_red", "glass_green", "glass_blue")
"""Measures of the level of what looks like empty glass, with the level expected as threshold."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LightReading:
    """What one field says of the light.

    Attributes:
        agrees: Whether it shows empty glass where the tissue test expects it.
        contradicts: Whether it shows that the test's idea of the light is wrong.
        measures: The numbers, with their limits; those of the glass only where they contradict.
    """

    agrees: bool
    contradicts: bool
    measures: tuple[Measure, ...]


NOTHING_READ = LightReading(False, False, ())
"""Reading of a field that is too small."""


def brightest(pixels: UInt8Array) -> float:
    """Return the brightest level of a field, uint8 (h, w, 3), of any channel, without specks."""
    thinned = np.ascontiguousarray(pixels[::THINNING, ::THINNING])
    return float(np.quantile(thinned.max(axis=2), BRIGHT_QUANTILE))


def read_light(
    pixels: UInt8Array, tissue: TissueTest, max_dark_glass: float, *, calibrated: bool = False
) -> LightReading:
    """Examine the light of a field.

    Args:
        pixels: RGB uint8 (h, w, 3), after flat field and white balance.
        tissue: Tissue test with the session's background.
        max_dark_glass: Share of the field that may look like empty glass and still count as
            tissue. Clean real and painted fields have 0.003 at most, a lamp at 80 % the whole of
            their glass.
        calibrated: The background was measured: clipped glass that is brighter contradicts it.
    """
    side = SMALL_PX if pixels.shape[0] * pixels.shape[1] <= LARGE_PX else SMALL_PX_OF_LARGE
    height, width = pixels.shape[0] // side, pixels.shape[1] // side
    if height * width < MIN_SQUARES:
        return NOTHING_READ
    squares = _means(pixels, height, width, side)
    expected = np.asarray(tissue.background, np.float32)
    # Squares of one colour that a lamp can have; of them those that the tissue test calls tissue.
    red, green, blue = cv2.split(squares)
    mean = squares.mean(axis=2, dtype=np.float32)
    stained = green < np.minimum(red, blue) - STAIN_SHARE * mean - STAIN_LEVELS
    glass = _even(squares) & ~stained
    as_tissue = (squares <= expected - np.float32(tissue.min_difference)).any(axis=2)
    dark_glass, bright_glass = glass & as_tissue, glass & ~as_tissue
    structure = ~glass
    measures = []
    # A camera that sends one channel three times.
    if structure.mean() >= MIN_GREY_SHARE:
        difference = float(np.quantile(np.ptp(squares[structure], axis=1), 0.99))
        if difference <= GREY_LEVELS:
            measures.append(Measure(CHANNEL_DIFFERENCE, difference, GREY_LEVELS, False))
    # Light on dark: structure that is brighter than all that is even.
    brighter = _brighter_share(mean, glass, structure)
    no_glass = not bright_glass.any()
    if dark_glass.mean() <= max_dark_glass:
        brighter = 0.0  # a few even squares may be tissue
    green_share = float((green > GREEN_RATIO * np.maximum(red, blue)).mean())
    if no_glass and brighter >= MIN_BRIGHTER_SHARE:
        measures.append(Measure(LIGHT_ON_DARK, brighter, MIN_BRIGHTER_SHARE, False))
    elif no_glass and green_share >= MIN_GREEN_SHARE:
        measures.append(Measure(LIGHT_ON_DARK, green_share, MIN_GREEN_SHARE, False))
    # Glass that counts as tissue.
    share = float(dark_glass.mean())
    measures.append(Measure("dark_glass", share, max_dark_glass, share <= max_dark_glass))
    if share > max_dark_glass:
        measures += _glass_levels(squares[dark_glass], expected)
        if bright_glass.mean() > max_dark_glass:
            levels = mean[glass]
            low, high = (float(np.quantile(levels, q)) for q in (0.05, 0.95))
            measures.append(Measure("glass_unevenness", high - low, tissue.min_difference, False))
    # Glass that is clipped: of unknown level, and with a measured background of a wrong one.
    clipped = False
    if bright_glass.mean() > max_dark_glass:
        level = np.median(squares[bright_glass], axis=0)
        clipped = bool((level >= CLIPPED_LEVEL).any())
        if calibrated and clipped and (level > expected + BRIGHTER_GLASS).any():
            measures += _glass_levels(squares[bright_glass], expected)
    contradicts = any(not measure.passed for measure in measures)
    seen = float(bright_glass.mean()) > max_dark_glass
    agrees = seen and not contradicts and not clipped
    return LightReading(agrees, contradicts, tuple(measures))


def _means(pixels: UInt8Array, height: int, width: int, side: int) -> Float32Array:
    """Return the mean colour of each square of `side` pixels, float32 (height, width, 3)."""
    whole = pixels[: height * side, : width * side]
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _even(squares: Float32Array) -> BoolArray:
    """Return which squares have neighbours of the same colour, bool (height, width).

    Of the colours of 3 x 3 squares the plane that fits them best is the light's; the variance of a
    plane of slopes a and b over them is (a^2 + b^2) 2/3.
    """
    side, border = (3, 3), cv2.BORDER_REFLECT_101
    mean = cv2.boxFilter(squares, -1, side, borderType=border)
    variance = cv2.boxFilter(squares * squares, -1, side, borderType=border) - mean * mean
    step, ones = np.array([-0.5, 0.0, 0.5]), np.full(3, 1 / 3)
    across = cv2.sepFilter2D(squares, -1, step, ones, borderType=border)
    down = cv2.sepFilter2D(squares, -1, ones, step, borderType=border)
    slope = across * across + down * down
    even = (variance - slope * (2 / 3)).max(axis=2) < EVEN_LEVELS**2
    flat: BoolArray = even & (slope.max(axis=2) <= MAX_SLOPE**2)
    return flat


def _brighter_share(mean: Float32Array, glass: BoolArray, structure: BoolArray) -> float:
    """Return the share of squares whose structure is brighter than all glass; 0 without glass."""
    if not glass.any():
        return 0.0
    brightest_glass = float(np.quantile(mean[glass], 0.98))
    return float((structure & (mean > brightest_glass + BRIGHTER_LEVELS)).mean())


def _glass_levels(colours: Float32Array, expected: Float32Array) -> list[Measure]:
    """Return the level of each channel of squares (n, 3) beside the level expected."""
    return [
        Measure(name, float(level), float(wanted), False)
        for name, level, wanted in zip(
            GLASS_CHANNELS, np.median(colours, axis=0), expected, strict=True
        )
    ]
