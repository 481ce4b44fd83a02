"""The thresholds of the gates: fixed before the first field, stored with a calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType

from edge_mil.errors import CalibrationError

REFUSES_NOTHING: Mapping[str, float] = MappingProxyType(
    {
        "min_brightest_share": 0.0,
        "max_noise": 1e6,
        "max_blocking": 1e6,
        "max_dark_glass": 1.0,
        "cell_doubt": 1e6,
    }
)
"""Threshold that release 0.1.0 did not have -> value at which it refuses nothing."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Thresholds of the gates; the defaults hold for any bright-field camera.

    Measured by `tests/benchmarks/gates/`, with results in `docs/imaging/gates.md`.

    Attributes:
        max_clipped_share: Share of pixels in plateaus of one or two clipped channels. Good real
            fields hold 0.05 at most (10 of 336 of `oral_he`, burnt out in parts, more than 0.08),
            those whose gain was raised by 1.3 mostly 0.2 to 0.6.
        max_black_share: Share of pixels in plateaus of black.
        min_focus: Log odds that the field is in focus (`quality/focus.py`).
        min_stillness: Log odds that the field did not move (`quality/motion.py`).
        cell_doubt: Log odds by which a cell must be more blurred than `min_focus` to be left out of
            a field in focus, and sharper to be used of one that is not.
        moving_px: Displacement since the frame before from which `doubt` applies, pixels.
        doubt: Log odds that are added to `min_stillness` after such a displacement.
        min_contrast: Standard deviation of grey levels in the richer tissue blocks, without the
            noise and without the slope of the light, below which a field shows no tissue. Good real
            fields have 8.6 and more, even grey of any level less than 1.
        min_brightest_share: Brightest level of a field, as a share of the background's, below which
            it is under-exposed. Good real fields have 0.6 and more.
        max_noise: White noise in grey, standard deviation, grey levels, above which detail is
            hidden: 8.5 is noise of 13 levels in each channel.
        max_blocking: Strength of JPEG's blocks (`quality/blocking.py`) above which the compression
            hides detail.
        max_dark_glass: Share of a field that looks like empty glass and would count as tissue
            (`quality/light.py`). Clean fields have 0.003 at most.

    Raises:
        CalibrationError: A number is not finite, or a share is outside of 0 to 1.
    """

    max_clipped_share: float = 0.08
    max_black_share: float = 0.5
    min_focus: float = -1.0
    min_stillness: float = -2.0
    moving_px: float = 4.0
    doubt: float = 1.0
    min_contrast: float = 4.0
    cell_doubt: float = 2.0
    min_brightest_share: float = 0.4
    max_noise: float = 8.5
    max_blocking: float = 1.2
    max_dark_glass: float = 0.05

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            share = name.endswith(("_share", "_glass"))
            if not math.isfinite(value) or (share and not 0.0 <= value <= 1.0):
                raise CalibrationError(
                    f"The gates' {name} is {value}; expected "
                    f"{'a share from 0 to 1' if share else 'a finite number'}: "
                    "calibrate the gates again."
                )

    @classmethod
    def from_session(cls, document: Mapping[str, object]) -> GateSettings:
        """Read the thresholds of a stored session, which goes on as it began.

        A threshold that its release did not have refuses nothing.

        Raises:
            CalibrationError: As `from_json`.
        """
        return cls.from_json({**REFUSES_NOTHING, **document})

    def as_json(self) -> dict[str, float]:
        return dict(asdict(self))

    def of_calibration(self) -> dict[str, float]:
        """Return what a calibration stores: release 0.1.0's thresholds, and others that differ.

        So a calibration of that release keeps its bytes, and with them its digest.
        """
        usual = GateSettings()
        return {
            name: value
            for name, value in self.as_json().items()
            if name not in REFUSES_NOTHING or value != getattr(usual, name)
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> GateSettings:
        """Read thresholds as `as_json` wrote them.

        Raises:
            CalibrationError: A name is unknown, or a value is no number.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(document) - known):
            raise CalibrationError(
                f"The gates have no threshold {unknown[0]!r}; they have {', '.join(sorted(known))}."
            )
        numbers: dict[str, float] = {}
        for name, value in document.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise CalibrationError(f"The gates' {name} is {value!r}; expected a number.")
            numbers[name] = float(value)
        return cls(**numbers)
