"""Calibrations: measured from a few frames, stored by optics, checked before they are used."""

from edge_mil.calibration.calibration import (
    MAX_AGE_DAYS,
    Calibration,
    OpticalPath,
    stain_transform,
)
from edge_mil.calibration.folder import CalibrationFolder

__all__ = [
    "MAX_AGE_DAYS",
    "Calibration",
    "CalibrationFolder",
    "OpticalPath",
    "stain_transform",
]
