"""OpenSession's request as settings: everything that a client may get wrong is checked here."""

from __future__ import annotations

import hashlib
import math

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil.rpc.codec import decode_regions
from edge_mil.rpc.frames import MAX_NAME_BYTES
from edge_mil.rpc.optics import resolve_mpp, resolve_stage_affine
from edge_mil.session import SessionSettings
from edge_mil.v1 import edge_mil_pb2 as pb

PROTOCOL_VERSIONS = ("edge_mil.v1",)
MAX_LABELS = 32
MAX_REGIONS = 25_000
"""As many as fit into one message of 1 MiB."""


def settings_of(request: pb.OpenSessionRequest) -> SessionSettings:
    """Return the settings that a request asks for.

    Raises:
        PixelSizeError: The pixel size is unknown, impossible or contradictory.
        NotThereYetError: It asks for a later release, or speaks another protocol.
        UsageError: A name is too long, a number is not finite, or the stage is not in um.
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
                "in um.",
                field="tissue",
            )
    mpp, source = resolve_mpp(request.optics)
    return SessionSettings(
        mpp=mpp,
        mpp_source=source,
        independent=request.independent,
        stage=not request.stage.absent,
        stage_affine=None if request.stage.absent else resolve_stage_affine(request.stage, mpp),
        area=decode_regions([request.stage.area])[0] if request.stage.HasField("area") else None,
        tissue=tissue,
        slide_label=request.slide_label,
        labels=dict(request.labels),
        request_id=request.request_id,
        request_digest=hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest(),
    )


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
            f"The area to read is {numbers}; send its top left corner and a positive size, in um.",
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
