"""The session's file: durable when acknowledged, private, one owner, readable beside it."""

from __future__ import annotations

import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edge_mil.errors import DamagedStoreError, StoreError
from edge_mil.store import (
    Change,
    FieldRow,
    InstanceKind,
    InstanceRow,
    PartRow,
    SessionFile,
    SessionReader,
)


def row(sequence: int, answer: bytes = b"answer") -> FieldRow:
    return FieldRow(sequence, 1, 7, "{}", answer, b"state")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.db")
    instance = InstanceRow("1:2", 1, InstanceKind.HELD, (1,), "", b"\0\0\0\0", b"")
    part = PartRow("3:4", 1, (0, 5, 2, 1), b"abcdef")
    change = Change(
        field=row(1), instances=(instance,), parts=(part,), thumbnail=b"jpeg", meta={"a": "b"}
    )
    file.append(change).result()
    assert file.instances(1) == [instance]
    assert file.parts() == [part]
    assert (file.thumbnail(1), file.thumbnail(2)) == (b"jpeg", None)
    assert (file.answer(1), file.answer(2)) == (b"answer", None)
    assert list(file.states()) == [(1, b"state")]
    file.append(Change(finished_keys=("3:4",), removed=1, event=("remove", "{}"))).result()
    assert file.parts() == []
    assert list(file.states()) == []
    assert file.fields()[0].removed
    assert file.events()[0][1:] == ("remove", "{}")
    file.close()
    assert SessionReader(tmp_path / "session.db").meta() == {"a": "b"}


def test_a_change_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.db")
    file.append(Change(field=row(1))).result()
    twice = file.append(Change(field=row(1), meta={"half": "written"}))
    with pytest.raises(StoreError, match="cannot be written"):
        twice.result()
    assert file.meta() == {}
    with pytest.raises(StoreError):  # what is in memory may differ now: the file is done
        file.append(Change(field=row(2))).result()
    file.close()


def test_the_file_is_private_and_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "s" / "session.db"
    file = SessionFile(path)
    file.append(Change(meta={"a": "b"})).result()
    for name in ("session.db", "session.db-wal", "session.db-shm"):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(StoreError, match="open in another process"):
        SessionFile(path)
    assert SessionReader(path).meta() == {"a": "b"}
    file.close()
    SessionFile(path).close()


def test_a_file_of_a_newer_edge_mil_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.db"
    SessionFile(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer edge_mil"):
        SessionFile(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DamagedStoreError, match="is not a database"):
        SessionFile(path)


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from edge_mil.store import Change, FieldRow, SessionFile
        file = SessionFile(sys.argv[1])
        first = max((f.sequence for f in file.fields()), default=0) + 1
        for sequence in range(first, first + 100_000):
            file.append(Change(field=FieldRow(sequence, 1, 0, "{}", bytes(20_000), None))).result()
            print(sequence, flush=True)
        """
    )
    path, random_ = tmp_path / "session.db", random.Random(0)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random_.uniform(0.05, 0.4))
        child.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in child.stdout.read().split("\n") if line]
        child.wait()
        child.stdout.close()
        file = SessionFile(path)
        stored = [f.sequence for f in file.fields()]
        assert stored == list(range(1, len(stored) + 1))
        assert not acknowledged or acknowledged[-1] <= stored[-1]
        file.close()
