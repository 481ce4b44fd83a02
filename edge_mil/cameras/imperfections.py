"""Imperfections of a virtual microscope: options, checked once, and what chance adds to a visit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_mil.errors import UsageError

MAX_VIGNETTE = 0.9
"""Darker corners would show nothing: 25 grey levels are left of 255."""

BLUR_RADIUS_PX = (4.0, 10.0)
"""Radius of the disc of confusion of a defocused visit: from clearly soft to unusable."""

_JITTER, _FOCUS, _NOISE = range(3)
"""Each kind of random draw has its own stream, so that one option never changes another's draws."""

_WORD = 0xFFFFFFFF
"""Seeds of NumPy's generators are unsigned words; pixels left of the slide are negative."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One exposure of the virtual microscope.

    Attributes:
        x: Column of the field's top left pixel in level 0, before any rotation.
        y: Row of that pixel.
        visit: Number of earlier visits of the place.
        frame: Number of the exposure within the visit; counted only where exposures differ.
        number: Number of the visit among all, from 1; 0 where the stage's way does not matter.
        before: Top left pixel of the visit before.
        arrives: Direction in which the stage arrived on each axis: -1, 0 or 1.
    """

    x: int
    y: int
    visit: int = 0
    frame: int = 0
    number: int = 0
    before: tuple[int, int] = (0, 0)
    arrives: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Imperfections:
    """Imperfections of a virtual microscope; the default is a perfect one.

    Random draws depend on the seed, the place and the visit alone, not on the order of visits.

    Attributes:
        jitter_um: Standard deviation of the error of the reported stage position, um on each axis.
        defocus: Share of the visits that are out of focus, 0 to 1.
        vignette: Share of the centre's light that the corners lack, 0 to 0.9.
        noise: Standard deviation of the sensor's noise, grey levels.
        rotation_deg: Angle from the stage's x axis to the camera's, towards y, degrees.
        stage: Whether the stage reports its position.
        seed: Of all random draws.

    Raises:
        UsageError: A value is impossible; the message names the option.
    """

    jitter_um: float = 0.0
    defocus: float = 0.0
    vignette: float = 0.0
    noise: float = 0.0
    rotation_deg: float = 0.0
    stage: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, limit, what in (
            ("--jitter", self.jitter_um, math.inf, "µm, 0 or more"),
            ("--defocus", self.defocus, 1.0, "a share of the fields, 0 to 1"),
            ("--vignette", self.vignette, MAX_VIGNETTE, f"a share, 0 to {MAX_VIGNETTE:g}"),
            ("--noise", self.noise, math.inf, "grey levels, 0 or more"),
        ):
            if not (0 <= value <= limit and math.isfinite(value)):
                raise UsageError(f"{option} is {what}, got {value:g}.")
        if not math.isfinite(self.rotation_deg):
            raise UsageError(f"--rotation is in degrees, got {self.rotation_deg:g}.")

    @property
    def reaches_beyond(self) -> bool:
        """Whether fields must reach beyond the slide's edge to show all of it."""
        return bool(self.jitter_um or self.rotation_deg)

    def stage_error_um(self, shot: Shot) -> tuple[float, float]:
        """Return the error of the reported position of a visit, um (x, y)."""
        if not self.jitter_um:
            return 0.0, 0.0
        x, y = self._chance(_JITTER, shot.x, shot.y, shot.visit).normal(0.0, self.jitter_um, 2)
        return float(x), float(y)

    def blur_radius_px(self, shot: Shot) -> float:
        """Return the radius of the disc of confusion of a visit, pixels; 0 for a sharp one."""
        if not self.defocus:
            return 0.0
        chance = self._chance(_FOCUS, shot.x, shot.y, shot.visit)
        return float(chance.uniform(*BLUR_RADIUS_PX)) if chance.random() < self.defocus else 0.0

    def sensor_chance(self, shot: Shot) -> np.random.Generator:
        """Return the generator of one exposure's sensor noise."""
        return self._chance(_NOISE, shot.x, shot.y, shot.visit, shot.frame)

    def _chance(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([number & _WORD for number in (self.seed, *key)])
