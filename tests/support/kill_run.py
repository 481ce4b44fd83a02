"""A real service and a real client that are killed at random moments until all fields are in."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from running_service import RunningService, open_session

from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parents[2]
LONGEST_WAIT_S = 0.5
"""Until a kill, after the start of what is killed."""
PATIENCE_S = 120.0

CLIENT = """
import sys
from running_service import tissue_frames
from edge_mil.client import Client
address, session_id, count, acks = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
with Client(address, connect_timeout_s=60, call_timeout_s=60) as client, open(acks, "a") as log:
    session = client.resume(session_id)
    done = max([session.opened.durable_sequence, *session.opened.durable_beyond], default=0)
    def note(result, frame):
        log.write(f"{result.sequence}\\n"); log.flush()
    frames = list(tissue_frames(count))[done:]
    session.send_frames(frames, note, takeover=True)
"""
"""Sends what the session does not hold yet, and notes each answer that it was given."""


@dataclass
class KillRun:
    """What a run with kills ended with."""

    kills: int
    acknowledged: list[int]
    report: dict[str, Any]
    fields: list[pb.FieldSummary]


def run(bundle: Path, folder: Path, fields: int, kills: int, target: str, seed: int) -> KillRun:
    """Stream fields while `target` (server, client, both or nobody) is killed `kills` times."""
    draw, acks = random.Random(seed), folder / "acks"
    folder.mkdir()
    service = RunningService(bundle, folder)
    try:
        with service.channel as channel:
            session_id = open_session(channel).session_id
        client, killed = _start_client(service, session_id, fields, acks), 0
        until = time.monotonic() + PATIENCE_S
        while client.poll() is None or client.returncode != 0:
            assert time.monotonic() < until, "the run does not end"
            if killed < kills:
                time.sleep(draw.uniform(0.0, LONGEST_WAIT_S))
                if target in ("client", "both"):
                    client.send_signal(signal.SIGKILL)
                    client.wait()
                if target in ("server", "both"):
                    service.kill()
                    service.start()
                killed += 1
            else:
                time.sleep(0.02)
            if client.poll() is not None and client.returncode != 0:
                client = _start_client(service, session_id, fields, acks)
        with grpc.insecure_channel(service.address) as channel:
            report, listed = _end(channel, session_id, fields)
    finally:
        service.stop()
    noted = [int(line) for line in acks.read_text().split()] if acks.is_file() else []
    return KillRun(killed, noted, report, listed)


def _start_client(
    service: RunningService, session_id: str, fields: int, acks: Path
) -> subprocess.Popen[bytes]:
    words = [service.address, session_id, str(fields), str(acks)]
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *words],
        cwd=ROOT / "tests" / "support",
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )


def _end(
    channel: grpc.Channel, session_id: str, fields: int
) -> tuple[dict[str, Any], list[pb.FieldSummary]]:
    listed = rpc.ViewServiceStub(channel).ListFields(
        pb.ListFieldsRequest(session_id=session_id), timeout=60
    )
    closed = rpc.SessionServiceStub(channel).CloseSession(
        pb.CloseSessionRequest(session_id=session_id, expected_fields=fields), timeout=60
    )
    report = json.loads(closed.report_json)
    for name in ("session", "created"):
        del report[name]
    return report, list(listed.fields)
