"""Refuse what is wrong in the arguments themselves, before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_mil.errors import BundleError, SourceError, UsageError
from edge_mil.types import check_mpp
from edge_mil_export.errors import CalibrationError, CheckpointError

MAGNIFICATIONS = (4, 5, 10, 20, 40, 60, 63, 80, 100)
"""Of objectives, as people name a resolution."""
UM_TIMES_MAGNIFICATION = 10
"""Scanners show about 0.5 µm per pixel at 20x and 0.25 at 40x."""
UNITS = ("um/px", "µm/px", "um", "µm")


def parse_mpp(text: str) -> float:
    """Return the model's pixel size, um/px.

    A number with its unit (`20um`) is taken as it stands; a bare one that is a magnification is
    asked about.

    Raises:
        UsageError: It is no number, or looks like a magnification.
        PixelSizeError: It is no possible pixel size.
    """
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    try:
        mpp = float(text.removesuffix(unit))
    except ValueError:
        raise UsageError(
            f"--mpp {text} is no number; give the model's µm per pixel (0.5 is common for 20x)."
        ) from None
    if not unit and mpp in MAGNIFICATIONS:
        raise UsageError(
            f"--mpp {text} is {text} µm per pixel; was a magnification of {text}x meant? That is "
            f"about --mpp {UM_TIMES_MAGNIFICATION / mpp:g}; write --mpp {text}um where {text} µm "
            "is right."
        )
    return check_mpp(mpp, "--mpp")


def check_out(out: Path) -> None:
    """Refuse a folder that is in use before the long work, as `write_bundle` would after it.

    Raises:
        BundleError: It holds something else than a bundle.
    """
    if out.is_file() or (
        out.is_dir() and not (out / "bundle.json").is_file() and any(out.iterdir())
    ):
        raise BundleError(f"{out} exists and is no bundle; name another --out, or remove it first.")


def check_files(aggregator: Path, slides: Sequence[Path], calibration: Path | None) -> None:
    """Refuse files that are not there.

    Raises:
        CheckpointError: There is no such checkpoint.
        SourceError: There is no such slide.
        CalibrationError: There is no such folder.
    """
    if not aggregator.exists():
        raise CheckpointError(f"There is no checkpoint {aggregator}; check --aggregator.")
    for slide in slides:
        if not slide.is_file():
            raise SourceError(f"There is no slide {slide}; check --fidelity-slide.")
    if calibration is not None and not calibration.is_dir():
        raise CalibrationError(
            f"--calibration {calibration} is no folder; name one that holds tiles or slides."
        )
