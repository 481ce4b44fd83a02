"""What a service does with hostile clients: the table "Hostile clients" of docs/reliability.md.

Each attack meets a service of its own, a real process. The columns say how the attack was answered,
how long that took, how long another client waited meanwhile for one call, the largest memory of the
service, and the tracebacks in its log. With --checkout the service of another checkout is attacked,
as that of an earlier release.

usage: python tests/benchmarks/hostile_clients.py [--checkout FOLDER] [--only WORD]
       4 minutes on two cores
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import random
import resource
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import grpc
import numpy as np
import repository_path  # noqa: F401 - finds the helpers of the tests
from running_service import ROOT, RunningService, WireStream, open_session, tissue_frames
from small_bundle import write_small_bundle

from edge_mil.rpc.frames import encode_header
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

PATIENCE_S = 20.0
"""How long a client waits before it calls a service stuck."""
FRAME = next(tissue_frames(1))
MB = 1_000_000

Attack = Callable[[grpc.Channel, RunningService], str]


def outcome(call: Callable[[], object]) -> str:
    """Return the status of a call, with its reason; "OK" where it succeeds."""
    try:
        call()
    except grpc.RpcError as error:
        reasons = dict(error.trailing_metadata() or ())
        return " ".join(filter(None, [error.code().name, reasons.get("edge-mil-reason", "")]))
    return "OK"


def counted(outcomes: list[str]) -> str:
    """Return how often each outcome came."""
    found = collections.Counter(outcomes).most_common()
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in found)


def send_at(channel: grpc.Channel, x_um: float) -> str:
    """Send one field at a position; return its answer, or what came instead."""
    stream = WireStream(channel, open_session(channel).session_id)
    header = encode_header(FRAME, 1)
    header.stage_x_um = x_um
    timer = threading.Timer(PATIENCE_S, stream.cancel)
    timer.start()
    try:
        stream.send_bytes(header, FRAME.pixels.tobytes())
        result = stream.result()
        return result.error.reason if result.HasField("error") else pb.Verdict.Name(result.verdict)
    except grpc.RpcError as error:
        return "no answer" if error.code() is grpc.StatusCode.CANCELLED else error.code().name
    finally:
        timer.cancel()
        stream.cancel()


def far_positions(channel: grpc.Channel, _: RunningService) -> str:
    """Fields at 1e18 and at 1e25 µm."""
    return counted([send_at(channel, 1e18), send_at(channel, 1e25)])


def far_heat_map(channel: grpc.Channel, _: RunningService) -> str:
    """Two fields 12 cm apart, and the map of influence."""
    session = open_session(channel).session_id
    stream = WireStream(channel, session)
    for sequence, x_um in ((1, 48.0), (2, 120_000.0)):
        stream.send(dataclasses.replace(FRAME, x_um=x_um, y_um=x_um), sequence)
        stream.result()
    stream.end()
    request = pb.GetHeatmapRequest(session_id=session)
    return outcome(lambda: rpc.ViewServiceStub(channel).GetHeatmap(request, timeout=PATIENCE_S))


def one_large_rectangle(channel: grpc.Channel, _: RunningService) -> str:
    """A tissue outline of one rectangle of 1e9 µm."""
    large = pb.Region(width_um=1e9, height_um=1e9)
    return open_with(channel, tissue=[large])


def many_rectangles(channel: grpc.Channel, _: RunningService) -> str:
    """A tissue outline of 20 000 rectangles, each of 15 x 20 mm."""
    return open_with(channel, tissue=[pb.Region(width_um=15_000, height_um=20_000)] * 20_000)


def endless_area(channel: grpc.Channel, _: RunningService) -> str:
    """An area to read of 1e308 µm."""
    area = pb.Region(x_um=1e308, y_um=1e308, width_um=1e308, height_um=1e308)
    return open_with(channel, stage=pb.StageFrame(area=area))


def open_with(channel: grpc.Channel, **request: object) -> str:
    """Open a session with a request of one's own."""
    message = pb.OpenSessionRequest(optics=pb.Optics(mpp=0.5), **request)
    return outcome(lambda: rpc.SessionServiceStub(channel).OpenSession(message, timeout=PATIENCE_S))


def endless_number(channel: grpc.Channel, _: RunningService) -> str:
    """The thumbnail of field 2^64 - 1."""
    session = open_session(channel).session_id
    request = pb.GetFieldThumbnailRequest(session_id=session, sequence=2**64 - 1)
    return outcome(
        lambda: rpc.ViewServiceStub(channel).GetFieldThumbnail(request, timeout=PATIENCE_S)
    )


def garbage(channel: grpc.Channel, _: RunningService) -> str:
    """2 000 calls with random bytes instead of a message."""
    chance = random.Random(1)
    methods = [
        (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]

    def send() -> str:
        path, takes, gives = chance.choice(methods)
        data = b"\xff" + chance.randbytes(chance.randrange(1, 64))
        kind = ("stream" if takes else "unary") + ("_stream" if gives else "_unary")
        made = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)

        def call() -> None:
            answer = made(iter([data]) if takes else data, timeout=PATIENCE_S)
            if gives:
                list(answer)

        return outcome(call).split(" ")[0]

    return counted([send() for _ in range(2000)])


def scans(channel: grpc.Channel, _: RunningService) -> str:
    """Two JPEGs of 400 scans each, of 12 million pixels."""
    pixels = np.full((3000, 4000, 3), 90, np.uint8)
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    data = data[:-2] + last * (400 - data.count(b"\xff\xda")) + data[-2:]

    def send() -> str:
        stream = WireStream(channel, open_session(channel).session_id)
        header = pb.FieldHeader(
            sequence=1,
            encoding=pb.ENCODING_JPEG,
            width=4000,
            height=3000,
            crc32=zlib.crc32(data),
            stage_x_um=0,
            stage_y_um=0,
        )
        header.total_bytes = len(data)
        stream.put(header=header)
        for at in range(0, len(data), 1 << 20):
            stream.put(chunk=pb.FieldChunk(offset=at, data=data[at : at + (1 << 20)]))
        result = stream.result()
        stream.cancel()
        return result.error.reason if result.HasField("error") else pb.Verdict.Name(result.verdict)

    with ThreadPoolExecutor(2) as clients:
        return counted([future.result() for future in [clients.submit(send) for _ in range(2)]])


def many_streams(channel: grpc.Channel, service: RunningService) -> str:
    """200 sessions that are streamed to, with 1 024 descriptors; then a usual client."""
    pid = service.process.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 1024))
    streams: list[WireStream] = []

    def attach() -> str:
        return outcome(
            lambda: streams.append(WireStream(channel, open_session(channel).session_id))
        )

    found = counted([attach() for _ in range(200)])
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    for stream in streams:
        stream.cancel()
    time.sleep(1)
    after = attach()
    return f"{found}; {descriptors} descriptors, {threads} threads; afterwards {after}"


def idle_calibration(channel: grpc.Channel, _: RunningService) -> str:
    """A client that starts to calibrate and sends nothing; then another one."""
    stub, release = rpc.CalibrationServiceStub(channel), threading.Event()

    def idle() -> Iterator[pb.CalibrateRequest]:
        yield start("idle")
        release.wait(60)

    def start(name: str) -> pb.CalibrateRequest:
        optics = pb.Optics(calibration_id=name)
        kind = pb.CALIBRATION_KIND_FLAT_FIELD
        return pb.CalibrateRequest(start=pb.CalibrateStart(kind=kind, optics=optics))

    call = stub.Calibrate.future(idle())
    time.sleep(0.5)
    # Without a frame it is refused for that reason, once it has its turn.
    found = outcome(lambda: stub.Calibrate(iter([start("other")]), timeout=PATIENCE_S))
    release.set()
    call.cancel()
    return found


def half_a_field(channel: grpc.Channel, _: RunningService) -> str:
    """A field of which half is sent, and then nothing."""
    stream = WireStream(channel, open_session(channel).session_id)
    stream.put(header=encode_header(FRAME, 1))
    stream.put(chunk=pb.FieldChunk(data=FRAME.pixels.tobytes()[:1000]))
    timer = threading.Timer(PATIENCE_S, stream.cancel)
    timer.start()
    found = outcome(stream.next)
    timer.cancel()
    return found.replace("CANCELLED", "held for ever")


def races(channel: grpc.Channel, _: RunningService) -> str:
    """400 streams to 80 sessions, while idle ones leave and the bundle is unloaded and loaded."""
    sessions = [open_session(channel).session_id for _ in range(80)]
    models, ended = rpc.ModelServiceStub(channel), threading.Event()

    def unload() -> None:
        while not ended.is_set():
            outcome(lambda: models.UnloadModel(pb.UnloadModelRequest(), timeout=PATIENCE_S))
            outcome(lambda: list(models.LoadModel(pb.LoadModelRequest(), timeout=PATIENCE_S)))

    def use(number: int) -> str:
        stream = WireStream(channel)
        stream.put(start=pb.StreamStart(session_id=sessions[number % len(sessions)]))
        found = outcome(stream.next)
        if found == "OK":
            stream.send(dataclasses.replace(FRAME, x_um=100.0 * number, y_um=0.0), number + 1)
            found = outcome(stream.next)
        if found == "OK":
            found = outcome(stream.end)
        stream.cancel()
        return found

    with ThreadPoolExecutor(17) as clients:
        clients.submit(unload)
        found = list(clients.map(use, range(400)))
        ended.set()
    return counted(found)


def long_names(channel: grpc.Channel, _: RunningService) -> str:
    """A label with an escape sequence, and a bundle's name of 100 kB."""
    escape = open_with(channel, slide_label="\x1b]0;owned\x07\x1b[2J")
    session = rpc.SessionServiceStub(channel)
    name = pb.OpenSessionRequest(optics=pb.Optics(mpp=0.5), bundle_digest="x" * 100_000)
    load = pb.LoadModelRequest(bundle_id="x" * 100_000)
    return counted(
        [
            escape,
            outcome(lambda: session.OpenSession(name, timeout=PATIENCE_S)),
            outcome(lambda: list(rpc.ModelServiceStub(channel).LoadModel(load, timeout=5))),
        ]
    )


ATTACKS: tuple[Attack, ...] = (
    far_positions,
    far_heat_map,
    one_large_rectangle,
    many_rectangles,
    endless_area,
    endless_number,
    garbage,
    scans,
    many_streams,
    idle_calibration,
    half_a_field,
    races,
    long_names,
)


@contextlib.contextmanager
def usual_client(service: RunningService) -> Iterator[Callable[[], float]]:
    """Open a session every tenth of a second; give the longest wait so far, seconds."""
    ended, waits = threading.Event(), [0.0]

    def work() -> None:
        with service.channel as channel:
            while not ended.is_set():
                began = time.monotonic()
                open_with(channel, request_id="usual")
                waits[0] = max(waits[0], time.monotonic() - began)
                ended.wait(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: waits[0]
    finally:
        ended.set()
        thread.join()


def run(attack: Attack, bundle: Path, folder: Path, checkout: Path) -> str:
    """Return one row of the table."""
    service = RunningService(bundle, folder, checkout=checkout)
    status = Path(f"/proc/{service.process.pid}/status")
    try:
        with service.channel as channel, usual_client(service) as longest_wait:
            began = time.monotonic()
            found = attack(channel, service)
            took = time.monotonic() - began
        (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        tracebacks = sum("Traceback" in line for line in service.all_lines())
        return (
            f"| {attack.__doc__} | {found} | {took:.1f} | {longest_wait():.2f} "
            f"| {int(peak.split()[1]) * 1024 / MB:.0f} | {tracebacks} |"
        )
    finally:
        service.kill()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose service is attacked")
    parser.add_argument("--only", default="", help="attacks whose name holds this word")
    options = parser.parse_args()
    print("| attack | answer | s | longest wait of another client, s | memory, MB | tracebacks |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small_bundle(Path(folder) / "small").path
        for attack in ATTACKS:
            if options.only in attack.__name__:
                state = Path(folder) / attack.__name__
                state.mkdir()
                print(run(attack, bundle, state, options.checkout.resolve()), flush=True)


if __name__ == "__main__":
    main()
