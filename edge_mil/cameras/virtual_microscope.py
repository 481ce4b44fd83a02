"""An archived slide played as a camera on a stage."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from edge_mil.cameras.hand_path import hand_path
from edge_mil.cameras.imperfect_optics import ImperfectOptics
from edge_mil.cameras.imperfections import Imperfections, Shot
from edge_mil.cameras.playback import play
from edge_mil.cameras.scan_plan import ScanPlan, serpentine, turned_serpentine
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.errors import UsageError
from edge_mil.types import Frame, Region, UInt8Array

DEFAULT_FIELD_PX = (1024, 768)
"""Width and height of a field, camera pixels."""

OVERVIEW_PX = 512
"""Long side of the picture in which the place to hover at is looked for."""

DARKEST_GLASS = 215
"""Grey level in the overview below which a hand finds tissue worth going to."""

JITTER_REACH = 4.0
"""How many standard deviations a scan reaches beyond the slide, so that no error bares its edge."""


class VirtualMicroscope:
    """Plays a slide, field by field; a `protocols.Camera`.

    The stage's (0, 0) is the top left corner of level 0, and its um are level-0 pixels x MPP.
    Fields lie on whole pixels, wholly inside the slide; only those of a turned camera, or of a
    stage that errs, reach beyond its edge, where the slide goes on mirrored and `area` ends.
    """

    def __init__(
        self,
        slide: SlideFile,
        plan: ScanPlan,
        field_px: tuple[int, int] | None = None,
        tissue: tuple[Region, ...] = (),
        faults: Imperfections | None = None,
    ) -> None:
        """Put a slide on the stage.

        Args:
            slide: The slide; the microscope closes it.
            plan: Which fields, in which order, how fast.
            field_px: Width and height of a field in level-0 pixels; None is 1024 x 768, or the
                whole slide where that is smaller.
            tissue: Outline of its tissue, where it is known.
            faults: What is wrong with the microscope; None for nothing.

        Raises:
            UsageError: The field that was asked for is empty or larger than the slide.
        """
        self.slide, self.plan = slide, plan
        self.faults = faults or Imperfections()
        self.width_px, self.height_px = _field_size(slide, field_px)
        self._tissue = tissue
        self._optics = ImperfectOptics(slide, self.faults, self.width_px, self.height_px)
        self._visits: Counter[tuple[int, int]] = Counter()
        self._shots: dict[str, Shot] = {}
        self.places = self._plan_places()

    @property
    def mpp(self) -> float:
        """Pixel size of level 0, um/px."""
        return self.slide.mpp

    @property
    def tissue(self) -> tuple[Region, ...]:
        """The outline that the microscope was given, else empty."""
        return self._tissue

    @property
    def stage_affine(self) -> tuple[float, float, float, float] | None:
        """Camera pixel to stage um, row-major 2 x 2, as Micro-Manager declares it.

        None where the camera is not turned: mpp times the identity.
        """
        if not self.faults.rotation_deg:
            return None
        angle = math.radians(self.faults.rotation_deg)
        cos, sin = self.mpp * math.cos(angle), self.mpp * math.sin(angle)
        return cos, -sin, sin, cos

    @property
    def area(self) -> Region | None:
        """The slide, where fields reach beyond it; None where they do not."""
        if not (self.faults.stage and self.faults.reaches_beyond):
            return None
        width, height = self.slide.width_px * self.mpp, self.slide.height_px * self.mpp
        return Region(0.0, 0.0, width, height)

    def frames(self) -> Iterator[Frame]:
        """Yield the fields of the plan.

        Raises:
            SourceError: A part of the file is damaged.
        """
        return play(self.shots(), self.take, self.plan.fps)

    def shots(self) -> Iterator[Shot]:
        """Yield the exposures of the plan, in order."""
        hover_at = self._darkest(self.places) if self.plan.path == "hover" else self.places[0]
        dwell_at = self._darkest(self._middle()) if self.plan.dwell else None
        last: Shot | None = None
        for place in self.plan.route(self.places, hover_at, dwell_at):
            if last is None or (last.x, last.y) != place:
                last = self.visit(place)
            elif self.faults.noise:
                # Staring: only the sensor's noise is new. Without it, the same frame again.
                last = Shot(last.x, last.y, last.visit, last.frame + 1)
            yield last

    def visit(self, place: tuple[int, int]) -> Shot:
        """Return an exposure of a place (x, y) that is gone to, perhaps again."""
        shot = Shot(*place, visit=self._visits[place])
        self._visits[place] += 1
        return shot

    def take(self, shot: Shot) -> Frame:
        """Return an exposure; the same shot is the same frame."""
        if self.faults == Imperfections(seed=self.faults.seed):
            return self.read((shot.x, shot.y))
        name = f"{self.slide.path.name} ({shot.x}, {shot.y}) visit {shot.visit + 1}"
        self._shots[name] = shot
        x_um, y_um = self.position_um(shot)
        error_x, error_y = self.faults.stage_error_um(shot)
        return Frame(
            self._optics.expose(shot),
            x_um=x_um + error_x if self.faults.stage else None,
            y_um=y_um + error_y if self.faults.stage else None,
            name=name,
        )

    def position_um(self, shot: Shot) -> tuple[float, float]:
        """Return where the centre of an exposure truly is, stage um."""
        x, y = shot.x + self.width_px / 2, shot.y + self.height_px / 2
        return x * self.mpp, y * self.mpp

    def shot_of(self, frame: Frame) -> Shot:
        """Return the exposure that a frame of this microscope came from; its pixels may be gone.

        Raises:
            UsageError: The frame is of another camera.
        """
        if frame.name in self._shots:
            return self._shots[frame.name]
        if frame.x_um is None or frame.y_um is None:
            raise UsageError("The frame is not of this microscope.")
        return Shot(
            round(frame.x_um / self.mpp - self.width_px / 2),
            round(frame.y_um / self.mpp - self.height_px / 2),
        )

    def look_again(self, frame: Frame) -> Frame:
        """Go back to where a frame was taken, and take a fresh one."""
        shot = self.shot_of(frame)
        return self.take(self.visit((shot.x, shot.y)))

    def read(self, place: tuple[int, int]) -> Frame:
        """Return the field whose top left pixel is `place` (x, y), as a perfect one shows it."""
        x, y = place
        return Frame(
            self.slide.read(x, y, self.width_px, self.height_px),
            x_um=(x + self.width_px / 2) * self.mpp,
            y_um=(y + self.height_px / 2) * self.mpp,
            name=self.slide.path.name,
        )

    def empty_field(self, number: int = 0) -> UInt8Array:
        """Return a picture of clean glass through the same optics, RGB uint8 (h, w, 3).

        Args:
            number: Of the exposure: each has its own noise.
        """
        return self._optics.expose_glass(number)

    def close(self) -> None:
        """Let the slide go."""
        self.slide.close()

    def _plan_places(self) -> list[tuple[int, int]]:
        """Return the places of one pass: they cover the slide, or follow a hand."""
        slide, fov, overlap = self.slide, (self.width_px, self.height_px), self.plan.overlap
        if self.plan.path == "hand":
            overview, _ = slide.overview(OVERVIEW_PX)
            tissue = overview.min(axis=2) < DARKEST_GLASS
            frames, seed = self.plan.hand_frames, self.plan.seed
            return hand_path(slide.width_px, slide.height_px, *fov, frames, seed, tissue)
        margin = math.ceil(JITTER_REACH * self.faults.jitter_um / self.mpp)
        width, height = slide.width_px + 2 * margin, slide.height_px + 2 * margin
        if self.faults.rotation_deg:
            places = turned_serpentine(width, height, *fov, overlap, self.faults.rotation_deg)
        else:
            places = serpentine(width, height, *fov, overlap)
        return [(x - margin, y - margin) for x, y in places]

    def _middle(self) -> list[tuple[int, int]]:
        """Return the middle third of the pass."""
        third = len(self.places) // 3
        return self.places[third : len(self.places) - third]

    def _darkest(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """Return the field that is darkest in the overview: it shows tissue if any does."""
        overview, zoom = self.slide.overview(OVERVIEW_PX)
        dark = 255.0 - overview.min(axis=2).astype(np.float64)
        return max(places, key=lambda place: self._mean(dark, zoom, place))

    def _mean(self, dark: np.ndarray, zoom: float, place: tuple[int, int]) -> float:
        x, y = (max(0, int(side / zoom)) for side in place)
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
