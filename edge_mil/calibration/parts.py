"""The parts of a calibration, and which of them are measured through which."""

from __future__ import annotations

from dataclasses import replace

from edge_mil.calibration.calibration import MAX_DISAGREEMENT, Calibration
from edge_mil.calibration.optical_path import OpticalPath
from edge_mil.calibration.passport.passport import CameraPassport
from edge_mil.errors import CalibrationError

FLAT, DARK, WHITE = "flat-field", "dark-frame", "white-balance"
PIXEL_SIZE, GATES, STAIN, CAMERA = "pixel-size", "gates", "stain", "camera"
PARTS = (FLAT, DARK, WHITE, PIXEL_SIZE, GATES, STAIN)

DEPENDENTS = {
    DARK: (FLAT, WHITE, GATES, STAIN, CAMERA),
    FLAT: (WHITE, GATES, STAIN, CAMERA),
    WHITE: (STAIN, CAMERA),
    PIXEL_SIZE: (CAMERA,),
}
"""Part -> parts that are measured through it, and so are void when it is measured again."""


def without(calibration: Calibration, parts: tuple[str, ...]) -> Calibration:
    """Return a calibration without some parts and their values."""
    return replace(
        calibration,
        measured={part: when for part, when in calibration.measured.items() if part not in parts},
        noise=0.0 if FLAT in parts else calibration.noise,
        background=None if WHITE in parts else calibration.background,
        gates=None if GATES in parts else calibration.gates,
        stain=None if STAIN in parts else calibration.stain,
        passports=() if CAMERA in parts else calibration.passports,
    )


def with_passport(calibration: Calibration, passport: CameraPassport) -> Calibration:
    """Return a calibration with a passport; an earlier one of the same bundle is replaced."""
    others = [p for p in calibration.passports if p.bundle_digest != passport.bundle_digest]
    passports = (*others, passport)
    oldest = min(p.measured for p in passports)
    return replace(calibration.with_part(CAMERA, oldest), passports=passports)


def begin(
    known: Calibration | None, name: str, optics: OpticalPath, mpp: float | None
) -> Calibration:
    """Return the calibration that a measurement adds to.

    Args:
        known: The stored calibration of that name; None where there is none.
        name: Its name.
        optics: The optics as the caller names them; parts without a name stay as they were.
        mpp: Declared pixel size, um/px.

    Raises:
        CalibrationError: The stored one is of other optics.
    """
    if known is None:
        return Calibration(name, optics, mpp=mpp)
    part = known.optics.differing_part(optics)
    if part or (
        mpp is not None and known.mpp is not None and abs(mpp - known.mpp) > MAX_DISAGREEMENT * mpp
    ):
        what = part.replace("_", " ") or "pixel size"
        raise CalibrationError(
            f"Calibration {name} is of another {what} ({known.optics}, "
            f"{'unknown' if known.mpp is None else f'{known.mpp:.4g}'} µm/px); give this one "
            "another name.",
            reason="CALIBRATION_FOREIGN",
        )
    return replace(known, optics=known.optics.filled_from(optics), mpp=known.mpp or mpp)
