"""Cuts of the power, from the system calls of a real writer: only what was synced surely survives.

strace notes every write, sync and rename of a process that stores fields. At any moment of that
record a disk may hold what was synced before, and any part of what was written since: whole
writes, single sectors of them, or nothing. Such disks are built and opened.

A name is taken to be on the disk as soon as the call that made it returned; what is lost is the
content of files.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
CALLS = "openat,pwrite64,write,ftruncate,fsync,fdatasync,rename,unlink,mkdir"
LINE = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) += (-?\d+).*<(\d+\.\d+)>$")
PATH = re.compile(r"^\d+<([^>]*)>")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Event:
    """One system call: when it began and ended, its name, and what it was called with."""

    began: float
    ended: float
    name: str
    path: str
    data: bytes = b""
    number: int = 0
    other: str = ""


@dataclass
class Disk:
    """Files as a disk may hold them: what is sure, and what was written since."""

    sure: dict[str, bytes] = field(default_factory=dict)
    pending: dict[str, list[Event]] = field(default_factory=dict)

    def survivor(self, draw: random.Random, share: float) -> dict[str, bytes]:
        """Return the files after a cut; `share` of what is not sure is there, in part or whole."""
        files = {}
        for path in {*self.sure, *self.pending}:
            content = bytearray(self.sure.get(path, b""))
            for event in self.pending.get(path, []):
                if draw.random() < share:
                    _apply(content, event, draw if draw.random() < share else None)
            files[path] = bytes(content)
        return files


def _apply(content: bytearray, event: Event, torn: random.Random | None) -> None:
    """Write to a file; `torn` draws the sectors that reached the disk."""
    if event.name == "ftruncate":
        del content[event.number :]
        content.extend(bytes(event.number - len(content)))
        return
    end = event.number + len(event.data)
    content.extend(bytes(max(0, end - len(content))))
    for at in range(0, len(event.data), SECTOR):
        if torn is None or torn.random() < 0.5:
            part = event.data[at : at + SECTOR]
            content[event.number + at : event.number + at + len(part)] = part


def record(script: str, folder: Path, work: Path, *arguments: str) -> list[Event]:
    """Run a Python script that stores something in `folder`, and return its system calls in order.

    The script prints `ack N` when N is durable.
    """
    trace = work / "trace"
    subprocess.run(
        [
            *(
                "strace",
                "-ff",
                "-ttt",
                "-T",
                "-y",
                "-xx",
                "-s",
                "100000000",
                "-e",
                f"trace={CALLS}",
            ),
            *("-o", str(trace), sys.executable, "-c", script, str(folder), *arguments),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT / "tests" / "support",
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "PATH": "/usr/bin:/bin"},
    )
    events = [
        event for part in work.glob("trace.*") for event in _events(part.read_text(), str(folder))
    ]
    return sorted(events, key=lambda event: event.began)


def _events(text: str, folder: str) -> Iterator[Event]:
    for line in text.splitlines():
        found = LINE.match(line)
        if found is None or int(found[4]) < 0:
            continue
        began, name, arguments = float(found[1]), found[2], found[3]
        times = began, began + float(found[5])
        texts = [bytes.fromhex(part.replace("\\x", "")) for part in TEXT.findall(arguments)]
        at = PATH.match(arguments)
        path = "" if at is None else bytes.fromhex(at[1].replace("\\x", "")).decode()
        if name == "write" and arguments.startswith("1<"):
            yield Event(*times, "ack", "", number=int(texts[0].split()[1]))
        elif name in ("rename", "unlink", "mkdir", "openat"):
            names = [part.decode() for part in texts]
            if names[0].startswith(folder) and (name != "openat" or "O_CREAT" in arguments):
                yield Event(*times, name, names[0], other=names[-1])
        elif path.startswith(folder):
            numbers = [int(part) for part in re.findall(r", (\d+)", arguments)]
            number = numbers[-1] if name in ("pwrite64", "ftruncate") else 0
            yield Event(*times, name, path, texts[0] if texts else b"", number)


def cuts(events: list[Event]) -> Iterator[tuple[Disk, set[int]]]:
    """Yield the disk, and what was acknowledged, after each call that changes one of the two."""
    disk, acknowledged = Disk(), set()
    for event in events:
        if event.name == "ack":
            acknowledged.add(event.number)
        elif event.name in ("pwrite64", "write", "ftruncate"):
            disk.pending.setdefault(event.path, []).append(event)
        elif event.name in ("fsync", "fdatasync"):
            _sync(disk, event)
        elif event.name == "unlink":
            disk.sure.pop(event.path, None)
            disk.pending.pop(event.path, None)
        elif event.name == "rename":
            _rename(disk, event)
        yield disk, set(acknowledged)


def _sync(disk: Disk, event: Event) -> None:
    """Make sure of what had ended when the sync began; what another thread writes may be late."""
    waiting = disk.pending.get(event.path)
    if waiting is None:
        return
    content = bytearray(disk.sure.get(event.path, b""))
    for earlier in [e for e in waiting if e.ended <= event.began]:
        _apply(content, earlier, None)
    disk.sure[event.path] = bytes(content)
    disk.pending[event.path] = [e for e in waiting if e.ended > event.began]


def _rename(disk: Disk, event: Event) -> None:
    for held in (disk.sure, disk.pending):
        for path in [p for p in held if p == event.path or p.startswith(f"{event.path}/")]:
            moved = event.other + path[len(event.path) :]
            held[moved] = held.pop(path)  # type: ignore[attr-defined]


def try_cuts(
    events: list[Event],
    folder: Path,
    count: int,
    check: Callable[[Path, set[int]], str],
    draw: random.Random,
) -> dict[str, int]:
    """Cut the power at many moments; return how often `check` said what.

    Args:
        events: From `record`.
        folder: Where the writer stored; the disks are built there, in its place.
        count: How many disks; spread over all moments.
        check: Says what became of a folder, given what was acknowledged.
        draw: Draws what of the rest survives.
    """
    moments = sum(1 for _ in cuts(events))
    outcomes: dict[str, int] = {}
    for at, (disk, acknowledged) in enumerate(cuts(events)):
        times = count * (at + 1) // moments - count * at // moments
        for number in range(times):
            shutil.rmtree(folder, ignore_errors=True)
            share = (0.0, 0.5, 1.0)[number % 3] if number < 3 else draw.random()
            for path, content in disk.survivor(draw, share).items():
                if not path.endswith("-shm"):
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_bytes(content)
            became = check(folder, acknowledged)
            outcomes[became] = outcomes.get(became, 0) + 1
    shutil.rmtree(folder, ignore_errors=True)
    return outcomes


WRITER = """
import os, sys
from pathlib import Path
from painted_field import MPP, field, painted
from edge_mil.bundle import open_bundle
from edge_mil.pipeline import load_model
from edge_mil.session import SessionFolder, SessionSettings
model = load_model(open_bundle(sys.argv[2]), threads=1)
session = SessionFolder(Path(sys.argv[1])).create(model, SessionSettings(mpp=MPP, request_id="r"))
os.write(1, b"ack 0\\n")
slide = painted(700, 500)
places = [(x, y) for y in (0, 100, 200, 300) for x in range(0, 440, 70)]
for number, (x, y) in enumerate(places[: int(sys.argv[3])], start=1):
    session.add(field(slide, x, y), number)
    os.write(1, b"ack %d\\n" % number)
session.close()
session.release()
"""
"""Stores a session; its fields and its score are the same in every run."""
