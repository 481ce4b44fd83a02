"""Calibrations: frames of a microscope in; corrections, thresholds and the pixel size out.

`measurement` takes frames and measures one part: the flat field (`flat_field`), the white balance
(`white_balance`), the pixel size from stage moves (`stage_affine`) or from a ruler (`ruler`), the
gates and the stain (`edge_mil.imaging`). `passport` measures the camera itself, with a model and a
scan of the same slide. `parts` says which part is measured through which;
`calibration` is the value with all parts, `optical_path` the optics that it holds for, `document`
its stored form and `catalog` the folder of all calibrations of a device.
"""

from edge_mil.calibration.calibration import MAX_AGE_DAYS, Calibration, stain_transform
from edge_mil.calibration.catalog import CalibrationFolder
from edge_mil.calibration.measurement import Measurement
from edge_mil.calibration.optical_path import OpticalPath
from edge_mil.calibration.parts import PARTS, begin
from edge_mil.calibration.passport.passport import NOT_VERIFIED, VERIFIED, CameraPassport

__all__ = [
    "MAX_AGE_DAYS",
    "NOT_VERIFIED",
    "PARTS",
    "VERIFIED",
    "Calibration",
    "CalibrationFolder",
    "CameraPassport",
    "Measurement",
    "OpticalPath",
    "begin",
    "stain_transform",
]
