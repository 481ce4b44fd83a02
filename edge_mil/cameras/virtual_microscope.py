"""An archived slide played as a camera on a stage."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edge_mil.cameras.hand_path import hand_path
from edge_mil.cameras.imperfect_optics import ImperfectOptics
from edge_mil.cameras.imperfections import Imperfections, Shot
from edge_mil.cameras.playback import play
from edge_mil.cameras.scan_plan import ScanPlan, rotated_serpentine, serpentine
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.errors import UsageError
from edge_mil.protocols import Camera
from edge_mil.types import Frame, Region

DEFAULT_FIELD_PX = (1024, 768)
"""Width and height of a field, camera pixels."""

OVERVIEW_PX = 512
"""Long side of the overview in which tissue is searched for a path."""

DARKEST_GLASS = 215
"""Grey level in the overview below which a path by hand finds tissue."""

JITTER_REACH = 4.0
"""Standard deviations of the stage's error by which a scan reaches beyond the slide, so that no
error leaves an edge of it out."""

FOCUS_RETAKES = 3
"""Times that a refused field is taken again where the focus is random."""

Corner = tuple[int, int]
"""Top left pixel (x, y) of a field in level 0."""


class VirtualMicroscope(Camera):
    """Plays a slide, field by field.

    The stage's (0, 0) is the top left corner of level 0, and its um are level-0 pixels x MPP.
    Fields lie on whole pixels, wholly inside the slide; only those of a rotated camera, or of a
    stage with errors, reach beyond its edge, where the slide continues mirrored and `area` ends.

    Attributes:
        plan: Which fields, in which order, how fast.
        faults: What is wrong with the microscope.
        width_px: Columns of a field.
        height_px: Rows of a field.
        corners: Top left pixels of the fields of one pass.
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
            tissue: Outline of its tissue, stage um, where it is known.
            faults: What is wrong with the microscope; None: nothing.

        Raises:
            UsageError: The field is empty or larger than the slide.
        """
        self._slide, self.plan = slide, plan
        self.faults = faults or Imperfections()
        self.width_px, self.height_px = _field_size(slide, field_px)
        self._tissue = tissue
        self._optics = ImperfectOptics(slide, self.faults, self.width_px, self.height_px)
        self._visits: Counter[Corner] = Counter()
        self._shots: dict[str, Shot] = {}
        self.corners = self._plan_corners()

    @property
    def mpp(self) -> float:
        return self._slide.mpp

    @property
    def slide(self) -> SlideFile:
        return self._slide

    @property
    def tissue(self) -> tuple[Region, ...]:
        return self._tissue

    @property
    def hand_moved(self) -> bool:
        return not self.faults.stage

    @property
    def stage_affine(self) -> tuple[float, float, float, float] | None:
        """Camera pixel to stage um, row-major 2 x 2, as Micro-Manager declares it.

        None where the camera is not rotated: mpp times the identity.
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
        width, height = self._slide.width_px * self.mpp, self._slide.height_px * self.mpp
        return Region(0.0, 0.0, width, height)

    @property
    def calibration_name(self) -> str:
        """Name of these optics, for uneven light or a noisy sensor; else empty."""
        faults = self.faults
        if not (faults.vignette or faults.noise):
            return ""
        return (
            f"virtual-{self.width_px}x{self.height_px}-{self.mpp:.4g}um-v{faults.vignette:g}"
            f"-n{faults.noise:g}-s{faults.seed}"
        )

    def glass_frames(self, count: int) -> Iterator[Frame]:
        """Yield frames of clean glass through the same optics, each with its own noise."""
        for number in range(count):
            yield Frame(self._optics.expose_glass(number))

    def frames(self) -> Iterator[Frame]:
        """Yield the fields of the plan.

        Raises:
            SourceError: A part of the file is damaged.
        """
        return play(self.shots(), self.take, self.plan.fps)

    def shots(self) -> Iterator[Shot]:
        """Yield the exposures of the plan, in order."""
        hover_at = self._darkest(self.corners) if self.plan.path == "hover" else self.corners[0]
        dwell_at = self._darkest(self._middle_third()) if self.plan.dwell else None
        last: Shot | None = None
        for corner in self.plan.route(self.corners, hover_at, dwell_at):
            if last is None or (last.x, last.y) != corner:
                last = self.visit(corner)
            elif self.faults.noise:
                # The camera stays: only the sensor's noise is new. Without noise, the same frame.
                last = replace(last, frame=last.frame + 1)
            yield last

    def visit(self, corner: Corner) -> Shot:
        """Return an exposure of a place that the stage goes to, perhaps again."""
        shot = Shot(*corner, visit=self._visits[corner])
        self._visits[corner] += 1
        return shot

    def take(self, shot: Shot) -> Frame:
        """Return the frame of an exposure; the same shot gives the same frame."""
        if self.faults == Imperfections(seed=self.faults.seed):
            return self.read((shot.x, shot.y))
        name = f"{self._slide.path.name} ({shot.x}, {shot.y}) visit {shot.visit + 1}"
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
        """Return the true stage position of an exposure's centre, um."""
        x, y = shot.x + self.width_px / 2, shot.y + self.height_px / 2
        return x * self.mpp, y * self.mpp

    def shot_of(self, frame: Frame) -> Shot:
        """Return the exposure of a frame of this microscope, whose pixels may be gone.

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

    @property
    def retakes(self) -> int:
        return FOCUS_RETAKES if self.faults.defocus else 1

    def retake(self, frame: Frame) -> Frame:
        """Go back to the place of a frame and take a new one.

        Raises:
            UsageError: The frame is of another camera.
        """
        shot = self.shot_of(frame)
        return self.take(self.visit((shot.x, shot.y)))

    def read(self, corner: Corner) -> Frame:
        """Return the field at a corner, as a perfect microscope shows it."""
        x, y = corner
        return Frame(
            self._slide.read(x, y, self.width_px, self.height_px),
            x_um=(x + self.width_px / 2) * self.mpp,
            y_um=(y + self.height_px / 2) * self.mpp,
            name=self._slide.path.name,
        )

    def close(self) -> None:
        self._slide.close()

    def _plan_corners(self) -> list[Corner]:
        """Return the fields of one pass: they cover the slide, or follow a path by hand."""
        slide, fov, overlap = self._slide, (self.width_px, self.height_px), self.plan.overlap
        if self.plan.path == "hand":
            overview, _ = slide.read_whole(OVERVIEW_PX)
            tissue = overview.min(axis=2) < DARKEST_GLASS
            frames, seed = self.plan.hand_frames, self.plan.seed
            return hand_path(slide.width_px, slide.height_px, *fov, frames, seed, tissue)
        margin = math.ceil(JITTER_REACH * self.faults.jitter_um / self.mpp)
        width, height = slide.width_px + 2 * margin, slide.height_px + 2 * margin
        if self.faults.rotation_deg:
            corners = rotated_serpentine(width, height, *fov, overlap, self.faults.rotation_deg)
        else:
            corners = serpentine(width, height, *fov, overlap)
        return [(x - margin, y - margin) for x, y in corners]

    def _middle_third(self) -> list[Corner]:
        third = len(self.corners) // 3
        return self.corners[third : len(self.corners) - third]

    def _darkest(self, corners: list[Corner]) -> Corner:
        """Return the field that is darkest in the overview: it shows tissue if any does."""
        overview, zoom = self._slide.read_whole(OVERVIEW_PX)
        darkness = 255.0 - overview.min(axis=2).astype(np.float64)
        return max(corners, key=lambda corner: self._mean(darkness, zoom, corner))

    def _mean(self, darkness: np.ndarray, zoom: float, corner: Corner) -> float:
        x, y = (max(0, int(side / zoom)) for side in corner)
        width, height = (max(1, int(side / zoom)) for side in (self.width_px, self.height_px))
        part = darkness[y : y + height, x : x + width]
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
