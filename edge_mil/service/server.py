"""The server process: gRPC on an event loop, models and session files in threads beside it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edge_mil.bundle import Bundle
from edge_mil.calibration import CalibrationFolder
from edge_mil.errors import EdgeMilError, ServiceUnavailableError
from edge_mil.pipeline import Model, load_model
from edge_mil.rpc.allocator import tune_allocator
from edge_mil.rpc.frames import MAX_CHUNK_BYTES
from edge_mil.service.address import DEFAULT_ADDRESS, listening, parse_address
from edge_mil.service.byte_budget import ByteBudget
from edge_mil.service.calibrations.servicer import CalibrationServicer
from edge_mil.service.descriptors import raise_limit
from edge_mil.service.interceptor import EntryInterceptor
from edge_mil.service.limits import IDLE_CONNECTION_S, MAX_BYTES_UNDER_WAY, MAX_CONNECTIONS
from edge_mil.service.models.preparation import (
    AUTO,
    CPU,
    FITTING,
    TENSORRT,
    Preparations,
    RunnerRequest,
    choose_backend,
    engines_of,
)
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.service.models.servicer import ModelServicer
from edge_mil.service.sessions.field_worker import FieldWorker
from edge_mil.service.sessions.registry import SessionRegistry
from edge_mil.service.sessions.servicer import SessionServicer
from edge_mil.service.systemd import Supervisor
from edge_mil.service.views.servicer import ViewServicer
from edge_mil.session import SessionFolder
from edge_mil.store import StateClaim, session_committer
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

LOG = logging.getLogger("edge_mil.service")

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_CHUNK_BYTES + 4096),
    ("grpc.max_metadata_size", 16 << 10),
    # Two servers on one port would silently share its connections.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_connection_idle_ms", int(IDLE_CONNECTION_S * 1000)),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
"""Why each: `docs/design/serving-and-durability.md`, "Options of gRPC"."""

CHOSEN = (AUTO, FITTING)
"""Precisions that the device chooses."""

DECODERS = 2
"""Threads: one falls behind a camera of 30 fps (`docs/design/serving-and-durability.md`, "What
a frame costs")."""
STOP_GRACE_S = 5.0
SWITCH_INTERVAL_S = 0.0005
"""Python's 5 ms let one thread of pure Python hold the loop for 16 ms
(`docs/design/serving-and-durability.md`, "Threads beside the event loop")."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Options of `edge-mil serve`.

    Attributes:
        bundles: Folders or `.milb` files.
        state: Where sessions are kept.
        listen: `unix:PATH` or `HOST:PORT`.
        precision: fp32, fp16 (TensorRT only), int8, auto: what `tune` keeps on this device, or
            fitting: see `RunnerRequest.precision`.
        threads: Threads of one run of a network; None takes as many as there are cores.
        backend: cpu, tensorrt, or auto: TensorRT where a GPU and the library are there.
        require_passport: Refuse sessions whose camera is not verified.
    """

    bundles: tuple[Path, ...]
    state: Path
    listen: str = DEFAULT_ADDRESS
    precision: str = "fp32"
    threads: int | None = None
    backend: str = CPU
    require_passport: bool = False

    @property
    def engines(self) -> Path:
        """Where TensorRT's engines are kept."""
        return engines_of(self.state)


def run_server(settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: What to serve, and where.
        announce: Called with one line when the port is open, and when a bundle is ready.

    Raises:
        ListenError: The address cannot be opened.
        BundleError: A bundle cannot be read or run.
        EngineError: Engines cannot be kept in the state directory.
        DependencyError: TensorRT is asked for, and not installed.
        StoreError: The state directory is another service's, or cannot be written.
    """
    claim = StateClaim(settings.state, f"edge-mil serve at {settings.listen}")
    try:
        _run(settings, announce)
    finally:
        claim.release()


def _run(settings: ServerSettings, announce: Callable[[str], None]) -> None:
    named = settings.backend
    if not (named == AUTO and settings.precision in CHOSEN):
        settings = dataclasses.replace(settings, backend=choose_backend(named))
    if named == TENSORRT:
        # Where it was not named, the CPU goes on, and ListModels says why.
        from edge_mil.backends.tensorrt.engines.cache import EngineCache

        EngineCache(settings.engines)
    tune_allocator()
    raise_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    asyncio.run(_Server(settings, announce).run())


class _Server:
    """One run of the service, from its settings to its end."""

    def __init__(self, settings: ServerSettings, announce: Callable[[str], None]) -> None:
        self._settings, self._announce = settings, announce
        self._bundles = BundleRegistry(settings.bundles, self._load)
        self._preparations = Preparations(settings.state, announce)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined] # made at import
        self._supervisor = Supervisor.from_environment()

    def _load(self, bundle: Bundle) -> Model:
        # A bundle runs on the CPU, in FP32, until the runner that was asked for is ready.
        asked, threads = self._settings.precision, self._settings.threads
        at_once = self._settings.backend == CPU and asked not in CHOSEN
        return load_model(bundle, precision=asked if at_once else "fp32", threads=threads)

    async def run(self) -> None:
        """Open the port, load the bundles, wait for a signal, end the streams."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stopping.set)
        address = parse_address(self._settings.listen)
        committer = session_committer()
        folder = SessionFolder(
            self._settings.state, committer, require_passport=self._settings.require_passport
        )
        sessions = SessionRegistry(folder, self._bundles)
        decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        server = grpc.aio.server(
            options=OPTIONS,
            compression=grpc.Compression.NoCompression,
            interceptors=(EntryInterceptor(),),
        )
        await self._add_services(server, sessions, FieldWorker(decoders), stopping)
        try:
            with listening(server, address) as address_text:
                await server.start()
                self._announce(f"listening at {address_text}, sessions in {self._settings.state}")
                await self._serve(server, sessions, stopping)
        finally:
            self._preparations.close()
            decoders.shutdown(wait=True, cancel_futures=True)
            await sessions.release_all()
            committer.close()
            self._bundles.close()

    async def _serve(
        self, server: grpc.aio.Server, sessions: SessionRegistry, stopping: asyncio.Event
    ) -> None:
        loading = asyncio.ensure_future(self._load_bundles(sessions))
        stop_asked = asyncio.ensure_future(stopping.wait())
        # The port is open: clients are answered, and told which bundle is not ready yet.
        self._supervisor.notify(READY="1", STATUS="loading bundles")
        watching = asyncio.ensure_future(self._supervisor.watch(self._bundles.pulse))
        expiring = asyncio.ensure_future(sessions.expiry.run())
        try:
            await asyncio.wait({loading, stop_asked}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                # A bundle that cannot run is a mistake of whoever started the service.
                loading.result()
            await stop_asked
            self._announce("stopping")
        finally:
            self._supervisor.notify(STOPPING="1")
            for task in (loading, stop_asked, watching, expiring):
                task.cancel()
            stopping.set()
            await self._health.enter_graceful_shutdown()
            sessions.end_streams(
                ServiceUnavailableError(
                    "The service is stopping; what was answered is kept, come back for the rest.",
                    retry_after_s=1,
                )
            )
            await server.stop(STOP_GRACE_S)
            with contextlib.suppress(asyncio.CancelledError, EdgeMilError):
                await loading

    async def _load_bundles(self, sessions: SessionRegistry) -> None:
        async def ready(served: ServedBundle) -> None:
            await self._set_health(served.name, serving=True)
            self._announce(f"{served.name} READY ({served.digest[:19]}...)")

        async def opened(served: ServedBundle) -> None:
            await self._set_health(served.name, serving=False)

        await self._bundles.load_all(opened, ready)
        for name in self._services:
            await self._set_health(name, serving=True)
        names = ", ".join(served.name for served in self._bundles.bundles)
        self._supervisor.notify(STATUS=f"serving {names}")
        request = RunnerRequest(self._settings.backend, self._settings.precision)
        if request.backend == TENSORRT or request.precision in CHOSEN:
            for served in self._bundles.bundles:
                if served.ready().extractor is not None:
                    idle = functools.partial(_is_idle, sessions, served)
                    await self._preparations.select_engine(served, request, idle)

    async def _set_health(self, name: str, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def _add_services(
        self,
        server: grpc.aio.Server,
        sessions: SessionRegistry,
        worker: FieldWorker,
        stopping: asyncio.Event,
    ) -> None:
        bundles, calibrations = self._bundles, CalibrationFolder(self._settings.state)
        rpc.add_ModelServiceServicer_to_server(
            ModelServicer(bundles, sessions, self._preparations), server
        )
        budget = ByteBudget(MAX_BYTES_UNDER_WAY)
        rpc.add_SessionServiceServicer_to_server(
            SessionServicer(bundles, sessions, worker, calibrations, budget), server
        )
        rpc.add_ViewServiceServicer_to_server(ViewServicer(sessions, stopping), server)
        rpc.add_CalibrationServiceServicer_to_server(
            CalibrationServicer(calibrations, bundles, budget), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in self._services:
            await self._set_health(name, serving=False)
        reflection.enable_server_reflection(
            (*self._services[1:], health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )

    @property
    def _services(self) -> tuple[str, ...]:
        """Names that the health service answers for; "" is the whole server."""
        return ("", *(s.full_name for s in pb.DESCRIPTOR.services_by_name.values()))


def _is_idle(sessions: SessionRegistry, served: ServedBundle) -> bool:
    return not sessions.uses(served)
