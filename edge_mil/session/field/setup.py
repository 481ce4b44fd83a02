"""What a session fixes before its first field: background, thresholds, affine and stain.

They come from the calibration, else from the bundle, else from defaults, never from the session's
own fields, or the verdicts would depend on the order (`design.md`, section 3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from edge_mil.calibration import Calibration, stain_transform
from edge_mil.errors import CalibrationError
from edge_mil.imaging.correction.noise import noise_reduction
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.tissue import TissueTest
from edge_mil.pipeline import Model
from edge_mil.session.field.field_gate import FieldGate
from edge_mil.session.field.processor import FieldProcessor
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceRow, SessionReader

CALIBRATION = "calibration"
"""Name of the calibration among a session's attachments."""


def settle(
    settings: SessionSettings, model: Model, calibration: Calibration | None
) -> SessionSettings:
    """Return the settings with everything that a new session fixes.

    Args:
        settings: As the client asked.
        model: Its bundle says what the calibration does not.
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
    return dataclasses.replace(settings, gates=gates.as_json())


def check_calibration(settings: SessionSettings, calibration: Calibration | None) -> None:
    """Refuse to go on under another calibration than the settings name.

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


def declared(mpp: float | None, calibration: Calibration | None) -> SessionSettings:
    """Return the settings of a session of which only the pixel size is said.

    Raises:
        PixelSizeError: Nobody says it.
    """
    if mpp is None and calibration is not None and calibration.mpp is not None:
        return SessionSettings(mpp=calibration.mpp, mpp_source="calibration")
    return SessionSettings(mpp=mpp)  # type: ignore[arg-type] # it refuses None


def attached(calibration: Calibration | None) -> dict[str, bytes]:
    """Return what a session's file keeps of its calibration: all of it, as it was measured."""
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


def open_processor(
    model: Model,
    survey: InstanceMap,
    settings: SessionSettings,
    calibration: Calibration | None,
    rows_of: Callable[[int], Sequence[InstanceRow]],
) -> FieldProcessor:
    """Return what judges and extracts the fields of a session whose settings are settled.

    Args:
        model: Extracts and pools.
        survey: Knows the places.
        settings: From `settle`, or as they were stored.
        calibration: Corrects each field and says what the stain is like; None: neither.
        rows_of: Gives the stored rows of a field.
    """
    shading, noise = None, None
    if calibration is not None:
        shading = calibration.shading
        noise = noise_reduction(calibration.noise, shading)
    gates = FrameGate(GateSettings.from_json(settings.gates or {}), tissue_test(settings, model))
    gate = FieldGate(gates, shading, settings.mpp, noise)
    stain = stain_transform(model.input, calibration)
    return FieldProcessor(model, survey, gate, stain, model.reference, rows_of)


def tissue_test(settings: SessionSettings, model: Model) -> TissueTest:
    """Return the session's tissue test: the bundle's, against the calibrated background."""
    assert model.input is not None  # a session without an extractor was refused before
    spec = model.input.tissue
    return TissueTest(settings.background or spec.background, spec.min_difference, spec.min_share)
