"""The scan plan of a camera: the path over the slide, passes and pace, checked once."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge_mil.errors import UsageError

PATHS = ("serpentine", "random", "hover", "hand")
DEFAULT_OVERLAP = 0.1
MAX_OVERLAP = 0.95
"""More overlap would take hundreds of fields for the area of one."""

HOVER_FRAMES = 30
"""Frames at one place when hovering without --frames: a second of live video."""

HAND_FRAMES = 200
"""Fields of a path by hand without --frames."""

PROVING_OVERLAP = 0.08
"""Overlap of a path below which its fields say little of the stage: registration needs 0.06."""

MIN_OVERLAP_PX = 4
"""Overlap of rotated fields, whose edges lie between the lattice's pixels, not on them."""

Stop = TypeVar("Stop")
"""What a camera visits: a field's corner, or the name of an image."""


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Which stops a camera visits, how often and how fast; options of `edge-mil stream`.

    Attributes:
        path: serpentine, random, hover or hand.
        overlap: Share of a field that its neighbour shows again, 0 to 0.95.
        passes: How often the path is walked.
        frames: hover: frames at the first stop (None: 30); hand: fields of the path (None: 200);
            else the stream ends after so many (None: all).
        fps: Upper limit of frames per second; None for none.
        seed: Of the random path and of the one by hand.
        dwell: Extra frames at one stop in the middle of the first pass, which do not count as
            `frames`.
        check_geometry: Begin with a few fields that overlap by two thirds, where those of the path
            overlap too little to prove the stage; they do not count as `frames` either.

    Raises:
        UsageError: A value makes no sense; the message names the option.
    """

    path: str = "serpentine"
    overlap: float = DEFAULT_OVERLAP
    passes: int = 1
    frames: int | None = None
    fps: float | None = None
    seed: int = 0
    dwell: int = 0
    check_geometry: bool = False

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise UsageError(f"There is no path {self.path!r}; --path is {', '.join(PATHS)}.")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UsageError(
                f"--overlap is a share of the field, 0 to {MAX_OVERLAP:g}, got {self.overlap:g}."
            )
        if self.passes < 1:
            raise UsageError(f"--passes must be 1 or more, got {self.passes}.")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames must be 1 or more, got {self.frames}.")
        if self.fps is not None and not self.fps > 0:
            raise UsageError(f"--fps must be above 0, got {self.fps:g}.")
        if self.dwell < 0:
            raise UsageError(f"--dwell is a number of frames, 0 or more, got {self.dwell}.")

    @property
    def needs_check(self) -> bool:
        """Whether fields of the path overlap too little to be registered with each other."""
        apart = self.path in ("serpentine", "random") and self.overlap < PROVING_OVERLAP
        return self.check_geometry and apart

    @property
    def hand_frames(self) -> int:
        return self.frames or HAND_FRAMES

    def route(
        self, stops: Sequence[Stop], hover_at: Stop, dwell_at: Stop | None = None
    ) -> Iterator[Stop]:
        """Yield the stops to visit, in order.

        Args:
            stops: The stops of one pass: each once in the order of a serpentine, or the path by
                hand.
            hover_at: Stop to begin at when the path is hover.
            dwell_at: Stop for the extra frames, at its first visit; None: nowhere.
        """
        dwell = 0 if dwell_at is None else self.dwell
        for stop in self._passes(stops, hover_at):
            yield stop
            if dwell and stop == dwell_at:
                for _ in range(dwell):
                    yield stop
                dwell = 0

    def _passes(self, stops: Sequence[Stop], hover_at: Stop) -> Iterator[Stop]:
        if self.path == "hover":
            for _ in range(self.frames or HOVER_FRAMES):
                yield hover_at
        remaining = None if self.path in ("hover", "hand") else self.frames
        order, chance = list(stops), random.Random(self.seed)  # noqa: S311 - a path, no secret
        for _ in range(self.passes):
            if self.path == "random":
                chance.shuffle(order)
            for stop in order:
                if remaining == 0:
                    return
                yield stop
                remaining = None if remaining is None else remaining - 1


def serpentine(
    width_px: int, height_px: int, field_w_px: int, field_h_px: int, overlap: float
) -> list[tuple[int, int]]:
    """Return the fields that cover a slide wholly, along a serpentine.

    Args:
        width_px: Columns of the slide.
        height_px: Rows of the slide.
        field_w_px: Columns of a field, not more than the slide's.
        field_h_px: Rows of a field, not more than the slide's.
        overlap: Share of a field that its neighbour shows again.

    Returns:
        Top left pixels (x, y): rows from the top, every second one from right to left. The last
        column and row move back, so that no field reaches beyond the slide.
    """
    columns = _starts(width_px, field_w_px, overlap)
    rows = _starts(height_px, field_h_px, overlap)
    return [
        (x, y)
        for number, y in enumerate(rows)
        for x in (columns if number % 2 == 0 else columns[::-1])
    ]


def rotated_serpentine(
    width_px: int,
    height_px: int,
    field_w_px: int,
    field_h_px: int,
    overlap: float,
    rotation_deg: float,
) -> list[tuple[int, int]]:
    """Return fields of a rotated camera that cover a slide wholly, along a serpentine.

    The stage moves along the camera's own axes, as in a grid of Micro-Manager, so that the overlap
    is the same at every angle. Fields at the edge reach beyond the slide.

    Args:
        width_px: Columns of the slide.
        height_px: Rows of the slide.
        field_w_px: Columns of a field.
        field_h_px: Rows of a field.
        overlap: Share of a field that its neighbour shows again.
        rotation_deg: Angle from the stage's x axis to the camera's, towards y, degrees.

    Returns:
        The top left pixels (x, y) that the fields would have without the rotation: half a field
        left of and above their centres.
    """
    angle = math.radians(rotation_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    # Extent of the slide along the camera's axes (u, v), and half extent of a field along the
    # slide's axes (x, y).
    corners = [
        (x * cos + y * sin, y * cos - x * sin) for x in (0, width_px) for y in (0, height_px)
    ]
    low_u, high_u = min(u for u, _ in corners), max(u for u, _ in corners)
    low_v, high_v = min(v for _, v in corners), max(v for _, v in corners)
    reach_x = (field_w_px * abs(cos) + field_h_px * abs(sin)) / 2
    reach_y = (field_w_px * abs(sin) + field_h_px * abs(cos)) / 2
    columns = _rotated_starts(high_u - low_u, field_w_px, overlap)
    rows = _rotated_starts(high_v - low_v, field_h_px, overlap)
    # Centres along the camera's axes, rotated to the slide's; those off the slide are left out.
    fields = []
    for number, row in enumerate(rows):
        for column in columns if number % 2 == 0 else columns[::-1]:
            u, v = low_u + column + field_w_px / 2, low_v + row + field_h_px / 2
            x, y = u * cos - v * sin, u * sin + v * cos
            if -reach_x < x < width_px + reach_x and -reach_y < y < height_px + reach_y:
                fields.append((round(x - field_w_px / 2), round(y - field_h_px / 2)))
    return fields


def _rotated_starts(length_px: float, field_px: int, overlap: float) -> list[int]:
    """Return the starts of fields along one axis, the first and last a little beyond the end."""
    step = max(1, min(round(field_px * (1 - overlap)), field_px - MIN_OVERLAP_PX))
    length = math.ceil(length_px) + 2 * MIN_OVERLAP_PX
    last = max(0, length - field_px)
    return [start - MIN_OVERLAP_PX for start in (*range(0, last, step), last)]


def _starts(length_px: int, field_px: int, overlap: float) -> list[int]:
    """Return the starts of fields along one axis, the last one moved back to its end."""
    step, last = max(1, round(field_px * (1 - overlap))), length_px - field_px
    return [*range(0, last, step), last]
