"""Measure one part of a calibration from frames: the same for the command and for the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edge_mil.calibration.calibration import MAX_DISAGREEMENT, Calibration
from edge_mil.calibration.flat_field import background_mask, estimate_flat_field, shrink
from edge_mil.calibration.parts import (
    DARK,
    DEPENDENTS,
    FLAT,
    GATES,
    PARTS,
    PIXEL_SIZE,
    STAIN,
    WHITE,
    without,
)
from edge_mil.calibration.ruler import measure_ruler
from edge_mil.calibration.stage_affine import MOST_FIELDS, measure_stage
from edge_mil.calibration.white_balance import DARKEST, measure_white_balance
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.noise import glass_noise
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import fit_profile
from edge_mil.imaging.quality.gate_fit import Histogram, fit_gate_settings
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Float32Array, Frame, UInt8Array, check_mpp

MAX_MPP_ERROR = 0.25
"""Relative difference of a measured pixel size from the declared one that means wrong positions, as
in millimetres; the same bound as of a declared affine (`rpc.pixel_size`)."""
DEFECTS = {"focus": "blurred", "stillness": "moved"}
"""Number behind a gate -> what a field below its threshold is called."""
MOST_FRAMES = 64
MOST_BYTES = 512 << 20
"""Of whole frames, which the gates are fitted to."""
SAMPLE_PX = 20_000
"""Tissue pixels of one frame that a stain is fitted on."""
NOMINAL = TissueTest()
"""The tissue test where no bundle names another."""


@dataclass(slots=True, eq=False)
class Measurement:
    """Measures one part from frames; keeps of each frame only what that part needs.

    Attributes:
        part: One of PARTS.
        calibration: What is known so far.
        distance_um: Distance of the lines of a ruler, um; 0: the frames have stage positions.
        tissue: The model's tissue test, for gates.
        histograms: Histograms of the numbers behind the gates, after `finish`.
    """

    part: str
    calibration: Calibration
    distance_um: float = 0.0
    tissue: TissueTest = NOMINAL
    histograms: tuple[Histogram, ...] = ()
    _frame_px: tuple[int, int] | None = None
    _small: list[Float32Array] = field(default_factory=list)
    _noise: list[float] = field(default_factory=list)
    _clipped: list[float] = field(default_factory=list)
    _full: list[UInt8Array] = field(default_factory=list)
    _pyramids: list[RegistrationPyramid] = field(default_factory=list)
    _positions: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the part and the distance."""
        if self.part not in PARTS:
            raise CalibrationError(f"There is no part {self.part!r}; use {', '.join(PARTS)}.")
        if not (0 <= self.distance_um < float("inf")):
            raise CalibrationError(
                f"The distance of the ruler's lines is {self.distance_um} µm; it must be positive."
            )

    def add(self, frame: Frame) -> None:
        """Take a frame.

        Raises:
            CalibrationError: It is of another size than the ones before, has no position where
                one is needed, or there are too many.
        """
        size = frame.height_px, frame.width_px
        if self._frame_px is None:
            self._frame_px = size
        if size != self._frame_px:
            raise CalibrationError(
                f"{frame.name or 'A frame'} is {size[1]} x {size[0]} px and those before it "
                f"{self._frame_px[1]} x {self._frame_px[0]}; use frames of one camera and binning."
            )
        kept_bytes = sum(pixels.nbytes for pixels in self._full)
        count = max(len(self._small), len(self._full), len(self._pyramids))
        if count >= MOST_FRAMES or kept_bytes >= MOST_BYTES:
            raise CalibrationError(
                f"There are more than {count} frames, which is enough of this size; choose fewer."
            )
        if self.part in (FLAT, DARK, WHITE):
            self._small.append(shrink(frame.pixels))
            if self.part == FLAT:
                noise = glass_noise(frame.pixels, background_mask(self._small[-1]))
                self._noise += [] if noise is None else [noise]
            self._clipped.append(float((frame.pixels == 255).any(axis=2).mean()))
        elif self.part == PIXEL_SIZE:
            self._add_pyramid(frame)
        elif self.part == STAIN:
            self._full.append(self._sample(self._corrected(frame.pixels)))
        else:
            self._full.append(self._corrected(frame.pixels))

    def finish(self, now: float) -> Calibration:
        """Return the calibration with this part measured anew, at `now` seconds since the epoch.

        Parts that were measured through the old one are taken out (`parts.DEPENDENTS`).

        Raises:
            CalibrationError: The frames do not allow it; says which frames would.
        """
        if self._frame_px is None:
            raise CalibrationError("There are no frames to measure; send at least one.")
        measure: dict[str, Callable[[float], Calibration]] = {
            FLAT: self._flat_field,
            DARK: self._dark_frame,
            WHITE: self._white_balance,
            PIXEL_SIZE: self._ruler if self.distance_um else self._stage,
            GATES: self._gates,
            STAIN: self._stain,
        }
        return measure[self.part](now)

    def _flat_field(self, now: float) -> Calibration:
        dark = self._shading().dark
        found = estimate_flat_field(self._small, dark)
        noise = float(np.median(self._noise)) if self._noise else 0.0
        base = without(self.calibration, DEPENDENTS[FLAT])
        assert self._frame_px is not None
        figures = {
            "flat_field_frames": float(len(self._small)),
            "flat_field_depth": 1 - float(found.flat.min()),
            "flat_field_variation_before": found.variation_before,
            "flat_field_variation_after": found.variation_after,
            "flat_field_background_share": found.empty_share,
            "noise_levels": noise,
        }
        shading = ShadingCorrection(found.flat, self._frame_px, dark)
        return base.with_part(FLAT, now, shading=shading, noise=noise, figures=figures)

    def _dark_frame(self, now: float) -> Calibration:
        dark = np.mean(self._small, axis=0).astype(np.float32)
        level = float(np.median(dark))
        if level >= DARKEST:
            raise CalibrationError(
                f"The dark frames have a level of {level:.0f} of 255, so light still reaches the "
                "camera; switch the lamp off, or close the shutter, and repeat."
            )
        base = without(self.calibration, DEPENDENTS[DARK])
        assert self._frame_px is not None
        shading = ShadingCorrection(np.ones_like(dark), self._frame_px, dark)
        return base.with_part(DARK, now, shading=shading, figures={"dark_level": level})

    def _white_balance(self, now: float) -> Calibration:
        shading = self._shading()
        found = measure_white_balance(self._small, self._clipped, shading)
        base = without(self.calibration, DEPENDENTS[WHITE])
        figures = {f"white_gain_{name}": x for name, x in zip("rgb", found.gains, strict=True)}
        return base.with_part(
            WHITE,
            now,
            shading=shading.with_white_gains(found.gains),
            background=(found.level,) * 3,
            figures=figures,
        )

    def _stage(self, now: float) -> Calibration:
        declared = self.calibration.mpp
        found = measure_stage(self._pyramids, self._positions, declared)
        self._check_declared(found.mpp)
        figures = {
            "pixel_size_residual_px": found.residual_px,
            "pixel_size_moves": float(found.moves),
            "pixel_size_moves_left_out": float(found.left_out),
            "camera_rotation_deg": found.rotation_deg,
            "camera_mirrored": float(found.mirrored),
        }
        return without(self.calibration, DEPENDENTS[PIXEL_SIZE]).with_part(
            PIXEL_SIZE, now, mpp=found.mpp, stage_affine=found.affine, figures=figures
        )

    def _ruler(self, now: float) -> Calibration:
        found = [measure_ruler(pyramid.grey) for pyramid in self._pyramids]
        factor = self._pyramids[0].factor
        periods = np.array([ruler.period_px for ruler in found]) * factor
        period, spread = float(np.median(periods)), float(np.ptp(periods))
        if spread > MAX_DISAGREEMENT * period:
            raise CalibrationError(
                f"The images show lines {periods.min():.1f} to {periods.max():.1f} px apart; use "
                "images of the same ruler at the same magnification."
            )
        mpp = check_mpp(self.distance_um / period, "The pixel size by the ruler")
        self._check_declared(mpp)
        figures = {
            "ruler_period_px": period,
            "pixel_size_residual_px": spread / 2,
            "ruler_angle_deg": found[0].angle_deg,
        }
        base = without(self.calibration, DEPENDENTS[PIXEL_SIZE])
        return base.with_part(PIXEL_SIZE, now, mpp=mpp, figures=figures)

    def _gates(self, now: float) -> Calibration:
        background = self.calibration.background or self.tissue.background
        fitted = fit_gate_settings(self._full, replace(self.tissue, background=background))
        for found in fitted.histograms:
            below = sum(
                n
                for n, end in zip(found.counts, found.edges[1:], strict=True)
                if end <= found.threshold
            )
            if found.name in DEFECTS and below > fitted.fields / 2:
                raise CalibrationError(
                    f"{below} of {fitted.fields} fields look {DEFECTS[found.name]}, so the scan "
                    "does not show what good fields are like; focus, let the stage settle, and "
                    "repeat."
                )
        self.histograms = fitted.histograms
        figures = {"gate_fields": float(fitted.fields)}
        return self.calibration.with_part(GATES, now, gates=fitted.settings, figures=figures)

    def _stain(self, now: float) -> Calibration:
        pixels = np.concatenate(self._full)
        profile = fit_profile(pixels, self.calibration.background or NOMINAL.background)
        figures = {"stain_pixels": float(len(pixels)), "stains": len(profile.stains) / 3}
        return self.calibration.with_part(STAIN, now, stain=profile, figures=figures)

    def _add_pyramid(self, frame: Frame) -> None:
        if not self.distance_um:
            if frame.x_um is None or frame.y_um is None:
                raise CalibrationError(
                    "A frame has no stage position; give positions, or the distance of a ruler's "
                    "lines."
                )
            if len(self._pyramids) >= MOST_FIELDS:
                raise CalibrationError(
                    f"There are more than {MOST_FIELDS} fields; take a few around one place, "
                    "overlapping by half or more."
                )
            self._positions.append((frame.x_um, frame.y_um))
        self._pyramids.append(RegistrationPyramid.of(self._corrected(frame.pixels)))

    def _check_declared(self, measured: float) -> None:
        """Compare a measured pixel size with the declared one, um/px.

        Raises:
            CalibrationError: They are more than MAX_MPP_ERROR apart.
        """
        declared = self.calibration.mpp
        if declared is not None and abs(measured - declared) > MAX_MPP_ERROR * declared:
            raise CalibrationError(
                f"The pixel size measures {measured:.4g} µm/px and {declared:.4g} was declared; "
                "they may differ by 25 %. Correct the positions or the distance, which must be in "
                "µm, or the declared pixel size (--mpp).",
                measured=measured,
                declared=declared,
            )

    def _shading(self) -> ShadingCorrection:
        """Return the correction that is known so far; one that changes nothing where none is.

        Raises:
            CalibrationError: It is of frames of another size.
        """
        assert self._frame_px is not None
        known = self.calibration.shading
        if known is None:
            return ShadingCorrection(np.ones((1, 1, 3), dtype=np.float32), self._frame_px)
        if known.frame_px != self._frame_px:
            raise CalibrationError(
                f"The frames are {self._frame_px[1]} x {self._frame_px[0]} px and the flat field "
                f"of {self.calibration.name} {known.frame_px[1]} x {known.frame_px[0]}; use one "
                "camera, binning and crop, or another name."
            )
        return known

    def _corrected(self, pixels: UInt8Array) -> UInt8Array:
        if self.calibration.shading is None:
            return pixels
        return self._shading().apply(pixels)

    def _sample(self, pixels: UInt8Array) -> UInt8Array:
        """Return tissue pixels of a field, uint8 (n, 3), evenly spread over it."""
        background = self.calibration.background or NOMINAL.background
        rows = np.flatnonzero(replace(NOMINAL, background=background).mask(pixels))
        if len(rows) > SAMPLE_PX:
            rows = rows[np.linspace(0, len(rows) - 1, SAMPLE_PX).round().astype(np.int64)]
        return np.asarray(pixels.reshape(-1, 3)[rows], dtype=np.uint8)
