"""What was measured of one microscope: a value with dates, a digest and the optics it is for."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edge_mil.bundle import InputSpec, StainSpec
from edge_mil.errors import CalibrationError, EdgeMilError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import StainProfile, StainTransform
from edge_mil.imaging.quality.gate_settings import GateSettings
from edge_mil.types import Float32Array, check_mpp

MAX_AGE_DAYS = 30.0
"""Lamps age and condensers are moved: older parts are measured again, or the age is allowed."""
MAX_DISAGREEMENT = 0.05
"""Relative difference of two pixel sizes that is another objective (as `rpc.optics` has it)."""
DAY_S = 86_400.0

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHADING = ("flat", "dark")


@dataclass(frozen=True, slots=True)
class OpticalPath:
    """What stands between slide and sensor, in the user's own words; "" where nobody said.

    Attributes:
        camera: As "IMX250 bin1".
        objective: As "20x/0.45".
        tube_lens: Tube lens or adaptor, as "0.5x C-mount".
    """

    camera: str = ""
    objective: str = ""
    tube_lens: str = ""

    def unlike(self, other: OpticalPath) -> str:
        """Return the name of a part that both name differently, "" where they agree."""
        for part, mine in asdict(self).items():
            theirs = getattr(other, part)
            if mine and theirs and mine.strip().lower() != theirs.strip().lower():
                return part
        return ""

    def filled_from(self, other: OpticalPath) -> OpticalPath:
        """Return this path with what it does not say taken from another."""
        return OpticalPath(**{k: v or getattr(other, k) for k, v in asdict(self).items()})

    def __str__(self) -> str:
        return ", ".join(filter(None, asdict(self).values())) or "unnamed optics"


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What was measured; parts that were not are None.

    Attributes:
        name: As the user calls it.
        optics: What it holds for.
        measured: Part ("flat-field", "white-balance", "pixel-size", "gates", "stain") -> when,
            seconds since the epoch.
        mpp: Pixel size on the slide, um/px.
        shading: Flat field, dark frame and white gains.
        background: Colour of empty glass after `shading`, RGB 0 to 255.
        stage_affine: From camera pixel to stage um, row-major 2 x 2.
        gates: Thresholds of the frame gates.
        stain: Colours of this batch of slides, after `shading`.
        noise: Standard deviation of the sensor's noise before `shading`, grey levels; 0: unknown.
        figures: Numbers behind the parts, as "pixel_size_residual_px", for people.
    """

    name: str
    optics: OpticalPath = OpticalPath()
    measured: Mapping[str, float] = field(default_factory=dict)
    mpp: float | None = None
    shading: ShadingCorrection | None = None
    background: tuple[float, ...] | None = None
    stage_affine: tuple[float, float, float, float] | None = None
    gates: GateSettings | None = None
    stain: StainProfile | None = None
    noise: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the name, which becomes a file's, and the numbers."""
        check_name(self.name)
        if self.mpp is not None:
            check_mpp(self.mpp, f"The pixel size of calibration {self.name}")
        affine = self.stage_affine
        if affine is not None and (
            not all(map(math.isfinite, affine))
            or abs(affine[0] * affine[3] - affine[1] * affine[2]) == 0
        ):
            raise CalibrationError(
                f"Calibration {self.name} maps the camera to the stage by {affine}, which has no "
                "area; measure it again with edge-mil calibrate pixel-size."
            )

    @property
    def created(self) -> float:
        """When its oldest part was measured, seconds since the epoch; 0 when it has none."""
        return min(self.measured.values(), default=0.0)

    @property
    def digest(self) -> str:
        """Digest of all that it says: "sha256:" and 64 hex digits."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    def check(
        self,
        now: float,
        *,
        optics: OpticalPath | None = None,
        mpp: float | None = None,
        max_age_days: float = MAX_AGE_DAYS,
    ) -> None:
        """Refuse to be used where it does not hold.

        Args:
            now: Seconds since the epoch.
            optics: What the caller has; parts that one of the two does not name are not compared.
            mpp: Pixel size that the caller declares, um/px.
            max_age_days: Oldest part that is still believed.

        Raises:
            CalibrationError: It is of other optics, or too old; says what to do.
        """
        part = self.optics.unlike(optics) if optics is not None else ""
        if optics is not None and part:
            raise CalibrationError(
                f"Calibration {self.name} was measured with {part.replace('_', ' ')} "
                f"{getattr(self.optics, part)!r} and you use {getattr(optics, part)!r}; name the "
                "calibration of these optics, or measure one with edge-mil calibrate.",
                reason="CALIBRATION_FOREIGN",
            )
        mine = self.mpp
        if mine is not None and mpp is not None and abs(mine - mpp) > MAX_DISAGREEMENT * mine:
            raise CalibrationError(
                f"Calibration {self.name} has {mine:.4g} um/px and you declare {mpp:.4g}, so it is "
                "of another objective or binning; name the calibration of these optics, or "
                "correct the pixel size.",
                reason="CALIBRATION_FOREIGN",
                calibration_mpp=mine,
                mpp=mpp,
            )
        age = (now - self.created) / DAY_S
        if age > max_age_days:
            oldest = min(self.measured, key=lambda what: self.measured[what])
            raise CalibrationError(
                f"Calibration {self.name} is stale: its {oldest} was measured {age:.0f} days ago "
                f"and {max_age_days:g} are allowed; measure it again with edge-mil calibrate "
                f"{oldest}, or allow more days.",
                reason="CALIBRATION_STALE",
                age_days=f"{age:.1f}",
            )

    def with_part(self, part: str, when: float, **values: Any) -> Calibration:
        """Return this calibration after one more measurement."""
        figures = {**self.figures, **values.pop("figures", {})}
        return replace(self, measured={**self.measured, part: when}, figures=figures, **values)

    def to_bytes(self) -> bytes:
        """Return all of it: one line of JSON, then the arrays, float32 little-endian."""
        arrays = {} if self.shading is None else _arrays(self.shading)
        document = {
            "format": FORMAT,
            "name": self.name,
            "optics": asdict(self.optics),
            "measured": dict(self.measured),
            "mpp": self.mpp,
            "background": self.background,
            "stage_affine": self.stage_affine,
            "gates": None if self.gates is None else self.gates.as_json(),
            "stain": None if self.stain is None else asdict(self.stain),
            "noise": self.noise,
            "figures": dict(self.figures),
            "shading": None
            if self.shading is None
            else {"frame_px": self.shading.frame_px, "white_gains": self.shading.white_gains},
            "arrays": {name: array.shape for name, array in arrays.items()},
        }
        head = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        parts = (array.astype("<f4").tobytes() for array in arrays.values())
        return b"\n".join([head, b"".join(parts)])

    @staticmethod
    def from_bytes(data: bytes) -> Calibration:
        """Read what `to_bytes` wrote.

        Raises:
            CalibrationError: It is not that, or was written by a newer edge_mil.
        """
        head, _, body = data.partition(b"\n")
        try:
            raw = json.loads(head)
            written = raw.pop("format")
            if written != FORMAT:
                raise CalibrationError(
                    f"The calibration has format {written} and this edge_mil reads {FORMAT}; "
                    "update edge_mil on this device."
                )
            return _parse(raw, body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(
                f"The calibration cannot be read ({error}); measure it again with edge-mil "
                "calibrate."
            ) from error


def check_name(name: str) -> str:
    """Return a calibration's name when it can be one.

    Raises:
        CalibrationError: It cannot; names come from outside and become a file's.
    """
    if not _NAME.fullmatch(name):
        raise CalibrationError(
            f"A calibration cannot be called {name[:70]!r}; use 1 to 64 letters, digits, dots, "
            "dashes and underscores, as in 20x-imx250."
        )
    return name


def stain_transform(
    input_spec: InputSpec | None, calibration: Calibration | None
) -> StainTransform | None:
    """Return what brings tiles to the stain that a bundle was made for.

    Args:
        input_spec: The bundle's; its `stain` names the method and the target.
        calibration: Its `stain` is the source.

    Returns:
        None where the bundle asks for no stain normalisation.

    Raises:
        CalibrationError: The bundle asks for it and no calibration says what the slide is like.
    """
    spec: StainSpec | None = None if input_spec is None else input_spec.stain
    if spec is None:
        return None
    if calibration is None or calibration.stain is None:
        what = "no calibration is named" if calibration is None else f"{calibration.name} has none"
        raise CalibrationError(
            f"The bundle wants {spec.method} stain normalisation, which needs the colours of this "
            f"batch of slides, and {what}; scan a few fields and run edge-mil calibrate stain.",
            reason="CALIBRATION_LACKS_STAIN",
        )
    target = StainProfile(spec.background, spec.mean, spec.deviation, spec.stains, spec.reach)
    return StainTransform(spec.method, calibration.stain, target)


def _arrays(shading: ShadingCorrection) -> dict[str, Float32Array]:
    return {name: a for name in _SHADING if (a := getattr(shading, name)) is not None}


def _parse(raw: dict[str, Any], body: bytes) -> Calibration:
    arrays, at = {}, 0
    for name in _SHADING:
        if name in raw["arrays"]:
            shape = tuple(int(n) for n in raw["arrays"][name])
            size = 4 * math.prod(shape)
            arrays[name] = np.frombuffer(body[at : at + size], "<f4").reshape(shape).copy()
            at += size
    try:
        shading = raw["shading"] and ShadingCorrection(
            arrays["flat"],
            tuple(raw["shading"]["frame_px"]),
            arrays.get("dark"),
            tuple(raw["shading"]["white_gains"]),
        )
        return Calibration(
            name=raw["name"],
            optics=OpticalPath(**raw["optics"]),
            measured=raw["measured"],
            mpp=raw["mpp"],
            shading=shading,
            background=_tuple(raw["background"]),
            stage_affine=_tuple(raw["stage_affine"]),
            gates=None if raw["gates"] is None else GateSettings.from_json(raw["gates"]),
            stain=raw["stain"]
            and StainProfile(**{name: tuple(numbers) for name, numbers in raw["stain"].items()}),
            noise=float(raw.get("noise", 0.0)),
            figures=raw["figures"],
        )
    except EdgeMilError as error:
        raise CalibrationError(f"The calibration is damaged: {error}") from error


def _tuple(numbers: list[float] | None) -> Any:
    return None if numbers is None else tuple(numbers)
