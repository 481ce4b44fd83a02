"""From an OpenSession request to settings: checks everything that a client may get wrong."""

from __future__ import annotations

import hashlib
import math

from edge_mil.calibration import MAX_AGE_DAYS, Calibration, CalibrationFolder, OpticalPath
from edge_mil.calibration.calibration import DAY_S
from edge_mil.errors import CalibrationError, NotThereYetError, UsageError
from edge_mil.rpc.frames import MAX_NAME_BYTES
from edge_mil.rpc.pixel_size import (
    MAX_AFFINE_DISAGREEMENT,
    declared_mpp,
    resolve_mpp,
    resolve_stage_affine,
)
from edge_mil.rpc.results import decode_regions
from edge_mil.service.limits import PROTOCOL_VERSIONS
from edge_mil.session import SessionSettings
from edge_mil.v1 import edge_mil_pb2 as pb

MAX_LABELS = 32
MAX_REGIONS = 25_000
"""Rectangles that fit into one message of 1 MiB."""


def settings_of(
    request: pb.OpenSessionRequest, calibrations: CalibrationFolder, now: float
) -> SessionSettings:
    """Return the settings that a request asks for.

    Args:
        request: What the client sent.
        calibrations: Of this device.
        now: Seconds since the epoch; the age of a calibration counts up to it.

    Raises:
        CalibrationError: The calibration that it names is missing, stale or of other optics.
        PixelSizeError: The pixel size is unknown, impossible or contradictory.
        NotThereYetError: It asks for a later release, or speaks another protocol.
        UsageError: A name is too long, a number is not finite, or the stage is not in micrometres.
    """
    _check_release(request)
    _check_stage(request.stage)
    _check_names(request)
    if len(request.tissue) > MAX_REGIONS:
        raise UsageError(
            f"The tissue outline has {len(request.tissue)} rectangles and at most {MAX_REGIONS} "
            "are taken; join them.",
            field="tissue",
        )
    tissue = decode_regions(request.tissue)
    for region in tissue:
        numbers = (region.x_um, region.y_um, region.width_um, region.height_um)
        if not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
            raise UsageError(
                f"The tissue outline holds {region}; positions must be finite and sizes positive, "
                "in µm.",
                field="tissue",
            )
    calibration = _calibration(request.optics, calibrations, now)
    mpp, source = resolve_mpp(request.optics, calibration.mpp if calibration else None)
    return SessionSettings(
        mpp=mpp,
        mpp_source=source,
        independent=request.independent,
        allow_enlargement=request.allow_enlargement,
        stage=not request.stage.absent,
        insist_geometry=request.insist_geometry,
        stage_affine=_stage_affine(request.stage, calibration, mpp),
        calibration_id=calibration.name if calibration else "",
        calibration_digest=calibration.digest if calibration else "",
        area=decode_regions([request.stage.area])[0] if request.stage.HasField("area") else None,
        tissue=tissue,
        slide_label=request.slide_label,
        labels=dict(request.labels),
        request_id=request.request_id,
        request_digest=hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest(),
    )


def _calibration(
    optics: pb.Optics, calibrations: CalibrationFolder, now: float
) -> Calibration | None:
    """Return the calibration that a client names, None without one.

    Raises:
        CalibrationError: It is missing, stale or of other optics.
    """
    if not optics.calibration_id:
        return None
    calibration = calibrations.load(optics.calibration_id)
    days = optics.calibration_max_age.ToNanoseconds() / 1e9 / DAY_S
    calibration.check(
        now,
        optics=OpticalPath(optics.camera_label, optics.objective_label, optics.tube_lens_label),
        mpp=None if optics.insist_mpp else declared_mpp(optics),
        max_age_days=days if optics.HasField("calibration_max_age") else MAX_AGE_DAYS,
    )
    return calibration


def _stage_affine(
    stage: pb.StageFrame, calibration: Calibration | None, mpp: float
) -> tuple[float, float, float, float] | None:
    """Return the affine from camera pixel to stage um, as measured or, where not, as declared.

    Raises:
        CalibrationError: Both are known, and they differ.
    """
    if stage.absent:
        return None
    declared = resolve_stage_affine(stage, mpp)
    measured = calibration.stage_affine if calibration else None
    if declared is None or measured is None:
        return declared if measured is None else measured
    scale = max(map(abs, measured))
    apart = max(abs(a - b) for a, b in zip(declared, measured, strict=True)) / scale
    if apart > MAX_AFFINE_DISAGREEMENT:
        assert calibration is not None
        raise CalibrationError(
            f"The camera was declared to lie on the stage as {_numbers(declared)} and calibration "
            f"{calibration.name} measured {_numbers(measured)} (µm per pixel, by rows); leave the "
            "declaration out, or measure again with edge-mil calibrate pixel-size.",
            reason="CALIBRATION_FOREIGN",
        )
    return measured


def _numbers(affine: tuple[float, ...]) -> str:
    return "[" + " ".join(f"{x:.4g}" for x in affine) + "]"


def _check_release(request: pb.OpenSessionRequest) -> None:
    if request.protocol_version and request.protocol_version not in PROTOCOL_VERSIONS:
        raise NotThereYetError(
            f"This service speaks {', '.join(PROTOCOL_VERSIONS)} and not "
            f"{request.protocol_version[:40]!r}; update the older of the two.",
            reason="PROTOCOL_VERSION",
            supported=",".join(PROTOCOL_VERSIONS),
        )
    if request.site_policy_id:
        raise NotThereYetError("Site policies are not there yet: leave site_policy_id empty.")
    if request.idle_timeout.ToNanoseconds():
        raise NotThereYetError(
            "Sessions that expire are not there yet: leave idle_timeout out and close the session."
        )


def _check_stage(stage: pb.StageFrame) -> None:
    if stage.unit not in ("", "um"):
        raise UsageError(
            f"The stage's unit is {stage.unit[:20]!r}; send positions in micrometres and say um.",
            reason="STAGE_UNIT",
            field="stage.unit",
        )
    area = stage.area
    numbers = (area.x_um, area.y_um, area.width_um, area.height_um)
    if stage.HasField("area") and not (all(map(math.isfinite, numbers)) and min(numbers[2:]) > 0):
        raise UsageError(
            f"The area to read is {numbers}; send its top left corner and a positive size, in µm.",
            field="stage.area",
        )


def _check_names(request: pb.OpenSessionRequest) -> None:
    names = {
        "request_id": request.request_id,
        "slide_label": request.slide_label,
        "bundle_id": request.bundle_id,
        **{f"labels[{key[:20]}]": key + value for key, value in request.labels.items()},
    }
    for field, text in names.items():
        if len(text.encode()) > MAX_NAME_BYTES:
            raise UsageError(
                f"{field} has more than {MAX_NAME_BYTES} bytes; use a shorter one.", field=field
            )
    if len(request.labels) > MAX_LABELS:
        raise UsageError(
            f"There are {len(request.labels)} labels and at most {MAX_LABELS} are taken.",
            field="labels",
        )
