"""Calls with hostile messages against a real service, counted by call, kind and status."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import random
import threading
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hostile_messages import KINDS, METHODS, HostileMessages
from running_service import open_session, tissue_frames

from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import REASON_KEY
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

UNFORESEEN = ("INTERNAL", "UNKNOWN", "hang")
CALL_S = 60.0
"""After so long a call counts as one that hangs."""
WATCH_S = 0.05
"""A watcher that was admitted is left after so long."""
FRAME = next(tissue_frames(1))
PIXELS = FRAME.pixels.tobytes()
MAX_MESSAGES = 6
NEW_SESSION_EVERY = 500
"""Calls to one session at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One call.

    Attributes:
        method: Name of the method.
        kind: How its messages were made, one of KINDS.
        status: Name of the status that it ended with, "hang" where it did not.
        reason: The service's own reason; "" where there is none.
        sent: What was sent.
    """

    method: str
    kind: str
    status: str
    reason: str
    sent: tuple[bytes, ...]


class HostileCalls:
    """Makes calls of all methods in turn; one of several threads with a seed of its own."""

    def __init__(self, channel: grpc.Channel, seed: int) -> None:
        self._channel, self._seed = channel, seed
        self._chance = random.Random(seed)
        self._made = 0
        self._renew()

    def next(self) -> Case:
        """Make one call and return how it ended."""
        if self._made and self._made % NEW_SESSION_EVERY == 0:
            self._renew()
        method = METHODS[self._made % len(METHODS)]
        kind = KINDS[self._made // len(METHODS) % len(KINDS)]
        self._made += 1
        if method.client_streaming:
            sent = tuple(self._stream(method, kind))
        else:
            sent = (self._messages.data(kind, self._usual(method)),)
        case = self._call(method, kind, sent)
        if method.name == "UnloadModel" and case.status == "OK":
            self._load()
        if method.name == "CloseSession" and case.status == "OK":
            self._renew()  # a closed session takes no fields
        return case

    def _renew(self) -> None:
        while True:
            self._load()
            # Another client may unload the bundle again in between.
            with contextlib.suppress(grpc.RpcError):
                self._session = open_session(self._channel).session_id
                break
        self._messages = HostileMessages(self._seed * 7919 + self._made, [self._session] * 12)

    def _load(self) -> None:
        """Load the bundle again, which a call may have unloaded."""
        loading = rpc.ModelServiceStub(self._channel).LoadModel(pb.LoadModelRequest())
        with contextlib.suppress(grpc.RpcError):
            list(loading)

    def _usual(self, method: MethodDescriptor) -> Message:
        """Return a message that means something: the smallest that its method answers."""
        made: Any = getattr(pb, method.input_type.name)()
        if "session_id" in method.input_type.fields_by_name:
            made.session_id = self._session
        if method.name == "OpenSession":
            made.optics.mpp = 0.5
            made.stage.unit = "um"
            made.tissue.add(x_um=0, y_um=0, width_um=500, height_um=500)
        # Loading another runner takes seconds, and unloading ends what other calls are about.
        if method.name in ("LoadModel", "UnloadModel"):
            made.bundle_id = "none of these"
        return made  # type: ignore[no-any-return]

    def _stream(self, method: MethodDescriptor, kind: str) -> list[bytes]:
        """Return the messages of a stream: usual ones, of which one or more are hostile."""
        header = encode_header(FRAME, self._chance.choice((1, 2, self._chance.getrandbits(40))))
        if method.name == "StreamFields":
            start = pb.StreamFieldsRequest(
                start=pb.StreamStart(session_id=self._session, takeover=True)
            )
            make: Any = pb.StreamFieldsRequest
        else:
            start = pb.CalibrateRequest(
                start=pb.CalibrateStart(
                    kind=pb.CALIBRATION_KIND_WHITE_BALANCE,
                    optics=pb.Optics(calibration_id=f"fuzz-{self._seed}"),
                )
            )
            make = pb.CalibrateRequest
        header.crc32 = zlib.crc32(PIXELS)
        usual = [start, make(header=header), make(chunk=pb.FieldChunk(data=PIXELS))]
        usual += [make(header=header)] * self._chance.choice((0, 0, 1))
        hostile = self._chance.randrange(len(usual))
        return [
            self._messages.data(kind, message) if at == hostile else message.SerializeToString()
            for at, message in enumerate(usual)
        ]

    def _call(self, method: MethodDescriptor, kind: str, sent: tuple[bytes, ...]) -> Case:
        takes, gives = method.client_streaming, method.server_streaming
        kind_of_call = ("stream" if takes else "unary") + ("_stream" if gives else "_unary")
        made = getattr(self._channel, kind_of_call)(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=None,
            response_deserializer=None,
        )
        reason = ""
        try:
            answer = made(iter(sent) if takes else sent[0], timeout=CALL_S)
            status = self._read(method, answer) if gives else "OK"
        except grpc.RpcError as error:
            status = error.code().name
            reason = str(dict(error.trailing_metadata() or ()).get(REASON_KEY, ""))
        return Case(method.name, kind, "hang" if status == "DEADLINE_EXCEEDED" else status,
                    reason, sent)  # fmt: skip

    def _read(self, method: MethodDescriptor, answer: Any) -> str:
        timer = None
        if method.name == "WatchScore":
            timer = threading.Timer(WATCH_S, answer.cancel)
            timer.start()
        try:
            for data in answer:
                if method.name == "StreamFields":
                    result = pb.StreamFieldsResponse.FromString(data).result
                    if result.error.reason == "INTERNAL":
                        return "INTERNAL"
        except grpc.RpcError as error:
            if timer is None or error.code() is not grpc.StatusCode.CANCELLED:
                raise
        finally:
            if timer is not None:
                timer.cancel()
        return "OK"


@dataclasses.dataclass(slots=True)
class Tally:
    """How often each status came, by method and kind.

    Attributes:
        counts: (method, kind, status) -> how often.
        unforeseen: The first cases of UNFORESEEN.
    """

    counts: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=collections.Counter)
    unforeseen: list[Case] = dataclasses.field(default_factory=list)

    def add(self, case: Case) -> None:
        """Count one case."""
        self.counts[case.method, case.kind, case.status] += 1
        if case.status in UNFORESEEN and len(self.unforeseen) < 10:
            self.unforeseen.append(case)

    def rows(self) -> list[str]:
        """Return a row of a table for each method: its cases of each kind, and its statuses."""
        found = []
        for method in sorted({method for method, _, _ in self.counts}):
            of = {key: n for key, n in self.counts.items() if key[0] == method}
            kinds = [str(sum(n for (_, k, _), n in of.items() if k == kind)) for kind in KINDS]
            statuses: Counter[str] = collections.Counter()
            for (_, _, status), n in of.items():
                statuses[status] += n
            bad = [str(statuses[name]) for name in UNFORESEEN]
            good = ", ".join(f"{n} {s}" for s, n in statuses.most_common() if s not in UNFORESEEN)
            found.append(f"| {method} | {' | '.join(kinds)} | {' | '.join(bad)} | {good} |")
        return found


def peak_memory_mb(pid: int) -> float:
    """Return the largest memory that a process had so far, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6
