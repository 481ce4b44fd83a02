"""Time the imaging path of a session step by step, next to the bare OpenCV calls of each step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np

from edge_mil.cli.bench.imaging_fields import FIELD_PX, MPP, SPEC
from edge_mil.imaging import (
    CellMap,
    CellUpdate,
    GridGeometry,
    TissueTest,
    resample_cell,
    thumbnail_jpeg,
)
from edge_mil.imaging.cells.replacement import sharpness_of
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.quality.saturation import SAMPLE_PX
from edge_mil.imaging.quality.spectrum import BLOCK_PX, MAX_BLOCKS, TEXTURED_SHARE
from edge_mil.imaging.registration import StageCheck
from edge_mil.imaging.registration.key_frames import QUALITY
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.render.thumbnail import JPEG_QUALITY
from edge_mil.session.instances.rows import part_row
from edge_mil.types import Frame, UInt8Array

Result = TypeVar("Result")

STEPS = {
    "saturation": "inRange and countNonZero of the rows looked at",
    "flat field, white balance": "one multiply",
    "grey": "one cvtColor",
    "motion, focus": "inRange, cvtColor and dft of the blocks",
    "locate, with a stage": "extractChannel, resize, phaseCorrelate of 306 x 256, imencode",
    "tissue": "one inRange, countNonZero of the pixels asked",
    "sharpness of cells": "one Sobel of the cells",
    "resample": "one resize of each new cell",
    "cut, keep parts": "one copy of the parts",
    "picture for the mosaic": "resize by halves, imencode",
}
"""Step -> the fewest bare calls that process the same number of pixels."""

GLASS, WHITE = (216, 216, 216), (255, 255, 255)
"""Darkest and brightest glass of the nominal tissue test."""

PART_COLUMNS = 1024
"""Columns of an image that stands for many small parts."""


@dataclass(slots=True)
class StepTimer:
    """Adds up the processor time of this thread by step.

    Attributes:
        spent_ms: Step -> milliseconds.
        pixels: Step -> number of pixels, where the bare calls depend on it.
    """

    spent_ms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pixels: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def time(self, step: str, work: Callable[[], Result]) -> Result:
        """Run the work and add its time to the step."""
        started = time.thread_time()
        result = work()
        self.spent_ms[step] += (time.thread_time() - started) * 1e3
        return result


@dataclass(frozen=True)
class _TimedTissueTest(TissueTest):
    timer: StepTimer = field(default_factory=StepTimer)

    def count(self, pixels: UInt8Array) -> int:
        self.timer.pixels["tissue"] += pixels.shape[0] * pixels.shape[1]
        return self.timer.time("tissue", lambda: super(_TimedTissueTest, self).count(pixels))

    def mask(self, pixels: UInt8Array) -> UInt8Array:
        self.timer.pixels["tissue"] += pixels.shape[0] * pixels.shape[1]
        return self.timer.time("tissue", lambda: super(_TimedTissueTest, self).mask(pixels))


class SteppedPath:
    """Processes the fields of a path as a session does, one step after the other."""

    def __init__(self, light: ShadingCorrection) -> None:
        self._light = light
        tissue = SPEC.tissue
        numbers = (tissue.background, tissue.min_difference, tissue.min_share)
        self._gate = FrameGate(GateSettings(), TissueTest(*numbers))
        self._geometry = GridGeometry(MPP, SPEC.tile_height_px, SPEC.tile_width_px, SPEC.mpp)
        self._cells = CellMap(
            self._geometry,
            background=tissue.background,
            min_difference=tissue.min_difference,
            min_share=tissue.min_share,
        )
        self._numbers = numbers
        self._check = StageCheck(FIELD_PX[::-1], MPP)

    @property
    def held(self) -> int:
        """Number of cells held."""
        return self._cells.held

    def take(self, sequence: int, frame: Frame) -> tuple[dict[str, float], dict[str, float]]:
        """Process one field; return the milliseconds of each step, and of its bare calls."""
        timer = StepTimer()
        timer.time("saturation", lambda: self._gate.saturation(frame.pixels))
        pixels = timer.time("flat field, white balance", lambda: self._light.apply(frame.pixels))
        grey = timer.time("grey", lambda: _grey(pixels))
        timer.time("motion, focus", lambda: self._gate.evaluate(pixels, None, grey))
        x_um, y_um = frame.x_um or 0.0, frame.y_um or 0.0
        comparison = timer.time(
            "locate, with a stage",
            lambda: self._check.compare(sequence, RegistrationPyramid.of(pixels), x_um, y_um),
        )
        timer.time("locate, with a stage", lambda: self._check.commit(comparison))
        self._cells.tissue = _TimedTissueTest(*self._numbers, timer=timer)

        def sharpness(x0: int, y0: int, x1: int, y1: int) -> float:
            timer.pixels["sharpness of cells"] += (x1 - x0) * (y1 - y0)
            return timer.time("sharpness of cells", lambda: sharpness_of(grey, x0, y0, x1, y1))

        update = timer.time(
            "all of the cells", lambda: self._update_cells(pixels, x_um, y_um, sequence, sharpness)
        )
        boxes = [self._box(pixels, cell) for cell in update.cells]
        timer.time("resample", lambda: self._resample(update, boxes))
        spent = timer.spent_ms
        spent["cut, keep parts"] = spent.pop("all of the cells") - sum(
            spent[step] for step in ("tissue", "sharpness of cells", "resample")
        )
        timer.time("picture for the mosaic", lambda: thumbnail_jpeg(pixels))
        bare = self._bare(frame.pixels, grey, timer, update, boxes, key=comparison.key is not None)
        return {step: spent[step] for step in STEPS}, bare

    def _update_cells(
        self,
        pixels: UInt8Array,
        x_um: float,
        y_um: float,
        sequence: int,
        sharpness: Callable[[int, int, int, int], float],
    ) -> CellUpdate:
        update = self._cells.plan(pixels, x_um, y_um, sequence, sharpness)
        for part in update.parts:
            part_row(sequence, part)
        self._cells.commit(update)
        return update

    def _box(self, pixels: UInt8Array, cell: tuple[int, int]) -> UInt8Array:
        """Return as many pixels as a cell has, from the field's corner."""
        box = self._geometry.box(*cell)
        return pixels[: box.height_px, : box.width_px]

    def _resample(self, update: CellUpdate, boxes: Sequence[UInt8Array]) -> None:
        for cell, tile, box in zip(update.cells, update.tiles, boxes, strict=True):
            resample_cell(box, self._geometry, *cell, out=tile)

    def _bare(
        self,
        raw: UInt8Array,
        grey: UInt8Array,
        timer: StepTimer,
        update: CellUpdate,
        boxes: Sequence[UInt8Array],
        *,
        key: bool,
    ) -> dict[str, float]:
        """Time the bare calls of `STEPS`, into memory that is allocated already."""
        bare, out = StepTimer(), np.empty_like(raw)
        rows = max(1, SAMPLE_PX // raw.shape[1])
        bare.time("saturation", lambda: _count(raw[:rows]))
        divisor = self._light.divisor
        bare.time(
            "flat field, white balance", lambda: cv2.multiply(raw, divisor, dst=out, scale=1 / 255)
        )
        bare.time("grey", lambda: cv2.cvtColor(raw, cv2.COLOR_RGB2GRAY, dst=np.empty_like(grey)))
        blocks = raw.reshape(-1, BLOCK_PX, 3)[: MAX_BLOCKS * BLOCK_PX]
        bare.time("motion, focus", lambda: _blocks(blocks))
        bare.time("locate, with a stage", lambda: _locate(raw, key=key))
        flat = raw.reshape(-1, 1, 3)
        bare.time("tissue", lambda: _count(_part(flat, timer.pixels["tissue"])))
        side = max(1, timer.pixels["sharpness of cells"] // grey.shape[1])
        bare.time("sharpness of cells", lambda: cv2.Sobel(grey[:side], cv2.CV_16S, 2, 2, ksize=3))
        bare.time("resample", lambda: _shrink(boxes))
        kept = sum(part.pixels.shape[0] * part.pixels.shape[1] for part in update.parts)
        bare.time("cut, keep parts", lambda: np.copyto(out.reshape(-1, 3)[:kept], flat[:kept, 0]))
        bare.time("picture for the mosaic", lambda: _thumbnail(raw))
        return {step: bare.spent_ms[step] for step in STEPS}


def _grey(pixels: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _part(flat: UInt8Array, count: int) -> UInt8Array:
    """Return about `count` pixels, as an image of PART_COLUMNS columns."""
    rows = max(1, min(count, len(flat)) // PART_COLUMNS)
    return flat[: rows * PART_COLUMNS].reshape(rows, PART_COLUMNS, 3)


def _count(pixels: UInt8Array) -> None:
    cv2.countNonZero(cv2.inRange(pixels, GLASS, WHITE))


def _blocks(pixels: UInt8Array) -> None:
    cv2.inRange(pixels, GLASS, WHITE)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    block = grey[:BLOCK_PX].astype(np.float32)
    for _ in range(round(MAX_BLOCKS * TEXTURED_SHARE)):
        cv2.dft(block, flags=cv2.DFT_COMPLEX_OUTPUT)


def _locate(pixels: UInt8Array, *, key: bool) -> None:
    half = _half(cv2.extractChannel(pixels, 1))
    small = _half(_half(half)).astype(np.float32)
    cv2.phaseCorrelate(small, small)
    if key:
        cv2.imencode(".jpg", half, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _thumbnail(pixels: UInt8Array) -> None:
    small = _half(_half(_half(pixels)))
    cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def _half(pixels: cv2.typing.MatLike) -> cv2.typing.MatLike:
    size = pixels.shape[1] // 2, pixels.shape[0] // 2
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _shrink(boxes: Sequence[UInt8Array]) -> None:
    size = SPEC.tile_width_px, SPEC.tile_height_px
    for box in boxes:
        cv2.resize(box, size, interpolation=cv2.INTER_AREA)
