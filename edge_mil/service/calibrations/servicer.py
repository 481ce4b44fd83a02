"""CalibrationService: measures a part of a named calibration from frames, and lists them."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edge_mil.calibration import Calibration, CalibrationFolder, Measurement, OpticalPath, begin
from edge_mil.calibration.parts import DARK, FLAT, GATES, PIXEL_SIZE, STAIN, WHITE
from edge_mil.errors import CalibrationError, ProtocolError, ServiceBusyError
from edge_mil.imaging import TissueTest
from edge_mil.limits import check_text
from edge_mil.rpc.frame_assembly import FrameAssembly
from edge_mil.rpc.frames import check_payload
from edge_mil.rpc.image_codecs import decode_frame
from edge_mil.rpc.pagination import page_of
from edge_mil.rpc.pixel_size import declared_mpp
from edge_mil.rpc.results import timestamp
from edge_mil.service.byte_budget import ByteBudget
from edge_mil.service.handlers import unary
from edge_mil.service.limits import (
    CHUNK_S,
    IDLE_CALIBRATION_S,
    MAX_CALIBRATIONS,
    SLOWEST_BYTES_PER_S,
)
from edge_mil.service.models.registry import BundleRegistry
from edge_mil.service.silence import SilentStreams, next_message
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

Value = TypeVar("Value")

PARTS = {
    pb.CALIBRATION_KIND_FLAT_FIELD: FLAT,
    pb.CALIBRATION_KIND_DARK_FIELD: DARK,
    pb.CALIBRATION_KIND_WHITE_BALANCE: WHITE,
    pb.CALIBRATION_KIND_PIXEL_SIZE: PIXEL_SIZE,
    pb.CALIBRATION_KIND_STAGE_AFFINE: PIXEL_SIZE,
    pb.CALIBRATION_KIND_GATES: GATES,
    pb.CALIBRATION_KIND_STAIN: STAIN,
}
"""Kind of measurement -> the part that it adds."""

RESIDUALS = {FLAT: "flat_field_variation_after", PIXEL_SIZE: "pixel_size_residual_px"}
"""Part -> the figure that is its residual."""


class CalibrationServicer(rpc.CalibrationServiceServicer):
    """The calibrations under the state directory of this server."""

    def __init__(
        self, folder: CalibrationFolder, bundles: BundleRegistry, budget: ByteBudget
    ) -> None:
        self._folder, self._bundles, self._budget = folder, bundles, budget
        self._measured: set[str] = set()
        self._silent = SilentStreams(MAX_CALIBRATIONS)
        # One thread: a measurement takes seconds of a core, and two of them as long in turn.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="calibrate")

    @unary
    async def Calibrate(  # noqa: N802 # the wire names it
        self, request: AsyncIterator[pb.CalibrateRequest], _: Any
    ) -> pb.CalibrateResponse:
        incoming = aiter(request)
        first = await self._silent.first_message(incoming)
        if first is None or first.WhichOneof("body") != "start":
            raise ProtocolError("The first message of Calibrate must be start.", field="start")
        start: pb.CalibrateStart = first.start
        _check_names(start)
        if len(self._measured) >= MAX_CALIBRATIONS:
            raise ServiceBusyError(
                f"This service measures {MAX_CALIBRATIONS} calibrations at once; try again when "
                "one of them is done.",
                limit=MAX_CALIBRATIONS,
            )
        # Two clients that add to one calibration would undo each other.
        name = start.optics.calibration_id
        if name in self._measured:
            raise CalibrationError(
                f"Another client is measuring calibration {name}; try again when it is done.",
                reason="CALIBRATION_BUSY",
            )
        self._measured.add(name)
        try:
            calibration, part = await self._measure(start, incoming)
        finally:
            self._measured.discard(name)
        return pb.CalibrateResponse(calibration=calibration_message(calibration, start.kind, part))

    @unary
    async def ListCalibrations(  # noqa: N802
        self, request: pb.ListCalibrationsRequest, _: Any
    ) -> pb.ListCalibrationsResponse:
        loop = asyncio.get_running_loop()
        names = await loop.run_in_executor(None, self._folder.names)
        page, token = page_of(names, request.page_size, request.page_token)
        response = pb.ListCalibrationsResponse(next_page_token=token)
        for name in page:
            found = await loop.run_in_executor(None, self._readable, name)
            if found is not None:
                response.calibrations.append(calibration_message(found))
        return response

    async def _measure(
        self, start: pb.CalibrateStart, incoming: AsyncIterator[pb.CalibrateRequest]
    ) -> tuple[Calibration, str]:
        measurement = await self._in_thread(lambda: self._begin(start))
        room = asyncio.Semaphore(1)
        while (header := await _next_header(incoming)) is not None:
            loan = await self._budget.lend(header, room)
            try:
                assembly = await _received(incoming, header)
                await self._in_thread(functools.partial(_add, measurement, assembly))
            finally:
                loan.give_back()
        return await self._in_thread(lambda: self._finish(measurement)), measurement.part

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        # Waited for to its end: what it changes must not overlap with the next measurement.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, work))

    def _begin(self, start: pb.CalibrateStart) -> Measurement:
        part = PARTS.get(start.kind)
        if part is None:
            raise CalibrationError(
                "Calibrate names no kind that this service knows; name one of flat field, dark "
                "field, white balance, pixel size, stage affine, gates and stain."
            )
        optics, name = start.optics, start.optics.calibration_id
        if start.kind == pb.CALIBRATION_KIND_STAGE_AFFINE and start.known_distance_um:
            raise CalibrationError(
                "A ruler slide does not say how the camera lies on the stage; send frames with "
                "stage positions, or ask for the pixel size."
            )
        known = self._folder.find(name)
        path = OpticalPath(optics.camera_label, optics.objective_label, optics.tube_lens_label)
        calibration = begin(known, name, path, declared_mpp(optics))
        tissue = TissueTest()
        if part == GATES and (start.bundle_id or len(self._bundles.bundles) == 1):
            spec = self._bundles.pick(start.bundle_id, "").ready().input
            if spec is not None:
                asked = spec.tissue
                tissue = TissueTest(asked.background, asked.min_difference, asked.min_share)
        return Measurement(part, calibration, start.known_distance_um, tissue)

    def _finish(self, measurement: Measurement) -> Calibration:
        calibration = measurement.finish(time.time())
        self._folder.save(calibration)
        return calibration

    def _readable(self, name: str) -> Calibration | None:
        # A damaged file must not hide the others; a session that names it is refused.
        try:
            return self._folder.load(name)
        except CalibrationError:
            return None


def calibration_message(
    calibration: Calibration,
    kind: pb.CalibrationKind.ValueType = pb.CALIBRATION_KIND_UNSPECIFIED,
    part: str = "",
) -> pb.Calibration:
    """Return a calibration as a message.

    Args:
        calibration: The calibration.
        kind: What was just measured, in the words of the wire.
        part: The part that was just measured, whose residual the message gives; "" for none.
    """
    shading, optics = calibration.shading, calibration.optics
    message = pb.Calibration(
        calibration_id=calibration.name,
        kind=kind,
        create_time=timestamp(calibration.created),
        mpp=calibration.mpp or 0,
        stage_affine=calibration.stage_affine or (),
        white_gains=() if shading is None else shading.white_gains,
        residual=calibration.figures.get(RESIDUALS.get(part, ""), 0),
        digest=calibration.digest,
        optics=pb.Optics(
            camera_label=optics.camera,
            objective_label=optics.objective,
            tube_lens_label=optics.tube_lens,
        ),
        background=calibration.background or (),
        figures=dict(calibration.figures),
    )
    for passport in calibration.passports:
        message.passports.add(
            bundle_digest=passport.bundle_digest,
            bundle_name=passport.bundle_name,
            precision=passport.precision,
            measure_time=timestamp(passport.measured),
            verified=passport.verified,
            reason=passport.reason,
            bound=passport.bound,
            mean_before=passport.before.largest.mean,
            mean_after=passport.after.largest.mean,
            fields=passport.fields,
            cells=passport.cells,
        )
    if calibration.mpp is not None:
        message.optics.mpp = calibration.mpp
    if shading is not None:
        message.frame_height_px, message.frame_width_px = shading.frame_px
    for name, when in calibration.measured.items():
        message.measured[name].CopyFrom(timestamp(when))
    return message


def _check_names(start: pb.CalibrateStart) -> None:
    optics = start.optics
    for field, text in {
        "request_id": start.request_id,
        "bundle_id": start.bundle_id,
        "optics.calibration_id": optics.calibration_id,
        "optics.objective_label": optics.objective_label,
        "optics.camera_label": optics.camera_label,
        "optics.tube_lens_label": optics.tube_lens_label,
    }.items():
        check_text(text, field, field)


async def _next_header(incoming: AsyncIterator[pb.CalibrateRequest]) -> pb.FieldHeader | None:
    """Return the header of the next frame; None at the end of the stream."""
    message = await next_message(incoming, IDLE_CALIBRATION_S, "next frame")
    if message is None:
        return None
    if message.WhichOneof("body") != "header":
        raise ProtocolError(
            "After start, each frame of Calibrate is one header and then its chunks, in order."
        )
    header: pb.FieldHeader = message.header
    return header


async def _received(
    incoming: AsyncIterator[pb.CalibrateRequest], header: pb.FieldHeader
) -> FrameAssembly:
    """Return a whole frame."""
    assembly = FrameAssembly(header)
    if assembly.rejected is not None:
        raise assembly.rejected
    ends = assembly.started + CHUNK_S + header.total_bytes / SLOWEST_BYTES_PER_S
    while not assembly.complete:
        within_s = min(CHUNK_S, max(0.0, ends - time.monotonic()))
        message = await next_message(incoming, within_s, "next chunk")
        if message is None:
            raise ProtocolError("The stream ended within a frame; send all of its chunks.")
        if message.WhichOneof("body") != "chunk":
            raise ProtocolError(
                "After start, each frame of Calibrate is one header and then its chunks, in order."
            )
        assembly.add(message.chunk)
    return assembly


def _add(measurement: Measurement, assembly: FrameAssembly) -> None:
    check_payload(assembly.header, assembly.payload)
    measurement.add(decode_frame(assembly.header, assembly.payload))
