"""Correct the colours of a slide file as a session with a calibration does."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from msgspec import structs

from edge_mil.bundle import TissueSpec
from edge_mil.imaging.correction.camera import CameraCorrection
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import StainTransform
from edge_mil.types import UInt8Array

NO_GAINS = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class SlideColours:
    """White balance, glass, camera and stain of a slide.

    A slide file has even light, so a flat field does not apply to it.

    Attributes:
        white_gains: Gain of red, green and blue, applied as `ShadingCorrection` does.
        background: Colour of empty glass after the gains; None: the bundle's nominal one.
        stain: Stain normalisation of tiles; None: none.
        camera: A passport's correction of tiles, before the stain; None: none.
    """

    white_gains: tuple[float, ...] = NO_GAINS
    background: tuple[float, ...] | None = None
    stain: StainTransform | None = None
    camera: CameraCorrection | None = None
    _table: UInt8Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Apply the gains to every grey level once: a table for `balanced`."""
        if self.white_gains != NO_GAINS:
            even = np.ones((1, 1, 3), dtype=np.float32)
            correction = ShadingCorrection(even, (256, 1), None, self.white_gains)
            levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
            table = correction.apply(levels).reshape(1, 256, 3)
            object.__setattr__(self, "_table", table)

    def balanced(self, pixels: UInt8Array) -> UInt8Array:
        """Return pixels, RGB uint8 (h, w, 3), after white balance."""
        if self._table is None:
            return pixels
        return cv2.LUT(pixels, self._table).astype(np.uint8, copy=False)

    def tissue(self, spec: TissueSpec) -> TissueSpec:
        """Return the bundle's tissue test with this glass as its background."""
        if self.background is None:
            return spec
        return structs.replace(spec, background=self.background)

    def stained(self, tiles: UInt8Array) -> UInt8Array:
        """Return tiles, RGB uint8 (n, h, w, 3), as the extractor takes them."""
        if self.camera is not None:
            tiles = self.camera.apply(tiles)
        return tiles if self.stain is None else self.stain.apply(tiles)
