"""A camera passport: how one camera shows tissue to one bundle, and what mends it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_mil.calibration.passport.effect import Effect
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.camera import CameraCorrection, noise_gain

VERIFIED, NOT_VERIFIED = "verified", "not verified"
"""States of the camera of a session (`docs/commissioning.md`, "What a passport says")."""


@dataclass(frozen=True, slots=True, eq=False)
class CameraPassport:
    """What was measured of one camera with one bundle, on pairs with a scan.

    Attributes:
        bundle_digest: Digest of the bundle.
        bundle_name: Its name, for people.
        precision: What the bundle's extractor computed in: fp32 or int8.
        measured: When, seconds since the epoch.
        mpp: Pixel size of the camera, um/px.
        scale: Camera pixel as the scan shows it, over `mpp`.
        fields: Fields that it rests on.
        cells: Pairs of cells that it rests on.
        correction: What is done to each tile; nothing where the camera needs nothing.
        colour_errors: Form of colour map -> error on fields held back, grey levels.
        mtf: The camera's transfer of detail over the scan's, from 0 to 0.5 cycles per pixel of a
            tile.
        noise: Share of the camera's power that is not the scan's tissue, 0 to 1.
        before: The effect of the camera as it is.
        after: The effect with the correction, on fields that it was not fitted to.
        reason: Why the camera cannot be mended, a sentence; "" where it can, or needs nothing.
    """

    bundle_digest: str
    bundle_name: str
    precision: str
    measured: float
    mpp: float
    scale: float
    fields: int
    cells: int
    correction: CameraCorrection
    colour_errors: dict[str, float]
    mtf: tuple[float, ...]
    noise: float
    before: Effect
    after: Effect
    reason: str = ""

    def __post_init__(self) -> None:
        """Check what is read from a file: a bound that is no number bounds nothing."""
        shifts = (*self.before.shifts, *self.after.shifts)
        if not shifts or not all(math.isfinite(s.bound) and s.bound >= 0 for s in shifts):
            raise CalibrationError(
                "A camera passport states no bound; measure it again with edge-mil calibrate "
                "camera."
            )

    @property
    def verified(self) -> bool:
        """Whether sessions run under it: the camera is mended, or needs nothing."""
        return not self.reason

    @property
    def bound(self) -> float:
        """The stated 95 % bound of the shift of a score, for the largest bags."""
        return self.after.largest.bound

    @property
    def noise_gain(self) -> float:
        """By how much the correction of sharpness multiplies noise."""
        return noise_gain(self.correction.gains)
