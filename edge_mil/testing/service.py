"""A service for tests of client programs: real gRPC, in this process, with no model and no device.

It speaks all of `edge_mil.v1` and keeps its promises: answers in order and one for each number, a
resent number answered as before, credits, one writer, sessions that outlive a restart. What it says
of a field is a rule that a test gives, and the score is a function that a test can compute itself.
It needs grpcio, protobuf and numpy only::

    with FakeService() as service, edge_mil.Client(service.address) as client:
        session = client.open_session(mpp=0.5)
        session.send_frames(frames)
        service.drop_streams()  # as if the network had failed
        service.fail("GetScore", ServiceUnavailableError("Not now."))
"""

from __future__ import annotations

import collections
import hashlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc

from edge_mil.errors import EdgeMilError
from edge_mil.rpc.frames import MAX_CHUNK_BYTES
from edge_mil.testing.service_calls import FakeCalibrations, FakeModels, FakeSessions
from edge_mil.testing.service_rules import CLASSES, FakeRules, mean_darkness
from edge_mil.testing.service_session import FakeSession
from edge_mil.testing.service_stream import LinkLostError
from edge_mil.testing.service_views import FakeViews
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

__all__ = ["CLASSES", "FakeRules", "FakeService", "mean_darkness"]

THREADS = 32
"""Calls at once; each stream of fields and each watcher holds one."""
STOP_S = 5.0

DEFAULT_RULES = FakeRules()


class FakeService:
    """A service whose answers a test scripts; use it in a `with` block, or `start` and `stop` it.

    Attributes:
        address: Where it listens, as a client takes it; known once it was started.
        model: Its one bundle, which is always ready.
        credits: Fields that a stream may have under way.
        sessions: Session id -> session, oldest first; they stay when the service is stopped.
        calibrations: Name -> calibration.
        changed: Lock of all of it; notified after each change.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        rules: FakeRules = DEFAULT_RULES,
        bundle: str = "fake",
        mpp: float = 0.5,
        credits: int = 3,
    ) -> None:
        """Name what to answer; nothing listens yet.

        Args:
            address: HOST:PORT, port 0 for a free one, or unix:PATH.
            rules: Verdict, score and error of fields.
            bundle: Name of the one bundle.
            mpp: Pixel size that the bundle was trained at, um/px.
            credits: Fields that a stream may have under way.
        """
        self.address, self.credits = address, credits
        self.model = pb.ModelInfo(
            bundle_id=bundle,
            bundle_digest="sha256:" + hashlib.sha256(bundle.encode()).hexdigest(),
            title=bundle,
            class_names=CLASSES,
            expected_mpp=mpp,
            state="READY",
            instances=pb.INSTANCE_KIND_FIELD,
            task=pb.TASK_KIND_CLASSIFICATION,
        )
        self.sessions: dict[str, FakeSession] = {}
        self.calibrations: dict[str, pb.Calibration] = {}
        self.changed = threading.Condition(threading.RLock())
        self.instance_id = ""
        self._rules = rules
        self._scripted: dict[str, collections.deque[EdgeMilError]] = {}
        self._server: grpc.Server | None = None
        self._threads: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Listen; after `stop` again at the same address, with the same sessions."""
        self._threads = ThreadPoolExecutor(THREADS)
        options = [
            ("grpc.max_receive_message_length", MAX_CHUNK_BYTES + 4096),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(self._threads, options=options)
        rpc.add_ModelServiceServicer_to_server(FakeModels(self), self._server)
        rpc.add_SessionServiceServicer_to_server(FakeSessions(self), self._server)
        rpc.add_ViewServiceServicer_to_server(FakeViews(self), self._server)
        rpc.add_CalibrationServiceServicer_to_server(FakeCalibrations(self), self._server)
        port = self._server.add_insecure_port(self.address)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        self.instance_id = uuid.uuid4().hex
        self._server.start()

    def stop(self) -> None:
        """End the service at once, as a power cut does; streams break."""
        if self._server is not None and self._threads is not None:
            self._server.stop(None).wait(STOP_S)
            self._threads.shutdown()
            self._server = None

    def fail(self, method: str, error: EdgeMilError, times: int = 1) -> None:
        """Answer the next calls of a method with an error.

        Args:
            method: Name of the rpc, as "OpenSession".
            error: What the service raises; its status and reason are those of `edge_mil.errors`.
            times: How many calls.
        """
        with self.changed:
            self._scripted.setdefault(method, collections.deque()).extend([error] * times)

    def drop_streams(self) -> None:
        """Break every stream of fields as a failing network does."""
        with self.changed:
            for session in self.sessions.values():
                if session.stream is not None:
                    session.stream.put(LinkLostError())

    def raise_scripted(self, method: str) -> None:
        """Raise the next error that `fail` scripted for a method, if there is one."""
        with self.changed:
            waiting = self._scripted.get(method)
            if waiting:
                raise waiting.popleft()

    def new_session(self, request: pb.OpenSessionRequest) -> FakeSession:
        """Make a session and keep it."""
        session = FakeSession(uuid.uuid4().hex, request, self.model, self._rules)
        self.sessions[session.session_id] = session
        return session

    def __enter__(self) -> FakeService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
