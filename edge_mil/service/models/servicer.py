"""ModelService: what this device can run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from edge_mil.backends import BACKENDS
from edge_mil.errors import SessionStateError, UsageError
from edge_mil.pipeline import Model
from edge_mil.pipeline.model import PRECISIONS
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.rpc.frames import MAX_CHUNK_BYTES, MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from edge_mil.rpc.pagination import page_of
from edge_mil.service.handlers import streaming, unary
from edge_mil.service.limits import CREDITS, MAX_LIVE_SESSIONS, PROTOCOL_VERSIONS
from edge_mil.service.models.preparation import CPU, Preparations, Wanted
from edge_mil.service.models.registry import (
    FAILED,
    READY,
    STARTING,
    UNLOADED,
    BundleRegistry,
    ServedBundle,
)
from edge_mil.session.catalog import new_id
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc
from edge_mil.version import __version__

PROTOCOL_REVISION = 1
FEATURES = ("raw", "jpeg", "png", "independent")
PROGRESS_EVERY_S = 1.0
"""Pause between the messages of LoadModel; clients are promised one every 5 s."""


class BundleUsers(Protocol):
    """The sessions that run with a bundle: `service.sessions.registry.SessionRegistry`."""

    def uses(self, bundle: ServedBundle) -> Sequence[object]:
        """Return the sessions in use that run with a bundle."""

    async def release_all(self, bundle: ServedBundle) -> None:
        """Close the files of the sessions that run with a bundle."""


class ModelServicer(rpc.ModelServiceServicer):
    """The bundles of this server."""

    def __init__(
        self, models: BundleRegistry, sessions: BundleUsers, preparations: Preparations
    ) -> None:
        self._models, self._sessions, self._preparations = models, sessions, preparations
        self._instance = new_id()

    @unary
    async def GetServerInfo(  # noqa: N802 # the wire names it
        self, _request: pb.GetServerInfoRequest, _: Any
    ) -> pb.GetServerInfoResponse:
        """Return which server this is, and its limits."""
        return pb.GetServerInfoResponse(
            server_version=__version__,
            instance_id=self._instance,
            protocol_versions=PROTOCOL_VERSIONS,
            protocol_revision=PROTOCOL_REVISION,
            features=FEATURES,
            max_frame_bytes=MAX_FRAME_BYTES,
            max_frame_pixels=MAX_FRAME_PIXELS,
            max_chunk_bytes=MAX_CHUNK_BYTES,
            max_sessions=MAX_LIVE_SESSIONS,
            preferred_credits=CREDITS,
        )

    @unary
    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, _: Any
    ) -> pb.ListModelsResponse:
        """Return every bundle, ready or not."""
        page, token = page_of(
            self._models.bundles, request.page_size, request.page_token, lambda b: b.name
        )
        return pb.ListModelsResponse(models=[b.info() for b in page], next_page_token=token)

    @streaming
    async def LoadModel(  # noqa: N802
        self, request: pb.LoadModelRequest, _: Any
    ) -> AsyncIterator[pb.LoadModelResponse]:
        """Load a bundle that was unloaded, wait for one that is loading, or change its runner."""
        hosted = self._models.pick(request.bundle_id, request.bundle_digest)
        loop = asyncio.get_running_loop()
        loading: asyncio.Future[None] | None = None
        if hosted.state in (FAILED, UNLOADED):
            hosted.state = STARTING
            loading = loop.run_in_executor(hosted.worker, hosted.load)
        while hosted.state == STARTING:
            yield pb.LoadModelResponse(state=hosted.state, model=hosted.info())
            with contextlib.suppress(asyncio.TimeoutError):
                waiting = loading or loop.create_future()
                await asyncio.wait_for(asyncio.shield(waiting), PROGRESS_EVERY_S)
        if hosted.state == FAILED and hosted.error is not None:
            raise hosted.error
        if hosted.state == READY and (request.precision or request.backend):
            async for message in self._change(hosted, request):
                yield message
        if hosted.state == READY:
            yield pb.LoadModelResponse(state=READY, progress=1.0, model=hosted.info())

    async def _change(
        self, hosted: ServedBundle, request: pb.LoadModelRequest
    ) -> AsyncIterator[pb.LoadModelResponse]:
        """Prepare another runner, tell how far it is, and let it take over between two fields.

        Raises:
            UsageError: There is no such precision or backend.
            EdgeMilError: It cannot be prepared; what runs goes on.
        """
        model = hosted.ready()
        wanted = _wanted(request, model)
        if hosted.next_runner is not None and wanted == _of(hosted.next_runner):
            hosted.take_next()
        if model.extractor is None or wanted == _of(model.extractor.current):
            return
        preparing = asyncio.ensure_future(self._preparations.prepare(hosted, wanted))
        try:
            while not preparing.done():
                await asyncio.wait({preparing}, timeout=PROGRESS_EVERY_S)
                one = self._preparations.under_way(hosted)
                if one is not None and not preparing.done():
                    yield pb.LoadModelResponse(
                        state=one.state, progress=one.share, model=hosted.info()
                    )
        finally:
            # A client that goes away no longer asks; the answer is still awaited, and let go.
            if not preparing.done():
                preparing.add_done_callback(functools.partial(_let_go, model))
        hosted.switch(preparing.result())

    @unary
    async def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, _: Any
    ) -> pb.UnloadModelResponse:
        """Give a bundle's memory back."""
        hosted = self._models.pick(request.bundle_id, "")
        used = self._sessions.uses(hosted)
        if used or hosted.state == STARTING or hosted.preparing:
            why = f"{len(used)} sessions use it" if used else "it is still being prepared"
            raise SessionStateError(
                f"Bundle {hosted.name} cannot be unloaded now: {why}; try again later.",
                reason="BUNDLE_IN_USE",
            )
        await self._sessions.release_all(hosted)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(hosted.worker, hosted.unload)
        return pb.UnloadModelResponse()


def _wanted(request: pb.LoadModelRequest, model: Model) -> Wanted:
    """Return what runner a client asks for; what it leaves out stays as it is.

    Raises:
        UsageError: There is no such backend or precision.
    """
    now = Wanted(CPU, model.precision) if model.extractor is None else _of(model.extractor.current)
    asked = Wanted(request.backend or now.backend, request.precision or now.precision)
    for field, value, known in (
        ("backend", asked.backend, BACKENDS),
        ("precision", asked.precision, PRECISIONS),
    ):
        if value not in known:
            raise UsageError(
                f"There is no {field} {value!r}; name one of {', '.join(known)}.", field=field
            )
    return asked


def _of(runner: Runner) -> Wanted:
    return Wanted(runner.on, runner.precision)


def _let_go(model: Model, preparing: asyncio.Future[Runner]) -> None:
    if preparing.cancelled() or preparing.exception() is not None:
        return
    runner = preparing.result()
    if model.extractor is None or runner is not model.extractor.first:
        runner.network.close()
