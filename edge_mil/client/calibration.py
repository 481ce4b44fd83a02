"""Calibrations of the service: requests that measure one, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_mil.errors import UsageError
from edge_mil.rpc.frames import encode_chunks, encode_header
from edge_mil.rpc.results import epoch_seconds
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb

KINDS = {
    "flat-field": pb.CALIBRATION_KIND_FLAT_FIELD,
    "dark-frame": pb.CALIBRATION_KIND_DARK_FIELD,
    "white-balance": pb.CALIBRATION_KIND_WHITE_BALANCE,
    "pixel-size": pb.CALIBRATION_KIND_PIXEL_SIZE,
    "gates": pb.CALIBRATION_KIND_GATES,
    "stain": pb.CALIBRATION_KIND_STAIN,
}
"""Part, as `edge-mil calibrate` names it -> kind, as the wire names it."""


@dataclass(frozen=True, slots=True)
class CalibrationInfo:
    """One calibration of the service.

    Attributes:
        name: As `open_session(calibration=...)` takes it.
        digest: Digest of the stored calibration.
        camera: Camera that it holds for, in the words of whoever measured it.
        objective: Objective, likewise.
        tube_lens: Tube lens or adaptor, likewise.
        mpp: Pixel size on the slide, um/px; None where it was neither declared nor measured.
        measured: Part -> when, seconds since the epoch.
        stage_affine: From camera pixel to stage um, row-major 2 x 2; empty where unknown.
        white_gains: Gains of red, green and blue; empty where unknown.
        background: Colour of empty glass after correction, RGB 0 to 255; empty where unknown.
        frame_px: Width and height of the flat field's frames; (0, 0) where there is none.
        figures: The numbers behind the parts.
    """

    name: str
    digest: str
    camera: str
    objective: str
    tube_lens: str
    mpp: float | None
    measured: Mapping[str, float]
    stage_affine: tuple[float, ...]
    white_gains: tuple[float, ...]
    background: tuple[float, ...]
    frame_px: tuple[int, int]
    figures: Mapping[str, float]


def calibration_info(message: pb.Calibration) -> CalibrationInfo:
    """Return a calibration as a value."""
    optics = message.optics
    return CalibrationInfo(
        name=message.calibration_id,
        digest=message.digest,
        camera=optics.camera_label,
        objective=optics.objective_label,
        tube_lens=optics.tube_lens_label,
        mpp=message.mpp or None,
        measured={part: epoch_seconds(when) for part, when in message.measured.items()},
        stage_affine=tuple(message.stage_affine),
        white_gains=tuple(message.white_gains),
        background=tuple(message.background),
        frame_px=(message.frame_width_px, message.frame_height_px),
        figures=dict(message.figures),
    )


def kind_of(part: str) -> pb.CalibrationKind.ValueType:
    """Return the wire's kind of a part.

    Raises:
        UsageError: There is no such part.
    """
    if part not in KINDS:
        raise UsageError(f"There is no part {part!r} to calibrate; use {', '.join(KINDS)}.")
    return KINDS[part]


def calibrate_requests(
    start: pb.CalibrateStart, frames: Sequence[Frame]
) -> Iterator[pb.CalibrateRequest]:
    """Yield the messages of one measurement."""
    yield pb.CalibrateRequest(start=start)
    for number, frame in enumerate(frames, 1):
        yield pb.CalibrateRequest(header=encode_header(frame, number))
        for chunk in encode_chunks(frame.pixels):
            yield pb.CalibrateRequest(chunk=chunk)
