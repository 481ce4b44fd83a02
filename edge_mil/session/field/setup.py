"""Fix background, thresholds, stage affine and stain before the first field of a session.

They come from the calibration, else from the bundle, else from defaults. They never come from the
session's own fields, or the verdicts would depend on the order of the fields
(`docs/design/imaging.md`, "Fixed before the first field").
"""

from __future__ import annotations

import dataclasses
from typing import Any

from edge_mil.calibration import NOT_VERIFIED, VERIFIED, Calibration, stain_transform
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.camera import CameraCorrection
from edge_mil.imaging.correction.noise import noise_reduction
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.tissue import TissueTest
from edge_mil.pipeline import Model
from edge_mil.session.field.gate import FieldGate
from edge_mil.session.settings import SessionSettings
from edge_mil.store import SessionReader

CALIBRATION = "calibration"
"""Name of the calibration among a session's attachments."""


def complete_settings(
    settings: SessionSettings, model: Model, calibration: Calibration | None
) -> SessionSettings:
    """Return the settings of a new session with what calibration and bundle add.

    Args:
        settings: As the client asked for them.
        model: Its bundle states what the calibration does not.
        calibration: The one that the settings name; in process also one that they do not name.

    Raises:
        CalibrationError: The settings name another one, or the bundle wants a stain that the
            calibration does not hold.
    """
    check_calibration(settings, calibration)
    stain_transform(model.input, calibration)
    gates = GateSettings()
    if calibration is not None:
        gates = calibration.gates or gates
        affine = settings.stage_affine or calibration.stage_affine
        settings = dataclasses.replace(
            settings,
            calibration_id=calibration.name,
            calibration_digest=calibration.digest,
            # Without a stage the lattice is the first field's own.
            stage_affine=affine if settings.stage else None,
            background=calibration.background,
        )
    camera = camera_state(calibration, model.bundle.digest)
    return dataclasses.replace(settings, gates=gates.as_json(), **camera)


def camera_state(calibration: Calibration | None, bundle_digest: str) -> dict[str, Any]:
    """Return the settings that say what is known of the camera."""
    passport = None if calibration is None else calibration.passport_for(bundle_digest)
    if passport is None:
        measured = bool(calibration and calibration.passports)
        what = "the camera's passport is of another bundle" if measured else "it has no passport"
        return {
            "camera": NOT_VERIFIED,
            "camera_bound": None,
            "camera_note": f"What this camera does to the score is not known: {what}. Measure it "
            "with edge-mil calibrate camera.",
        }
    return {
        "camera": VERIFIED if passport.verified else NOT_VERIFIED,
        "camera_bound": passport.bound,
        "camera_note": passport.reason,
    }


def camera_correction(
    calibration: Calibration | None, bundle_digest: str
) -> CameraCorrection | None:
    """Return what is done to every tile of a session; None where nothing is.

    A camera that cannot be mended is brought as near to the scanner as it can be; its scores are
    not verified.
    """
    passport = None if calibration is None else calibration.passport_for(bundle_digest)
    if passport is None or passport.correction.changes_nothing:
        return None
    return passport.correction


def check_calibration(settings: SessionSettings, calibration: Calibration | None) -> None:
    """Check that a calibration is the one that the settings name.

    Raises:
        CalibrationError: It is another, or is missing.
    """
    if not settings.calibration_id:
        return
    found = None if calibration is None else calibration.digest
    wanted = settings.calibration_digest or found
    if calibration is None or calibration.name != settings.calibration_id or found != wanted:
        raise CalibrationError(
            f"The session runs under calibration {settings.calibration_id} "
            f"{settings.calibration_digest[:19]}, and "
            f"{'none' if calibration is None else f'{calibration.name} {str(found)[:19]}'} was "
            "given; give the one that it began with, or begin a new session.",
            reason="CALIBRATION_CHANGED",
        )


def minimal_settings(mpp: float | None, calibration: Calibration | None) -> SessionSettings:
    """Return settings with the given pixel size, else with that of the calibration.

    Raises:
        PixelSizeError: Neither states it.
    """
    if mpp is None and calibration is not None and calibration.mpp is not None:
        return SessionSettings(mpp=calibration.mpp, mpp_source="calibration")
    return SessionSettings(mpp=mpp)  # type: ignore[arg-type] # it refuses None


def attachments(calibration: Calibration | None) -> dict[str, bytes]:
    """Return the calibration as an attachment of the session's file."""
    return {} if calibration is None else {CALIBRATION: calibration.to_bytes()}


def stored_calibration(store: SessionReader, settings: SessionSettings) -> Calibration | None:
    """Return the calibration that a stored session runs under, None for none.

    Raises:
        CalibrationError: It is not the one that the settings name.
    """
    data = store.attachment(CALIBRATION)
    calibration = None if data is None else Calibration.from_bytes(data)
    check_calibration(settings, calibration)
    return calibration


def open_gate(
    model: Model, settings: SessionSettings, calibration: Calibration | None
) -> FieldGate:
    """Return the corrections and quality gates of a session.

    Args:
        model: Its bundle states the tissue test.
        settings: From `complete_settings`, or as they were stored.
        calibration: Corrects each frame; None: no correction.
    """
    shading, noise = None, None
    if calibration is not None:
        shading = calibration.shading
        noise = noise_reduction(calibration.noise, shading)
    thresholds = GateSettings.from_session(settings.gates or {})
    calibrated = settings.background is not None
    gates = FrameGate(thresholds, tissue_test(settings, model), calibrated=calibrated)
    return FieldGate(
        gates,
        shading,
        settings.mpp,
        noise,
        check_light=checks_light(settings, model),
        insist_light=settings.insist_light,
    )


def checks_light(settings: SessionSettings, model: Model) -> bool:
    """Say whether a session compares the light of its fields with the background.

    Cells of the grid that show glass must not be counted. Where whole fields are the instances,
    only empty fields are refused, and those have no structure in any light. A session of an
    earlier release goes on as it began.
    """
    assert model.input is not None  # a session without an extractor was refused before
    known = set(settings.gates or {})
    return model.input.instances == "grid" and "max_dark_glass" in known


def tissue_test(settings: SessionSettings, model: Model) -> TissueTest:
    """Return the session's tissue test: the bundle's, against the calibrated background."""
    assert model.input is not None  # a session without an extractor was refused before
    spec = model.input.tissue
    return TissueTest(settings.background or spec.background, spec.min_difference, spec.min_share)
