"""ViewService: scores, fields, maps and the mosaic of a session, read beside its worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from edge_mil.errors import (
    NotThereYetError,
    SequenceError,
    ServiceUnavailableError,
    UsageError,
)
from edge_mil.imaging.render.mosaic_canvas import as_jpeg
from edge_mil.limits import MAX_SEQUENCE, printable
from edge_mil.rpc.pagination import page_size, sequence_of_token
from edge_mil.service.handlers import streaming, unary
from edge_mil.service.sessions.live_session import LiveSession
from edge_mil.service.sessions.messages import field_message
from edge_mil.service.sessions.registry import SessionRegistry
from edge_mil.types import MIN_MPP, RESEARCH_USE_ONLY, CellLayer, InfluenceMap
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

Value = TypeVar("Value")

HEARTBEAT_S = 10.0
"""Longest silence of WatchScore; the `.proto` promises it to clients."""
MAX_INTERVAL_S = 60.0
"""Longest pause that a watcher may ask for between two scores."""
DEFAULT_TOP, MAX_TOP = 10, 100
MOSAIC_UM, MAX_MOSAIC_UM = 8.0, 1000.0
"""Size of a mosaic's pixels, usual and at most: a cell of 112 um is 14 of the usual ones."""
MOSAIC_PX = 2048
"""Longest side of a mosaic: its JPEG stays within a message of 4 MB, gRPC's default."""
MOSAIC_BUDGET_S = 0.3
"""How long one call paints. After a restart a slide of 10 000 fields takes seconds to paint: each
call goes on behind the last one, and says how far it came."""


class ViewServicer(rpc.ViewServiceServicer):
    """The calls that only read; none of them waits for the model."""

    def __init__(self, sessions: SessionRegistry, stopping: asyncio.Event) -> None:
        self._sessions, self._stopping = sessions, stopping

    @unary
    async def GetScore(  # noqa: N802 # the wire names it
        self, request: pb.GetScoreRequest, _: Any
    ) -> pb.GetScoreResponse:
        async with self._sessions.use(request.session_id) as live:
            return pb.GetScoreResponse(
                score=live.score, bundle_digest=live.bundle.digest, notice=RESEARCH_USE_ONLY
            )

    @streaming
    async def WatchScore(  # noqa: N802
        self, request: pb.WatchScoreRequest, _: Any
    ) -> AsyncIterator[pb.WatchScoreResponse]:
        pause = request.min_interval.ToNanoseconds() / 1e9
        if not 0 <= pause <= MAX_INTERVAL_S:
            raise UsageError(
                f"The interval is {pause:g} s and may be 0 to {MAX_INTERVAL_S:g}; a heartbeat "
                f"comes every {HEARTBEAT_S:g} s all the same.",
                field="min_interval",
            )
        async with self._sessions.use(request.session_id) as live:
            with live.watched() as changed:
                last: tuple[int, int] = (request.after_revision, -1)
                while True:
                    changed.clear()
                    if self._stopping.is_set():
                        raise ServiceUnavailableError("The service is stopping; watch again later.")
                    state = live.state()
                    now = (live.score.revision, int(state))
                    if now[0] > last[0] or now[1] != last[1]:
                        last = (max(now[0], last[0]), now[1])
                        yield _watch_response(live, heartbeat=False)
                        if state in (pb.SESSION_STATE_CLOSED, pb.SESSION_STATE_EXPIRED):
                            return
                        # Whatever changes meanwhile is one message: the newest.
                        await asyncio.sleep(pause)
                    try:
                        await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
                    except asyncio.TimeoutError:
                        yield _watch_response(live, heartbeat=True)

    @unary
    async def ListFields(  # noqa: N802
        self, request: pb.ListFieldsRequest, _: Any
    ) -> pb.ListFieldsResponse:
        async with self._sessions.use(request.session_id) as live:
            after = sequence_of_token(request.page_token)
            size = page_size(request.page_size)
            # One more than asked for says whether there is a next page.
            page = await _in_thread(lambda: live.session.fields(after, size + 1))
            token = str(page[size - 1].sequence) if len(page) > size else ""
            return pb.ListFieldsResponse(
                fields=[field_message(record) for record in page[:size]], next_page_token=token
            )

    @unary
    async def GetField(  # noqa: N802
        self, request: pb.GetFieldRequest, _: Any
    ) -> pb.GetFieldResponse:
        sequence = request.sequence
        async with self._sessions.use(request.session_id) as live:
            if not live.session.has_field(sequence):
                raise SequenceError(
                    f"The session has no field {sequence}; list its fields first.",
                    reason="FIELD_NOT_FOUND",
                    field="sequence",
                )
            found = await _in_thread(lambda: live.session.fields(sequence - 1, 1))
            return pb.GetFieldResponse(field=field_message(found[0]))

    @unary
    async def GetTopFields(  # noqa: N802
        self, request: pb.GetTopFieldsRequest, _: Any
    ) -> pb.GetTopFieldsResponse:
        async with self._sessions.use(request.session_id) as live:
            name = _class_name(live, request.class_name)
            count = min(request.count or DEFAULT_TOP, MAX_TOP)
            revision = live.session.status().revision
            records = await _in_thread(lambda: live.session.top_fields(count, name))
            return pb.GetTopFieldsResponse(
                fields=[field_message(record) for record in records],
                revision=revision,
                class_name=name,
            )

    @unary
    async def GetFieldThumbnail(  # noqa: N802
        self, request: pb.GetFieldThumbnailRequest, _: Any
    ) -> pb.GetFieldThumbnailResponse:
        sequence = min(request.sequence, MAX_SEQUENCE)  # beyond it there is no field either
        async with self._sessions.use(request.session_id) as live:
            try:
                jpeg = await _in_thread(lambda: live.session.thumbnail(sequence))
            except SequenceError as error:
                raise SequenceError(
                    str(error), reason="FIELD_NOT_FOUND", field="sequence"
                ) from error
            return pb.GetFieldThumbnailResponse(jpeg=jpeg)

    @unary
    async def GetHeatmap(  # noqa: N802
        self, request: pb.GetHeatmapRequest, _: Any
    ) -> pb.GetHeatmapResponse:
        async with self._sessions.use(request.session_id) as live:
            if request.layer:
                return await _layer_response(live, request)
            name = _class_name(live, request.class_name)
            influence = await _in_thread(lambda: live.session.influence_map(name))
            if request.um_per_cell not in (0, influence.um_per_column):
                raise NotThereYetError(
                    "A heat map on another grid is not there yet: leave um_per_cell out, or ask "
                    f"for the session's own, {influence.um_per_column:g}."
                )
            return _cells_response(influence, influence.revision, name)

    @unary
    async def GetMosaic(  # noqa: N802
        self, request: pb.GetMosaicRequest, _: Any
    ) -> pb.GetMosaicResponse:
        finest = request.um_per_px or MOSAIC_UM
        if not MIN_MPP <= finest <= MAX_MOSAIC_UM:
            raise UsageError(
                f"The mosaic can have {MIN_MPP:g} to {MAX_MOSAIC_UM:g} µm per pixel, not {finest}; "
                "leave um_per_px out for the usual one.",
                field="um_per_px",
            )
        async with self._sessions.use(request.session_id) as live:
            mosaic = await _in_thread(
                lambda: live.session.mosaic(finest, MOSAIC_PX, MOSAIC_BUDGET_S)
            )
            if mosaic is None:
                return pb.GetMosaicResponse()
            rows, columns = mosaic.pixels.shape[:2]
            return pb.GetMosaicResponse(
                jpeg=await _in_thread(lambda: as_jpeg(mosaic.pixels)),
                origin_x_um=mosaic.origin_x_um,
                origin_y_um=mosaic.origin_y_um,
                um_per_px=mosaic.um_per_px,
                columns=columns,
                rows=rows,
                as_of_sequence=mosaic.as_of,
            )


def _watch_response(live: LiveSession, *, heartbeat: bool) -> pb.WatchScoreResponse:
    return pb.WatchScoreResponse(
        score=live.score,
        heartbeat=heartbeat,
        state=live.state(),
        bundle_digest=live.bundle.digest,
        notice=RESEARCH_USE_ONLY,
    )


async def _layer_response(
    live: LiveSession, request: pb.GetHeatmapRequest
) -> pb.GetHeatmapResponse:
    """Return the focus, or the coverage, of each cell.

    Raises:
        UsageError: There is no such layer.
    """
    session = live.session
    layers = {"focus": session.focus_map, "coverage": session.coverage_map}
    if request.layer not in layers:
        raise UsageError(
            f"There is no layer {printable(request.layer, 40)!r}; ask for {' or '.join(layers)}, "
            "or leave it out for the influence on the score.",
            field="layer",
        )
    layer = await _in_thread(layers[request.layer])
    return _cells_response(layer, session.status().revision)


def _cells_response(
    layer: InfluenceMap | CellLayer, revision: int, class_name: str = ""
) -> pb.GetHeatmapResponse:
    rows, columns = layer.values.shape
    return pb.GetHeatmapResponse(
        revision=revision,
        origin_x_um=layer.origin_x_um,
        origin_y_um=layer.origin_y_um,
        um_per_cell=layer.um_per_column,
        um_per_row=layer.um_per_row,
        columns=columns,
        rows=rows,
        values_f32le=layer.values.astype("<f4").tobytes(),
        class_name=class_name,
    )


async def _in_thread(work: Callable[[], Value]) -> Value:
    """Run a query in a thread beside the event loop and the session's worker."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _class_name(live: LiveSession, name: str) -> str:
    """Return the class that a request names; the last one where it names none.

    Raises:
        UsageError: The bundle has no such class.
    """
    classes = live.session.model.bundle.manifest.task.classes
    if name and name not in classes:
        raise UsageError(
            f"The bundle has no class {printable(name, 40)!r}; it has {', '.join(classes)}.",
            field="class_name",
        )
    with contextlib.suppress(IndexError):
        return name or classes[-1]
    raise NotThereYetError(
        "The influence on the score of a bundle without classes is not there yet."
    )
