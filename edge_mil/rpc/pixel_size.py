"""Pixel size and stage affine of a session, from what the client says of its optics and stage."""

from __future__ import annotations

import math
import re

from edge_mil.errors import PixelSizeError, UsageError
from edge_mil.types import check_mpp
from edge_mil.v1 import edge_mil_pb2 as pb

MAX_DISAGREEMENT = 0.05
"""Relative difference of two pixel sizes above which one of them is a mistake, not rounded
(`docs/design/serving-and-durability.md`, "The protocol's rules")."""

MAX_AFFINE_DISAGREEMENT = 0.25
"""Relative difference of an affine's scale and the pixel size; Micro-Manager warns at the same."""

_LABELLED = re.compile(r"\s*(\d{1,3}(?:\.\d{1,3})?)\s*[x×]", re.IGNORECASE)
"""Magnification at the begin of an objective's label, as in "20x/0.45"."""

AFFINE_NUMBERS = 6
"""Two rows of a, b and a shift, which is not used."""


def resolve_mpp(optics: pb.Optics, measured: float | None = None) -> tuple[float, str]:
    """Return the camera's pixel size on the slide, um/px, and where it came from.

    The first given of a calibration, the declared `mpp` and the optics (camera pixel x binning /
    (magnification x tube factor)) counts; the others must agree with it. A client that insists on
    its `mpp` gets it.

    Args:
        optics: What the client said.
        measured: Pixel size of the calibration that it names, um/px, if it was measured; a
            declared one has been compared with it (`Calibration.check`).

    Raises:
        PixelSizeError: Nothing gives it, two sources disagree, or it is impossible.
    """
    declared = declared_mpp(optics)
    if optics.insist_mpp and declared is not None and optics.HasField("mpp"):
        return declared, "insisted"
    if measured is not None:
        return measured, "calibration"
    if declared is None:
        raise PixelSizeError(
            "The pixel size is unknown: give mpp (µm per camera pixel on the slide), or the "
            "camera's pixel and the objective's magnification. It is never guessed.",
            reason="PIXEL_SIZE_UNKNOWN",
            field="optics.mpp",
        )
    return declared, "declared" if optics.HasField("mpp") else "optics"


def declared_mpp(optics: pb.Optics) -> float | None:
    """Return the declared pixel size, or else that of the optics; None where neither is given.

    Raises:
        PixelSizeError: The two disagree, or it is impossible.
    """
    computed = _from_optics(optics)
    if not optics.HasField("mpp"):
        return None if computed is None else check_mpp(computed, "The pixel size from the optics")
    declared = check_mpp(optics.mpp, "The declared pixel size")
    wrong = computed is not None and abs(computed - declared) > MAX_DISAGREEMENT * declared
    if wrong and not optics.insist_mpp:
        raise PixelSizeError(
            f"The declared pixel size is {declared:.4g} µm/px and the optics (camera pixel, "
            f"magnification, tube factor, binning) give {computed:.4g}; they may differ by "
            f"{MAX_DISAGREEMENT:.0%}. Correct the one that is wrong, or insist on mpp "
            "(optics.insist_mpp).",
            reason="OPTICS_MISMATCH",
            field="optics.mpp",
            mpp=declared,
            optics_mpp=computed,
        )
    return declared


def resolve_stage_affine(
    stage: pb.StageFrame, mpp: float
) -> tuple[float, float, float, float] | None:
    """Return the affine from camera pixel to stage um that a client declares, row-major 2 x 2.

    Args:
        stage: What the client said.
        mpp: The session's pixel size, um/px, with which the affine must agree.

    Returns:
        The affine; None where the axes of the camera are those of the stage.

    Raises:
        PixelSizeError: Its scale and the pixel size are more than 25 % apart.
        UsageError: It has not six finite numbers, or comes with flips or a rotation.
    """
    turned = stage.x_flipped or stage.y_flipped or stage.rotation_deg
    numbers = tuple(stage.pixel_size_affine)
    if not numbers:
        return _turned(stage, mpp) if turned else None
    if len(numbers) != AFFINE_NUMBERS or not all(map(math.isfinite, numbers)):
        raise UsageError(
            "The pixel-size affine is six finite numbers, row by row as Micro-Manager has them "
            f"(a, b, shift, c, d, shift), got {len(numbers)}: {list(numbers)[:AFFINE_NUMBERS]}.",
            field="stage.pixel_size_affine",
        )
    if turned:
        raise UsageError(
            "The stage has a pixel-size affine and a rotation or flips besides; send one: the "
            "affine holds them already.",
            field="stage.pixel_size_affine",
        )
    a, b, _, c, d, _ = numbers
    check_affine((a, b, c, d), mpp)
    return a, b, c, d


def check_affine(affine: tuple[float, float, float, float], mpp: float) -> None:
    """Compare an affine's scale with the pixel size, in every direction.

    Raises:
        PixelSizeError: They are more than 25 % apart: an affine that nobody calibrated has scale 1
            (micro-manager issue 2411).
    """
    a, b, c, d = affine
    # The singular values of a 2 x 2 matrix: its largest and its smallest scale.
    whole, part = math.hypot(a + d, c - b), math.hypot(a - d, b + c)
    for scale in ((whole + part) / 2, abs(whole - part) / 2):
        if abs(scale - mpp) > MAX_AFFINE_DISAGREEMENT * mpp:
            raise PixelSizeError(
                f"The stage affine has a scale of {scale:.4g} µm per pixel and the pixel size is "
                f"{mpp:.4g}; they may differ by {MAX_AFFINE_DISAGREEMENT:.0%}. Calibrate the "
                "affine (edge-mil calibrate pixel-size), or correct the pixel size.",
                reason="AFFINE_MISMATCH",
                field="stage.pixel_size_affine",
                mpp=mpp,
                affine_scale=scale,
            )


def _turned(stage: pb.StageFrame, mpp: float) -> tuple[float, float, float, float]:
    """Return the affine of a rotation after flips, times `mpp`."""
    if not math.isfinite(stage.rotation_deg):
        raise UsageError(
            f"The camera's rotation is {stage.rotation_deg:g}; send degrees.",
            field="stage.rotation_deg",
        )
    angle = math.radians(stage.rotation_deg)
    cos, sin = mpp * math.cos(angle), mpp * math.sin(angle)
    x, y = -1 if stage.x_flipped else 1, -1 if stage.y_flipped else 1
    return cos * x, -sin * y, sin * x, cos * y


def _from_optics(optics: pb.Optics) -> float | None:
    """Return camera pixel x binning / (magnification x tube factor); None without the main two."""
    pixel, magnification = optics.camera_pixel_um, optics.objective_magnification
    factor = optics.tube_factor or 1.0
    labelled = _LABELLED.match(optics.objective_label)
    if labelled is not None and magnification > 0 and not optics.insist_mpp:
        named = float(labelled[1])
        if abs(named - magnification) > MAX_DISAGREEMENT * magnification:
            raise PixelSizeError(
                f"The objective is called {optics.objective_label[:40]!r} and its magnification is "
                f"given as {magnification:g}; correct the one that is wrong, or insist on mpp "
                "(optics.insist_mpp).",
                reason="OPTICS_MISMATCH",
                field="optics.objective_magnification",
            )
    if pixel == 0 and magnification == 0:
        return None
    if not all(math.isfinite(n) and n > 0 for n in (pixel, magnification, factor)):
        raise PixelSizeError(
            f"The optics say a camera pixel of {pixel:g} µm, a magnification of {magnification:g} "
            f"and a tube factor of {factor:g}; all must be positive numbers.",
            field="optics",
        )
    return float(pixel * (optics.binning or 1) / (magnification * factor))
