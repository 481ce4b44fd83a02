"""A calibration: what was measured of one microscope, when, and for which optics."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge_mil.bundle import InputSpec, StainSpec
from edge_mil.calibration.document import (
    ArrayName,
    CalibrationDocument,
    ShadingDocument,
    decode,
    encode,
)
from edge_mil.calibration.optical_path import OpticalPath
from edge_mil.calibration.passport.passport import CameraPassport
from edge_mil.errors import CalibrationError, DamagedCalibrationError, EdgeMilError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import StainProfile, StainTransform
from edge_mil.imaging.quality.gate_settings import GateSettings
from edge_mil.types import Float32Array, check_mpp

MAX_AGE_DAYS = 30.0
"""Lamps age and condensers are moved: older parts must be measured again, or the age allowed."""
MAX_DISAGREEMENT = 0.05
"""Relative difference of two pixel sizes that means another objective (as in `rpc.pixel_size`)."""
DAY_S = 86_400.0
UNNAMED_OPTICS = OpticalPath()

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What was measured of one microscope; parts that were not are None.

    Attributes:
        name: As the user calls it.
        optics: The optics that it holds for.
        measured: Part ("flat-field", "white-balance", "pixel-size", "gates", "stain", "camera") ->
            when, seconds since the epoch.
        mpp: Pixel size on the slide, um/px.
        shading: Flat field, dark frame and white gains.
        background: Colour of empty glass after `shading`, RGB 0 to 255.
        stage_affine: From camera pixel to stage um, row-major 2 x 2.
        gates: Thresholds of the frame gates.
        stain: Colours of this batch of slides, after `shading`.
        noise: Standard deviation of the sensor's noise before `shading`, grey levels; 0: unknown.
        passports: What the camera does to each bundle that it was measured with.
        figures: Numbers behind the parts, as "pixel_size_residual_px", for people to read.
    """

    name: str
    optics: OpticalPath = UNNAMED_OPTICS
    measured: Mapping[str, float] = field(default_factory=dict)
    mpp: float | None = None
    shading: ShadingCorrection | None = None
    background: tuple[float, ...] | None = None
    stage_affine: tuple[float, float, float, float] | None = None
    gates: GateSettings | None = None
    stain: StainProfile | None = None
    noise: float = 0.0
    passports: tuple[CameraPassport, ...] = ()
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
        """Time of its oldest part, seconds since the epoch; 0 when it has none."""
        return min(self.measured.values(), default=0.0)

    @property
    def digest(self) -> str:
        """Digest of its stored bytes: "sha256:" and 64 hex digits."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    def check(
        self,
        now: float,
        *,
        optics: OpticalPath | None = None,
        mpp: float | None = None,
        max_age_days: float = MAX_AGE_DAYS,
    ) -> None:
        """Check that the calibration holds for these optics, today.

        Args:
            now: Seconds since the epoch.
            optics: The caller's; parts that one of the two does not name are not compared.
            mpp: Pixel size that the caller declares, um/px.
            max_age_days: Largest age of a part.

        Raises:
            CalibrationError: It is of other optics, or too old.
        """
        part = self.optics.differing_part(optics) if optics is not None else ""
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
                f"Calibration {self.name} has {mine:.4g} µm/px and you declare {mpp:.4g}, so it is "
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

    def passport_for(self, bundle_digest: str) -> CameraPassport | None:
        """Return the passport that was measured with a bundle, None where there is none."""
        return next((p for p in self.passports if p.bundle_digest == bundle_digest), None)

    def to_bytes(self) -> bytes:
        """Return the stored form: one line of JSON, then the arrays, float32 little-endian."""
        shading = self.shading
        arrays: dict[ArrayName, Float32Array] = {}
        if shading is not None:
            arrays["flat"] = shading.flat
            if shading.dark is not None:
                arrays["dark"] = shading.dark
        document = CalibrationDocument(
            name=self.name,
            optics=self.optics,
            measured=dict(self.measured),
            mpp=self.mpp,
            background=self.background,
            stage_affine=self.stage_affine,
            gates=None if self.gates is None else self.gates.of_calibration(),
            stain=None if self.stain is None else asdict(self.stain),
            noise=self.noise,
            passports=self.passports,
            figures=dict(self.figures),
            shading=None
            if shading is None
            else ShadingDocument(shading.frame_px, shading.white_gains),
            arrays={name: array.shape for name, array in arrays.items()},
        )
        return encode(document, arrays)

    @staticmethod
    def from_bytes(data: bytes) -> Calibration:
        """Read what `to_bytes` wrote.

        Raises:
            CalibrationError: It was written by a newer edge_mil.
            DamagedCalibrationError: It is not the document of a calibration.
        """
        document, arrays = decode(data)
        shading, gates, stain = document.shading, document.gates, document.stain
        try:
            return Calibration(
                name=document.name,
                optics=document.optics,
                measured=document.measured,
                mpp=document.mpp,
                shading=None
                if shading is None
                else ShadingCorrection(
                    arrays["flat"], shading.frame_px, arrays.get("dark"), shading.white_gains
                ),
                background=document.background,
                stage_affine=document.stage_affine,
                gates=None if gates is None else GateSettings.from_json(gates),
                stain=None if stain is None else StainProfile(**stain),
                noise=document.noise,
                passports=document.passports,
                figures=document.figures,
            )
        # KeyError: no flat field; TypeError: a stain of other parts.
        except (EdgeMilError, KeyError, TypeError) as error:
            raise DamagedCalibrationError(f"The calibration is damaged: {error}") from error


def check_name(name: str) -> str:
    """Check a calibration's name, which comes from outside and becomes a file's, and return it.

    Raises:
        CalibrationError: It has characters that a file's name should not have, or is too long.
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
    """Return the transform of tiles to the stain that a bundle was made for.

    Args:
        input_spec: The bundle's; its `stain` names the method and the target.
        calibration: Its `stain` is the source.

    Returns:
        None where the bundle asks for no stain normalisation.

    Raises:
        CalibrationError: The bundle asks for it, and no calibration has the stain of the slide.
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
