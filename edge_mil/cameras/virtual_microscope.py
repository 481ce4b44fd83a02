"""An archived slide played as a camera on a stage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_mil.cameras.plan import ScanPlan, serpentine
from edge_mil.cameras.playing import play
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.errors import UsageError
from edge_mil.types import Frame, Region

DEFAULT_FIELD_PX = (1024, 768)
"""Width and height of a field, camera pixels."""

OVERVIEW_PX = 512
"""Long side of the picture in which the place to hover at is looked for."""


class VirtualMicroscope:
    """Plays a slide, field by field; a `protocols.Camera`.

    The stage's (0, 0) is the top left corner of level 0, and its um are level-0 pixels x MPP.
    Fields lie on whole pixels, wholly inside the slide.
    """

    def __init__(
        self,
        slide: SlideFile,
        plan: ScanPlan,
        field_px: tuple[int, int] | None = None,
        tissue: tuple[Region, ...] = (),
    ) -> None:
        """Put a slide on the stage.

        Args:
            slide: The slide; the microscope closes it.
            plan: Which fields, in which order, how fast.
            field_px: Width and height of a field in level-0 pixels; None is 1024 x 768, or the
                whole slide where that is smaller.
            tissue: Outline of its tissue, where it is known.

        Raises:
            UsageError: The field that was asked for is empty or larger than the slide.
        """
        self.slide, self.plan = slide, plan
        self.width_px, self.height_px = _field_size(slide, field_px)
        self._tissue = tissue
        self.places = serpentine(
            slide.width_px, slide.height_px, self.width_px, self.height_px, plan.overlap
        )

    @property
    def mpp(self) -> float:
        """Pixel size of level 0, um/px."""
        return self.slide.mpp

    @property
    def tissue(self) -> tuple[Region, ...]:
        """The outline that the microscope was given, else empty."""
        return self._tissue

    def frames(self) -> Iterator[Frame]:
        """Yield the fields of the plan.

        Raises:
            SourceError: A part of the file is damaged.
        """
        hover_at = self._darkest() if self.plan.path == "hover" else self.places[0]
        return play(self.plan.route(self.places, hover_at), self.read, self.plan.fps)

    def read(self, place: tuple[int, int]) -> Frame:
        """Return the field whose top left pixel is `place` (x, y)."""
        x, y = place
        return Frame(
            self.slide.read(x, y, self.width_px, self.height_px),
            x_um=(x + self.width_px / 2) * self.mpp,
            y_um=(y + self.height_px / 2) * self.mpp,
            name=self.slide.path.name,
        )

    def close(self) -> None:
        """Let the slide go."""
        self.slide.close()

    def _darkest(self) -> tuple[int, int]:
        """Return the field that is darkest in the overview: it shows tissue if any does."""
        overview, zoom = self.slide.overview(OVERVIEW_PX)
        dark = 255.0 - overview.min(axis=2).astype(np.float64)
        return max(self.places, key=lambda place: self._mean(dark, zoom, place))

    def _mean(self, dark: np.ndarray, zoom: float, place: tuple[int, int]) -> float:
        x, y = (int(side / zoom) for side in place)
        width, height = (max(1, int(side / zoom)) for side in (self.width_px, self.height_px))
        part = dark[y : y + height, x : x + width]
        return float(part.mean()) if part.size else 0.0


def _field_size(slide: SlideFile, field_px: tuple[int, int] | None) -> tuple[int, int]:
    if field_px is None:
        width, height = DEFAULT_FIELD_PX
        return min(width, slide.width_px), min(height, slide.height_px)
    width, height = field_px
    if width < 1 or height < 1:
        raise UsageError(f"--fov is {width}x{height}; both sides must be 1 pixel or more.")
    if width > slide.width_px or height > slide.height_px:
        raise UsageError(
            f"--fov is {width}x{height} px and {slide.path.name} only {slide.width_px}x"
            f"{slide.height_px}; give a field that fits on the slide."
        )
    return width, height
