"""ModelService: list, load and unload the bundles of this server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from edge_mil.backends import BACKENDS
from edge_mil.errors import SessionStateError, UsageError
from edge_mil.limits import printable
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.runner import Extractor, Runner
from edge_mil.pipeline.runners.variants import PRECISIONS
from edge_mil.rpc.frames import MAX_CHUNK_BYTES, MAX_FRAME_BYTES, MAX_FRAME_PIXELS
from edge_mil.rpc.pagination import page_of
from edge_mil.service.handlers import streaming, unary
from edge_mil.service.limits import CREDITS, MAX_LIVE_SESSIONS, PROTOCOL_VERSIONS
from edge_mil.service.models.preparation import CPU, Preparations, RunnerRequest
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

    async def release_bundle(self, bundle: ServedBundle, unload: Callable[[], None]) -> None:
        """Close the idle sessions of a bundle; `unload` is called where it is not in use."""


class ModelServicer(rpc.ModelServiceServicer):
    """Answers the calls about the bundles of this server."""

    def __init__(
        self, models: BundleRegistry, sessions: BundleUsers, preparations: Preparations
    ) -> None:
        self._models, self._sessions, self._preparations = models, sessions, preparations
        self._instance = new_id()

    @unary
    async def GetServerInfo(  # noqa: N802 # the wire names it
        self, _request: pb.GetServerInfoRequest, _: Any
    ) -> pb.GetServerInfoResponse:
        """Return the identity of this server, and its limits."""
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
        served = self._models.pick(request.bundle_id, request.bundle_digest)
        loop = asyncio.get_running_loop()
        loading: asyncio.Future[None] | None = None
        if served.state in (FAILED, UNLOADED):
            served.state = STARTING
            loading = loop.run_in_executor(served.worker, served.load)
        while served.state == STARTING:
            yield pb.LoadModelResponse(state=served.state, model=served.info())
            with contextlib.suppress(asyncio.TimeoutError):
                waiting = loading or loop.create_future()
                await asyncio.wait_for(asyncio.shield(waiting), PROGRESS_EVERY_S)
        if served.state == FAILED and served.error is not None:
            raise served.error
        if served.state == READY and (request.precision or request.backend):
            async for message in self._change(served, request):
                yield message
        if served.state == READY:
            yield pb.LoadModelResponse(state=READY, progress=1.0, model=served.info())

    async def _change(
        self, served: ServedBundle, message: pb.LoadModelRequest
    ) -> AsyncIterator[pb.LoadModelResponse]:
        """Prepare another runner, report its progress, and switch to it between two fields.

        Raises:
            UsageError: There is no such precision or backend.
            EdgeMilError: It cannot be prepared; the current runner stays.
        """
        model = served.ready()
        request = _complete(message, model)
        if served.next_runner is not None and request == _request_of(served.next_runner):
            served.take_next()
        if model.extractor is None or request == _request_of(model.extractor.current):
            return
        preparing = asyncio.ensure_future(self._preparations.prepare(served, request))
        try:
            while not preparing.done():
                await asyncio.wait({preparing}, timeout=PROGRESS_EVERY_S)
                preparation = self._preparations.under_way(served)
                if preparation is not None and not preparing.done():
                    yield pb.LoadModelResponse(
                        state=preparation.state, progress=preparation.share, model=served.info()
                    )
        finally:
            # A client that goes away does not end the preparation; its runner is closed then.
            if not preparing.done():
                preparing.add_done_callback(functools.partial(_discard, model.extractor))
        served.switch(preparing.result())

    @unary
    async def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, _: Any
    ) -> pb.UnloadModelResponse:
        """Free a bundle's memory."""
        served = self._models.pick(request.bundle_id, "")
        if served.state == STARTING or served.preparing:
            raise SessionStateError(
                f"Bundle {served.name} cannot be unloaded now: it is still being prepared; try "
                "again later.",
                reason="BUNDLE_IN_USE",
            )
        freeing: list[Callable[[], None]] = []
        await self._sessions.release_bundle(served, lambda: freeing.append(served.retire()))
        loop = asyncio.get_running_loop()
        for free in freeing:
            await loop.run_in_executor(served.worker, free)
        return pb.UnloadModelResponse()


def _complete(message: pb.LoadModelRequest, model: Model) -> RunnerRequest:
    """Return the runner that a client asks for; what it leaves out stays as it is.

    Raises:
        UsageError: There is no such backend or precision.
    """
    current = RunnerRequest(CPU, model.precision)
    if model.extractor is not None:
        current = _request_of(model.extractor.current)
    request = RunnerRequest(
        message.backend or current.backend, message.precision or current.precision
    )
    for field, value, known in (
        ("backend", request.backend, BACKENDS),
        ("precision", request.precision, PRECISIONS),
    ):
        if value not in known:
            raise UsageError(
                f"There is no {field} {printable(value, 40)!r}; name one of {', '.join(known)}.",
                field=field,
            )
    return request


def _request_of(runner: Runner) -> RunnerRequest:
    return RunnerRequest(runner.variant.backend, runner.precision)


def _discard(extractor: Extractor, preparing: asyncio.Future[Runner]) -> None:
    if not preparing.cancelled() and preparing.exception() is None:
        extractor.discard(preparing.result())
