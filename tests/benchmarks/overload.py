"""A service that gets more than it can take: the table "Overload" of docs/reliability.md.

Eight clients send fields as fast as their credits allow, twenty watchers never read, a thousand
streams are opened at once, again and again, and ten clients send a byte a second. The rows say, for
each part of the time, how many fields were answered and how late, how evenly the sessions were
served, and what the service held. The last lines give the slope of its memory.

usage: python tests/benchmarks/overload.py [--minutes 10] [--side 1024]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import repository_path  # noqa: F401 - finds the helpers of the tests
from running_service import RunningService, WireStream, open_session
from small_bundle import write_small_bundle

from edge_mil.rpc.frames import encode_header
from edge_mil.rpc.status import RETRY_KEY
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

SESSIONS, WATCHERS, STREAMS, SLOW = 8, 20, 1000, 10
PARTS = 10
MPP = 0.5
FIELDS_A_ROW = 40


@dataclass(slots=True)
class Log:
    """What the clients saw; shared by their threads.

    Attributes:
        answers: (when, session, seconds from the header to the answer) of each field.
        refused: (when, status) of each stream that was refused.
    """

    answers: list[tuple[float, int, float]] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)


def send_fields(service: RunningService, session: int, side: int, ends: float, log: Log) -> None:
    """Send fields side by side until the time is over, three of them under way."""
    # Squares of noise: their JPEGs are as large as those of tissue; bare noise has larger ones.
    coarse = np.random.default_rng(session).integers(0, 200, (side // 4, side // 4, 3), np.uint8)
    pixels = coarse.repeat(4, axis=0).repeat(4, axis=1)
    with service.channel as channel:
        stream = attached(channel, ends)
        began: dict[int, float] = {}
        number, limit = 0, stream.ready.header_limit
        while time.monotonic() < ends:
            while number < limit:
                number += 1
                row, column = divmod(number, FIELDS_A_ROW)
                step = side * MPP
                began[number] = time.monotonic()
                stream.send(Frame(pixels, (column + 0.5) * step, (row + 0.5) * step), number)
            response = stream.next()
            limit = response.header_limit
            now, sequence = time.monotonic(), response.result.sequence
            log.answers.append((now, session, now - began.pop(sequence)))
        stream.cancel()


def attached(channel: grpc.Channel, ends: float) -> WireStream:
    """Open a session and a stream, as often as the service asks to come again."""
    while True:
        try:
            return WireStream(channel, open_session(channel).session_id)
        except grpc.RpcError as error:
            told = dict(error.trailing_metadata() or ())
            if RETRY_KEY not in told or time.monotonic() > ends:
                raise
            time.sleep(int(told[RETRY_KEY]) / 1000)


def never_read(service: RunningService, ends: float) -> None:
    """Watch a session that is streamed to, and read nothing."""
    with service.channel as channel:
        session = open_session(channel).session_id
        request = pb.WatchScoreRequest(session_id=session)
        call = rpc.ViewServiceStub(channel).WatchScore(request)
        time.sleep(max(0.0, ends - time.monotonic()))
        call.cancel()


def open_streams(service: RunningService, ends: float, log: Log) -> None:
    """Open a thousand streams that say nothing, again and again."""
    with service.channel as channel:
        while time.monotonic() < ends:
            stub, silent = rpc.SessionServiceStub(channel), threading.Event()
            calls = [stub.StreamFields(_silence(silent)) for _ in range(STREAMS)]
            time.sleep(5)
            for call in calls:
                if call.done():
                    log.refused.append((time.monotonic(), call.code().name))
                call.cancel()
            silent.set()


def _silence(end: threading.Event):  # type: ignore[no-untyped-def] # an iterator of no message
    end.wait(60)
    yield from ()


def byte_a_second(service: RunningService, ends: float, log: Log) -> None:
    """Send a field a byte a second; when the service ends the stream, come again."""
    frame = Frame(np.zeros((64, 64, 3), np.uint8), 0.0, 0.0)
    data = frame.pixels.tobytes()
    while time.monotonic() < ends:
        with service.channel as channel, contextlib.suppress(grpc.RpcError):
            stream = WireStream(channel, open_session(channel).session_id)
            stream.put(header=encode_header(frame, 1))
            for at in range(len(data)):
                stream.put(chunk=pb.FieldChunk(offset=at, data=data[at : at + 1]))
                time.sleep(1)
                if stream.call.done() or time.monotonic() >= ends:
                    break
            if stream.call.done():
                log.refused.append((time.monotonic(), stream.call.code().name))
            stream.cancel()


def resident_mb(pid: int) -> float:
    """Return the memory that a process has now, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def slope(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of memory, MB a minute, and its standard error, of the second half.

    A session keeps the images of its newest 256 key frames in memory: until then it grows.
    """
    late = np.array(samples[len(samples) // 2 :])
    minutes, memory = late[:, 0] / 60, late[:, 1]
    (rate, level), covariance = np.polyfit(minutes, memory, 1, cov=True)
    del level
    return float(rate), float(np.sqrt(covariance[0, 0]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--side", type=int, default=256, help="of a field, px")
    options = parser.parse_args()
    log, samples = Log(), []
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small_bundle(Path(folder) / "small").path
        service = RunningService(bundle, Path(folder))
        pid, start = service.process.pid, time.monotonic()
        ends = start + options.minutes * 60
        threads = [
            *(
                threading.Thread(target=send_fields, args=(service, n, options.side, ends, log))
                for n in range(SESSIONS)
            ),
            *(threading.Thread(target=never_read, args=(service, ends)) for _ in range(WATCHERS)),
            *(
                threading.Thread(target=byte_a_second, args=(service, ends, log))
                for _ in range(SLOW)
            ),
            threading.Thread(target=open_streams, args=(service, ends, log)),
        ]
        for thread in threads:
            thread.start()
        print("| minutes | fields/s | p50, s | p99, s | fields by session | refused | MB | files |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        part_s, part_began = options.minutes * 60 / PARTS, start
        for part in range(PARTS):
            while time.monotonic() < start + (part + 1) * part_s:
                samples.append((time.monotonic() - start, resident_mb(pid)))
                time.sleep(min(1.0, part_s / 5))
            now = time.monotonic()
            print(row(log, part_began, now, start, pid), flush=True)
            part_began = now
        for thread in threads:
            thread.join()
        tracebacks = sum("Traceback" in line for line in service.all_lines())
        code = service.stop()
    rate, error = slope(samples)
    print(f"\nmemory: {rate:+.2f} MB a minute (standard error {error:.2f}) in the second half of "
          f"the time; {tracebacks} tracebacks, exit code {code}")  # fmt: skip


def row(log: Log, begins: float, now: float, start: float, pid: int) -> str:
    """Return one row of the table."""
    answers = [entry for entry in list(log.answers) if begins <= entry[0] < now]
    refused = collections.Counter(name for when, name in list(log.refused) if begins <= when < now)
    waits = np.array([wait for _, _, wait in answers] or [np.nan])
    counts = collections.Counter(session for _, session, _ in answers)
    by_session = [counts[session] for session in range(SESSIONS)]
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return (
        f"| {(begins - start) / 60:.1f} to {(now - start) / 60:.1f} "
        f"| {len(answers) / (now - begins):.1f} | {np.percentile(waits, 50):.2f} "
        f"| {np.percentile(waits, 99):.2f} | {min(by_session)} to {max(by_session)} "
        f"| {', '.join(f'{n} {name}' for name, n in refused.most_common()) or '0'} "
        f"| {resident_mb(pid):.0f} | {files} |"
    )


if __name__ == "__main__":
    main()
