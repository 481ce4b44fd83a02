"""A virtual microscope whose stage, or what is declared of it, is wrong."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from edge_mil.cameras.imperfect_optics import ImperfectOptics
from edge_mil.cameras.imperfections import Imperfections, Shot
from edge_mil.cameras.scan_plan import ScanPlan
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.stage_faults import StageFaults
from edge_mil.cameras.virtual_microscope import Corner, VirtualMicroscope
from edge_mil.errors import UsageError
from edge_mil.types import Frame, Region, UInt8Array


class FaultyMicroscope(VirtualMicroscope):
    """Plays a slide as `VirtualMicroscope` does, with faults of the stage and its declaration.

    Attributes:
        stage_faults: What is wrong.
    """

    def __init__(
        self,
        slide: SlideFile,
        plan: ScanPlan,
        stage_faults: StageFaults,
        field_px: tuple[int, int] | None = None,
        tissue: tuple[Region, ...] = (),
        faults: Imperfections | None = None,
    ) -> None:
        """Put a slide on a faulty stage; see `VirtualMicroscope`.

        Raises:
            UsageError: The field is empty or larger than one of the slides.
        """
        self.stage_faults = stage_faults
        super().__init__(slide, plan, field_px, tissue, faults)
        self._number = 0
        self._before: Corner | None = None
        self._arrives = (0, 0)
        turned = replace(
            self.faults, rotation_deg=self.faults.rotation_deg + stage_faults.turned_deg
        )
        self._other: SlideFile | None = None
        size = self._size(1.0)
        self._sharp = ImperfectOptics(slide, turned, *size)
        self._changed = ImperfectOptics(slide, turned, *self._size(stage_faults.ratio))
        self._other_optics = self._sharp
        if stage_faults.other_slide is not None:
            self._other = SlideFile(stage_faults.other_slide)
            if self._other.width_px < self.width_px or self._other.height_px < self.height_px:
                raise UsageError(
                    f"{stage_faults.other_slide.name} is smaller than a field; name a larger slide."
                )
            self._other_optics = ImperfectOptics(self._other, turned, *size)
        self._slide_from = stage_faults.slide_from or len(self.corners) // 2 + 1

    @property
    def mpp(self) -> float:
        return self._slide.mpp * self.stage_faults.mpp_factor

    @property
    def area(self) -> Region | None:
        return None

    def position_um(self, shot: Shot) -> tuple[float, float]:
        x, y = shot.x + self.width_px / 2, shot.y + self.height_px / 2
        return x * self._slide.mpp, y * self._slide.mpp

    def visit(self, corner: Corner) -> Shot:
        """Return an exposure of a place; the stage's way to it matters."""
        before = self._before or corner
        self._arrives = (
            _sign(corner[0] - before[0]) or self._arrives[0],
            _sign(corner[1] - before[1]) or self._arrives[1],
        )
        self._number += 1
        self._before = corner
        shot = super().visit(corner)
        return replace(shot, number=self._number, before=before, arrives=self._arrives)

    def take(self, shot: Shot) -> Frame:
        """Return the frame of an exposure, with the position that the stage reports."""
        name = f"{self._slide.path.name} ({shot.x}, {shot.y}) visit {shot.visit + 1}"
        self._shots[name] = shot
        known = replace(shot, x=shot.before[0], y=shot.before[1]) if self._is_late(shot) else shot
        x_um, y_um = self.position_um(known)
        error_x, error_y = self.faults.stage_error_um(shot)
        x_um, y_um = self.stage_faults.reported_um(x_um + error_x, y_um + error_y)
        staged = self.faults.stage
        return Frame(
            self._expose(shot),
            x_um=x_um if staged else None,
            y_um=y_um if staged else None,
            name=name,
        )

    def close(self) -> None:
        super().close()
        if self._other is not None:
            self._other.close()

    def _is_late(self, shot: Shot) -> bool:
        return self.stage_faults.late and shot.number > 0

    def _expose(self, shot: Shot) -> UInt8Array:
        faults = self.stage_faults
        lost = faults.backlash_um / 2 / self._slide.mpp
        seen = replace(
            shot,
            x=round(shot.x - lost * shot.arrives[0]),
            y=round(shot.y - lost * shot.arrives[1]),
        )
        if self._other is not None and shot.number >= self._slide_from:
            pixels = self._other_optics.expose(seen)
        elif faults.ratio != 1.0 and shot.number >= faults.ratio_from:
            width, height = self._size(faults.ratio)
            x = round(seen.x + (self.width_px - width) / 2)
            y = round(seen.y + (self.height_px - height) / 2)
            view = self._changed.expose(replace(seen, x=x, y=y))
            shrink = faults.ratio < 1
            pixels = np.asarray(
                cv2.resize(
                    view,
                    (self.width_px, self.height_px),
                    interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC,
                ),
                np.uint8,
            )
        else:
            pixels = self._sharp.expose(seen)
        return np.ascontiguousarray(pixels[:, ::-1]) if faults.mirrored else pixels

    def _size(self, ratio: float) -> tuple[int, int]:
        """Return columns and rows of level 0 that a field shows at a magnification."""
        return max(1, round(self.width_px / ratio)), max(1, round(self.height_px / ratio))


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
