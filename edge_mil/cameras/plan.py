"""What a camera is asked to do, checked once: the path over the slide, passes, pace."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge_mil.errors import UsageError

PATHS = ("serpentine", "random", "hover")
DEFAULT_OVERLAP = 0.1
MAX_OVERLAP = 0.95
"""More would take hundreds of fields for the area of one."""

HOVER_FRAMES = 30
"""Frames at one place when hovering and --frames does not say: a second of live video."""

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Options of `edge-mil stream` that say which places are visited, how often and how fast.

    Attributes:
        path: serpentine, random or hover.
        overlap: Share of a field that its neighbour shows again, 0 to 0.95.
        passes: How often the path is walked.
        frames: hover: frames at the first place; else the stream ends after so many. None: all.
        fps: Upper limit of frames per second; None for none.
        seed: Of the random path.

    Raises:
        UsageError: A value makes no sense; the message names the option.
    """

    path: str = "serpentine"
    overlap: float = DEFAULT_OVERLAP
    passes: int = 1
    frames: int | None = None
    fps: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options together."""
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

    def route(self, places: Sequence[Place], hover_at: Place) -> Iterator[Place]:
        """Yield the places to visit, in order.

        Args:
            places: Every place once, in the order of a serpentine.
            hover_at: Where to stay first when the path is hover.
        """
        if self.path == "hover":
            for _ in range(self.frames or HOVER_FRAMES):
                yield hover_at
        left = None if self.path == "hover" else self.frames
        order, chance = list(places), random.Random(self.seed)  # noqa: S311 - a path, no secret
        for _ in range(self.passes):
            if self.path == "random":
                chance.shuffle(order)
            for place in order:
                if left == 0:
                    return
                yield place
                left = None if left is None else left - 1


def serpentine(
    width_px: int, height_px: int, field_w_px: int, field_h_px: int, overlap: float
) -> list[tuple[int, int]]:
    """Return the top left pixels (x, y) of the fields that cover a slide wholly.

    Rows from the top, every second one from right to left. The last column and row move back, so
    that no field reaches beyond the slide.
    """
    columns = _starts(width_px, field_w_px, overlap)
    rows = _starts(height_px, field_h_px, overlap)
    return [
        (x, y)
        for number, y in enumerate(rows)
        for x in (columns if number % 2 == 0 else columns[::-1])
    ]


def _starts(length_px: int, field_px: int, overlap: float) -> list[int]:
    step, last = max(1, round(field_px * (1 - overlap))), length_px - field_px
    return [*range(0, last, step), last]
