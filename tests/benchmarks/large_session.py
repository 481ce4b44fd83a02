"""Measure a session of many fields and a state directory of many sessions.

Prints how long a session of `--fields` fields takes to be recovered, to answer each view and to be
closed, through the service's own calls; and how long OpenSession and ListSessions take beside
`--sessions` sessions on the disk. Fields are noise of 128 x 128 px side by side, four cells each.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import repository_path  # noqa: F401 - finds the helpers below
from running_service import RunningService, open_session
from small_bundle import write_small_bundle

from edge_mil.bundle import Bundle
from edge_mil.pipeline import load_model
from edge_mil.session import SessionFolder, SessionSettings
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

SIDE_PX, MPP, COLUMNS = 128, 0.5, 100
GOAL_S = {"recovery": 2.0, "view": 0.5, "close": 2.0, "open": 0.2}
"""The goals of the release, seconds."""


def fields(count: int) -> Iterator[Frame]:
    """Yield fields of dark noise, side by side."""
    rng = np.random.default_rng(0)
    step = SIDE_PX * MPP
    for at in range(count):
        pixels = rng.integers(0, 200, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        column, row = at % COLUMNS, at // COLUMNS
        yield Frame(pixels, x_um=(column + 0.5) * step, y_um=(row + 0.5) * step)


def write_session(bundle: Bundle, state: Path, count: int) -> str:
    """Write one session of `count` fields; return its id."""
    model = load_model(bundle, threads=1)
    session = SessionFolder(state).create(model, SessionSettings(mpp=MPP))
    last = None
    for sequence, frame in enumerate(fields(count), start=1):
        last = session.submit(sequence, frame, payload_crc=sequence)[1]
    if last is not None:
        last.result()
    session.release()
    model.close()
    return session.session_id


def write_many(bundle: Bundle, state: Path, count: int) -> None:
    """Write `count` sessions without fields."""
    model = load_model(bundle, threads=1)
    folder = SessionFolder(state)
    for at in range(count):
        folder.create(model, SessionSettings(mpp=MPP, request_id=f"request-{at}")).release()
    model.close()


def timed(name: str, goal: str, call: Callable[[], object], runs: int = 3) -> None:
    """Print the first and the median time of a call."""
    seconds, said = [], ""
    for _ in range(runs):
        began = time.perf_counter()
        try:
            call()
        except grpc.RpcError as error:
            said = f" {error.code().name}"
        seconds.append(time.perf_counter() - began)
    limit = GOAL_S[goal]
    verdict = "ok" if max(seconds) <= limit and not said else "MISSED"
    print(
        f"| {name} | {seconds[0]:.3f} | {statistics.median(seconds):.3f} | {limit:g} | "
        f"{verdict}{said} |",
        flush=True,
    )


def measure_session(channel: grpc.Channel, session_id: str, count: int) -> None:
    """Print one line for each call on a large session."""
    sessions, views = rpc.SessionServiceStub(channel), rpc.ViewServiceStub(channel)
    wait = {"timeout": 120.0}
    timed(
        "recovery (GetSession)",
        "recovery",
        lambda: sessions.GetSession(pb.GetSessionRequest(session_id=session_id), **wait),
        runs=1,
    )
    requests: dict[str, tuple[Callable[..., object], object]] = {
        "ListFields, 1 a page": (views.ListFields, pb.ListFieldsRequest(page_size=1)),
        "ListFields, 100 from the middle": (
            views.ListFields,
            pb.ListFieldsRequest(page_size=100, page_token=str(count // 2)),
        ),
        "GetTopFields": (views.GetTopFields, pb.GetTopFieldsRequest()),
        "GetHeatmap": (views.GetHeatmap, pb.GetHeatmapRequest()),
        "GetHeatmap focus": (views.GetHeatmap, pb.GetHeatmapRequest(layer="focus")),
        "GetHeatmap coverage": (views.GetHeatmap, pb.GetHeatmapRequest(layer="coverage")),
        "GetMosaic": (views.GetMosaic, pb.GetMosaicRequest()),
        "GetFieldThumbnail": (
            views.GetFieldThumbnail,
            pb.GetFieldThumbnailRequest(sequence=count // 2),
        ),
        "GetScore": (views.GetScore, pb.GetScoreRequest()),
    }
    for name, (call, request) in requests.items():
        request.session_id = session_id  # type: ignore[attr-defined]
        timed(name, "view", lambda call=call, request=request: call(request, **wait))
    close = pb.CloseSessionRequest(session_id=session_id)
    timed("CloseSession", "close", lambda: sessions.CloseSession(close, **wait), runs=1)


def measure_many(channel: grpc.Channel) -> None:
    """Print one line for each call beside many sessions."""
    stub = rpc.SessionServiceStub(channel)
    timed("OpenSession, the first", "open", lambda: open_session(channel), runs=1)
    numbers = iter(range(100))
    timed(
        "OpenSession with a request id",
        "open",
        lambda: open_session(channel, request_id=f"new-{next(numbers)}"),
    )
    timed(
        "OpenSession with a known request id",
        "open",
        lambda: open_session(channel, request_id="new-0"),
        runs=1,
    )
    page = pb.ListSessionsRequest(page_size=50)
    timed("ListSessions, 50 a page", "open", lambda: stub.ListSessions(page, timeout=60))


def main() -> None:
    """Write the sessions, serve them and print the table."""
    parser = argparse.ArgumentParser(prog="large_session.py", description=__doc__)
    parser.add_argument("--fields", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--sessions", type=int, default=3_000, help="default: %(default)s")
    parser.add_argument(
        "--keep", type=Path, help="a folder to keep the written sessions in, for the next run"
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = arguments.keep or work / "kept"
        name, many = kept / "session_id", kept / "many"
        bundle = write_small_bundle(work / "bundle")
        if not name.is_file():
            kept.mkdir(parents=True, exist_ok=True)
            session_id = write_session(bundle, kept / "large", arguments.fields)
            write_many(bundle, many, arguments.sessions)
            name.write_text(session_id)
        session_id = name.read_text()
        print("| call | first s | median s | goal s | |\n| --- | --- | --- | --- | --- |")
        for part in ("large", "many"):
            folder = work / part
            shutil.copytree(kept / part, folder / "state")
            service = RunningService(bundle.path, folder)
            try:
                with service.channel as channel:
                    if part == "large":
                        measure_session(channel, session_id, arguments.fields)
                    else:
                        print(f"Beside {arguments.sessions} sessions:")
                        measure_many(channel)
            finally:
                service.stop()


if __name__ == "__main__":
    main()
