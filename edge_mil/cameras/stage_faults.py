"""Faults of a virtual microscope's stage and of its declaration: parsed, and checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_mil.errors import UsageError

FAULTS = (
    "x-flipped, y-flipped, exchanged, mirrored, turned=DEGREES, unit=UM, mpp=FACTOR, late, "
    "backlash=UM, objective=RATIO@FIELD, slide=FILE@FIELD"
)
"""What `--fault` takes."""

MAX_RATIO = 10.0
"""Largest change of magnification: 4x to 40x."""

LARGEST_BACKLASH_UM = 1000.0


@dataclass(frozen=True, slots=True)
class StageFaults:
    """What is wrong with a stage, or with what is declared of it; the default is nothing.

    Attributes:
        flipped: Whether x, and y, are reported with the wrong sign.
        exchanged: Whether x is reported as y, and y as x.
        mirrored: Whether the camera sees the slide as in a mirror, left for right.
        turned_deg: Angle by which the camera is turned beyond what is declared, towards y.
        unit_um: um in the unit in which positions are reported: 1000 for millimetres.
        mpp_factor: Declared pixel size over the true one.
        late: Whether each position is that of the field before.
        backlash_um: Way that is lost where the stage arrives from the other side, on each axis.
        ratio: Magnification over the first one, from field `ratio_from` on.
        ratio_from: Number of that field; 1 is the first.
        other_slide: Slide that lies on the stage from field `slide_from` on; None: the same.
        slide_from: Number of that field; 0: in the middle of the path.

    Raises:
        UsageError: A value is impossible.
    """

    flipped: tuple[bool, bool] = (False, False)
    exchanged: bool = False
    mirrored: bool = False
    turned_deg: float = 0.0
    unit_um: float = 1.0
    mpp_factor: float = 1.0
    late: bool = False
    backlash_um: float = 0.0
    ratio: float = 1.0
    ratio_from: int = 1
    other_slide: Path | None = None
    slide_from: int = 0

    def __post_init__(self) -> None:
        for name, value, lowest, highest in (
            ("turned", self.turned_deg, -180.0, 180.0),
            ("unit", self.unit_um, 1e-6, 1e6),
            ("mpp", self.mpp_factor, 1 / MAX_RATIO, MAX_RATIO),
            ("backlash", self.backlash_um, 0.0, LARGEST_BACKLASH_UM),
            ("objective", self.ratio, 1 / MAX_RATIO, MAX_RATIO),
        ):
            if not (math.isfinite(value) and lowest <= value <= highest):
                raise UsageError(
                    f"--fault {name} takes a number of {lowest:g} to {highest:g}, got {value:g}."
                )

    def reported_um(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Return what the stage reports of a position, in its unit."""
        x = -x_um if self.flipped[0] else x_um
        y = -y_um if self.flipped[1] else y_um
        if self.exchanged:
            x, y = y, x
        return x / self.unit_um, y / self.unit_um


def parse_stage_faults(words: Sequence[str]) -> StageFaults | None:
    """Return the faults that a user named with `--fault`; None for none.

    Raises:
        UsageError: There is no such fault, or its value makes no sense.
    """
    if not words:
        return None
    faults = StageFaults()
    for word in words:
        name, _, value = word.partition("=")
        if name in _FLAGS and not value:
            faults = _FLAGS[name](faults)
        elif name in _NUMBERS:
            faults = _NUMBERS[name](faults, _number(word, value))
        elif name == "objective":
            ratio, _, at = value.partition("@")
            faults = replace(faults, ratio=_number(word, ratio), ratio_from=_field(word, at, 1))
        elif name == "slide" and value:
            path, at = value, ""
            if "@" in value:
                path, _, at = value.rpartition("@")
            faults = replace(faults, other_slide=Path(path), slide_from=_field(word, at, 0))
        else:
            raise UsageError(f"There is no fault {word[:60]!r}; --fault is one of {FAULTS}.")
    return faults


_FLAGS: Mapping[str, Callable[[StageFaults], StageFaults]] = {
    "x-flipped": lambda faults: replace(faults, flipped=(True, faults.flipped[1])),
    "y-flipped": lambda faults: replace(faults, flipped=(faults.flipped[0], True)),
    "exchanged": lambda faults: replace(faults, exchanged=True),
    "mirrored": lambda faults: replace(faults, mirrored=True),
    "late": lambda faults: replace(faults, late=True),
}

_NUMBERS: Mapping[str, Callable[[StageFaults, float], StageFaults]] = {
    "turned": lambda faults, value: replace(faults, turned_deg=value),
    "unit": lambda faults, value: replace(faults, unit_um=value),
    "mpp": lambda faults, value: replace(faults, mpp_factor=value),
    "backlash": lambda faults, value: replace(faults, backlash_um=value),
}


def _number(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--fault {word[:60]!r} needs a number; --fault is one of {FAULTS}."
        ) from None


def _field(word: str, text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--fault {word[:60]!r} names a field by its number, 1 or more, after @.")
    return int(text)
