"""Camera passports: fields and a scan of one slide in; a correction and what it is worth out.

| step | file |
| --- | --- |
| find each field on the scan, without positions | `matching.py` |
| cut field and scan into the same tiles, or refuse in words | `pairs.py` |
| fit the colour map, its form chosen on fields held back | `colour_fit.py` |
| measure the transfer of detail, and the gain that restores it | `sharpness.py` |
| measure what the camera does to the model, before and after | `effect.py` |
| put it together | `measurement.py` |
| the value that a calibration stores | `passport.py` |
| show it | `page.py` |

`edge_mil/imaging/correction/camera.py` applies the correction to the tiles of a session.
"""

from edge_mil.calibration.passport.measurement import (
    MAX_SHIFT,
    BundleIdentity,
    measure_passport,
)
from edge_mil.calibration.passport.page import PassportPage, write_page
from edge_mil.calibration.passport.pairs import Pairs, pair_fields
from edge_mil.calibration.passport.passport import NOT_VERIFIED, VERIFIED, CameraPassport

__all__ = [
    "MAX_SHIFT",
    "NOT_VERIFIED",
    "VERIFIED",
    "BundleIdentity",
    "CameraPassport",
    "Pairs",
    "PassportPage",
    "measure_passport",
    "pair_fields",
    "write_page",
]
