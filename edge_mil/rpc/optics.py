"""The pixel size of a session, from what the client said of its optics."""

from __future__ import annotations

import math

from edge_mil.errors import NotThereYetError, PixelSizeError
from edge_mil.types import check_mpp
from edge_mil.v1 import edge_mil_pb2 as pb

MAX_DISAGREEMENT = 0.05
"""Relative difference of two pixel sizes that is a mistake, not rounding (`serving.md`, 2.1.2)."""


def resolve_mpp(optics: pb.Optics) -> tuple[float, str]:
    """Return the camera's pixel size on the slide, um/px, and where it came from.

    The first given of a calibration, the declared `mpp` and the optics (camera pixel x binning /
    (magnification x tube factor)) counts; the others must agree with it.

    Raises:
        PixelSizeError: Nothing gives it, two sources disagree, or it is impossible.
        NotThereYetError: It names a calibration.
    """
    if optics.calibration_id:
        raise NotThereYetError(
            "Calibrations are not there yet: leave calibration_id empty and give the pixel size "
            "(mpp, um per camera pixel)."
        )
    computed = _from_optics(optics)
    if optics.HasField("mpp"):
        declared = check_mpp(optics.mpp, "The declared pixel size")
        if computed is not None and abs(computed - declared) > MAX_DISAGREEMENT * declared:
            raise PixelSizeError(
                f"The declared pixel size is {declared:.4g} um/px and the optics (camera pixel, "
                f"magnification, tube factor, binning) give {computed:.4g}; they may differ by "
                f"{MAX_DISAGREEMENT:.0%}. Correct the one that is wrong.",
                reason="OPTICS_MISMATCH",
                field="optics.mpp",
                mpp=declared,
                optics_mpp=computed,
            )
        return declared, "declared"
    if computed is None:
        raise PixelSizeError(
            "The pixel size is unknown: give mpp (um per camera pixel on the slide), or the "
            "camera's pixel and the objective's magnification. It is never guessed.",
            reason="PIXEL_SIZE_UNKNOWN",
            field="optics.mpp",
        )
    return check_mpp(computed, "The pixel size from the optics"), "optics"


def _from_optics(optics: pb.Optics) -> float | None:
    """Return the pixel size that the four numbers give, None when the main two are absent."""
    pixel, magnification = optics.camera_pixel_um, optics.objective_magnification
    factor = optics.tube_factor or 1.0
    if pixel == 0 and magnification == 0:
        return None
    if not all(math.isfinite(n) and n > 0 for n in (pixel, magnification, factor)):
        raise PixelSizeError(
            f"The optics say a camera pixel of {pixel:g} um, a magnification of {magnification:g} "
            f"and a tube factor of {factor:g}; all must be positive numbers.",
            field="optics",
        )
    return float(pixel * (optics.binning or 1) / (magnification * factor))
