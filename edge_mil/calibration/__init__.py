"""Calibrations: measured from a few frames, stored by optics, checked before they are used."""

from edge_mil.calibration.calibration import (
    MAX_AGE_DAYS,
    Calibration,
    stain_transform,
)
from edge_mil.calibration.catalog import CalibrationFolder
from edge_mil.calibration.measurement import Measurement
from edge_mil.calibration.optical_path import OpticalPath
from edge_mil.calibration.parts import PARTS, begin

__all__ = [
    "MAX_AGE_DAYS",
    "PARTS",
    "Calibration",
    "CalibrationFolder",
    "Measurement",
    "OpticalPath",
    "begin",
    "stain_transform",
]
