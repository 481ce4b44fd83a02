from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from edge_mil.service.systemd import Supervisor

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "edge_mil" / "demo" / "bundle"
PATIENCE_S = 60.0


def manager(folder: Path) -> socket.socket:
    """Return the socket on which systemd would listen."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(folder / "notify"))
    listening.settimeout(PATIENCE_S)
    return listening


def heard(listening: socket.socket, until: str) -> list[str]:
    """Return every line that came, up to the one that is waited for."""
    lines: list[str] = []
    while until not in lines:
        lines += listening.recv(4096).decode().splitlines()
    return lines


def test_the_service_tells_systemd_that_it_is_ready_that_it_moves_and_that_it_stops(
    tmp_path: Path,
) -> None:
    with manager(tmp_path) as listening:
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        command = [sys.executable, "-m", "edge_mil.cli", "serve", "--bundle", str(BUNDLE)]
        command += ["--listen", f"unix:{tmp_path / 's'}", "--state", str(tmp_path / "state")]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as service:
            try:
                assert heard(listening, "READY=1")[0] == "READY=1"
                heard(listening, "STATUS=serving demo-painted-tissue")
                heard(listening, "WATCHDOG=1")
                heard(listening, "WATCHDOG=1")
            finally:
                service.terminate()
            heard(listening, "STOPPING=1")
        assert service.returncode == 0


def test_a_pipeline_that_hangs_or_fails_is_not_said_to_move(tmp_path: Path) -> None:
    async def hangs() -> None:
        await asyncio.sleep(PATIENCE_S)

    async def fails() -> None:
        raise RuntimeError("no accelerator")

    async def watched(supervisor: Supervisor) -> None:
        for probe in (hangs, fails):
            watching = asyncio.ensure_future(supervisor.watch(probe))
            await asyncio.sleep(0.2)
            watching.cancel()

    with manager(tmp_path) as listening:
        asyncio.run(watched(Supervisor(str(tmp_path / "notify"), 0.06)))
        listening.setblocking(False)
        try:
            said = listening.recv(4096)
        except BlockingIOError:
            said = b""
    assert said == b""


def test_without_a_manager_nothing_is_sent_and_nothing_breaks() -> None:
    supervisor = Supervisor.from_environment({})
    supervisor.notify(READY="1")
    asyncio.run(supervisor.watch(lambda: asyncio.sleep(0)))
    assert supervisor == Supervisor("", 0.0)


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    mine = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    assert Supervisor.from_environment(mine).watchdog_s == 3.0
    assert Supervisor.from_environment({**mine, "WATCHDOG_PID": "1"}).watchdog_s == 0.0


def test_an_abstract_socket_is_reached_too() -> None:
    name = f"edge-mil-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(5)
        Supervisor("@" + name).notify(READY="1", STATUS="here")
        assert listening.recv(100) == b"READY=1\nSTATUS=here"
