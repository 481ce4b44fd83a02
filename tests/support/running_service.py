"""A real `edge-mil serve` in its own process, for tests that need the wire."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from edge_mil.rpc.frames import encode_chunks, encode_header
from edge_mil.types import Frame, UInt8Array
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


class RunningService:
    """A service process that tests may kill and start again at the same address."""

    def __init__(
        self, bundle: Path, folder: Path, listen: str = "", *more: str, checkout: Path = ROOT
    ) -> None:
        self.bundle, self.folder, self.more, self.checkout = bundle, folder, more, checkout
        self.listen = listen or f"unix:{folder / 's.sock'}"
        self.lines: list[str] = []
        self.start()

    def start(self, *, ready: bool = True) -> None:
        """Start the process and wait until its bundle is ready, or just listening."""
        self.process, self._said = launch(self._arguments(), self.checkout)
        self._read(self._said, "READY" if ready else "listening at")

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as systemd would: SIGTERM; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)

    def all_lines(self) -> list[str]:
        """Return every line that it wrote so far."""
        while not self._said.empty():
            self.lines.append(self._said.get())
        return self.lines

    @property
    def address(self) -> str:
        """Where it listens, as it says itself."""
        line = next(line for line in self.lines if "listening at" in line)
        return line.split("listening at ")[1].split(",")[0]

    @property
    def channel(self) -> grpc.Channel:
        """A channel to it; the caller closes it."""
        return grpc.insecure_channel(self.address)

    def _arguments(self) -> list[str]:
        state = str(self.folder / "state")
        return ["--bundle", str(self.bundle), "--listen", self.listen, "--state", state, *self.more]

    def _read(self, said: queue.Queue[str], until: str) -> None:
        while True:
            line = said.get(timeout=START_S)
            self.lines.append(line)
            if until in line:
                return
            if not line:
                raise AssertionError(f"the service ended: {self.lines}")


def launch(
    arguments: list[str], checkout: Path = ROOT
) -> tuple[subprocess.Popen[str], queue.Queue[str]]:
    """Start `edge-mil serve` of a checkout; its lines come through a queue, "" is the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mil.cli", "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), *_given_paths()])},
    )
    said: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                said.put(line)
        said.put("")

    threading.Thread(target=read, daemon=True).start()
    return process, said


def _given_paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


class WireStream:
    """StreamFields message by message, for tests that break the rules."""

    def __init__(self, channel: grpc.Channel, session_id: str = "", **start: object) -> None:
        self._requests: queue.Queue[pb.StreamFieldsRequest | None] = queue.Queue()
        self.call = rpc.SessionServiceStub(channel).StreamFields(iter(self._requests.get, None))
        if session_id:
            self.put(start=pb.StreamStart(session_id=session_id, **start))
            self.ready = self.next()

    def put(self, **body: object) -> None:
        """Send one message."""
        self._requests.put(pb.StreamFieldsRequest(**body))

    def send(self, frame: Frame, sequence: int, chunk_bytes: int = 1 << 20) -> None:
        """Send one whole raw field."""
        self.put(header=encode_header(frame, sequence))
        for chunk in encode_chunks(frame.pixels, chunk_bytes):
            self.put(chunk=chunk)

    def send_bytes(self, header: pb.FieldHeader, data: bytes) -> None:
        """Send a field of any encoding in one chunk."""
        header.total_bytes = header.total_bytes or len(data)
        self.put(header=header)
        self.put(chunk=pb.FieldChunk(data=data))

    def next(self) -> pb.StreamFieldsResponse:
        """Return the next message of the service."""
        return next(self.call)

    def result(self) -> pb.FieldResult:
        """Return the next answer."""
        return self.next().result

    def end(self) -> list[pb.StreamFieldsResponse]:
        """End the client's half and return what is still answered."""
        self._requests.put(None)
        return list(self.call)

    def cancel(self) -> None:
        """Break the stream."""
        self.call.cancel()
        self._requests.put(None)


def open_session(channel: grpc.Channel, **request: object) -> pb.Session:
    """Open a session at 0.5 um/px unless told otherwise."""
    request.setdefault("optics", pb.Optics(mpp=0.5))
    opened = rpc.SessionServiceStub(channel).OpenSession(
        pb.OpenSessionRequest(**request), timeout=30
    )
    return opened.session


def tissue_frames(count: int, side: int = 192, seed: int = 0) -> Iterator[Frame]:
    """Yield fields of dark squares of several sizes, side by side in rows of four, at 0.5 um/px."""
    rng = np.random.default_rng(seed)
    step = side * 0.5
    for at in range(count):
        pixels = structured(rng, side)
        yield Frame(pixels, x_um=(at % 4 + 0.5) * step, y_um=(at // 4 + 0.5) * step)


def structured(rng: np.random.Generator, side: int) -> UInt8Array:
    """Return RGB uint8 (side, side, 3), 0 to 200, with structure at several scales, as tissue has.

    Noise of single pixels would be refused: it has no structure.
    """
    whole = np.zeros((side, side, 3))
    for size_px in SQUARES_PX:
        count = -(-side // size_px)
        squares = rng.integers(0, 201, (count, count, 3))
        whole += np.kron(squares, np.ones((size_px, size_px, 1)))[:side, :side] / len(SQUARES_PX)
    return np.rint(whole).astype(np.uint8)


SQUARES_PX = (3, 5, 11)
"""Sides of the squares; none divides 8, the side of JPEG's blocks."""
