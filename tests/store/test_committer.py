"""One thread commits for many files: in turn, and a file in trouble keeps no other waiting."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from edge_mil.errors import StoreError
from edge_mil.store import Change, Committer, FieldRow, SessionFile, session_committer

SOON_S = 30.0


@pytest.fixture
def committer() -> Iterator[Committer]:
    made = session_committer()
    yield made
    made.close()


def field(sequence: int) -> Change:
    return Change(field=FieldRow(sequence, 1, 0, "{}", b"answer", None))


def test_thirty_two_sessions_need_two_threads_and_five_files_each(
    committer: Committer, tmp_path: Path
) -> None:
    before = threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    files = [SessionFile(tmp_path / str(n) / "session.db", committer) for n in range(32)]
    for sequence in (1, 2, 3):
        wait([file.append(field(sequence)) for file in files], SOON_S)
    assert threading.active_count() == before
    # The lock, the file, its log, the log's index, and the file of a checkpoint or of a reader,
    # which SQLite keeps for the next one; and one checkpoint at a time.
    assert len(list(Path("/proc/self/fd").iterdir())) - descriptors <= 5 * len(files) + 6
    for file in files:
        assert [row.sequence for row in file.fields()] == [1, 2, 3]
        file.close()


def test_changes_of_one_file_are_written_in_their_order_while_others_take_turns(
    committer: Committer, tmp_path: Path
) -> None:
    files = [SessionFile(tmp_path / str(n) / "session.db", committer) for n in range(4)]
    done: list[tuple[int, int]] = []
    # The thread is kept busy until all changes wait.
    queued = threading.Event()
    files[0].append(Change()).add_done_callback(lambda _: queued.wait(SOON_S))
    futures: list[Future[None]] = []
    for number, file in enumerate(files):
        for sequence in range(1, 61):
            future = file.append(field(sequence))
            future.add_done_callback(lambda _, at=(number, sequence): done.append(at))
            futures.append(future)
    queued.set()
    wait(futures, SOON_S)
    for number, file in enumerate(files):
        assert [s for n, s in done if n == number] == list(range(1, 61))
        file.close()
    # The last file did not wait for the end of the first one.
    assert done.index((3, 1)) < done.index((0, 60))


def test_a_file_that_another_program_locks_keeps_no_other_waiting(
    committer: Committer, tmp_path: Path
) -> None:
    held = SessionFile(tmp_path / "held" / "session.db", committer)
    other = SessionFile(tmp_path / "other" / "session.db", committer)
    thief = sqlite3.connect(held.path, isolation_level=None)
    thief.execute("BEGIN IMMEDIATE")
    waiting = held.append(field(1))
    other.append(field(1)).result(SOON_S)
    assert not waiting.done()
    thief.execute("ROLLBACK")
    waiting.result(SOON_S)
    thief.close()
    held.close()
    other.close()


def test_a_change_that_cannot_be_written_ends_its_session_and_no_other(
    committer: Committer, tmp_path: Path
) -> None:
    broken = SessionFile(tmp_path / "broken" / "session.db", committer)
    other = SessionFile(tmp_path / "other" / "session.db", committer)
    unforeseen = Change(field=FieldRow(1, 1, 0, object(), b"", None))  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        broken.append(unforeseen).result(SOON_S)
    with pytest.raises(StoreError):
        broken.append(field(2)).result(SOON_S)
    other.append(field(1)).result(SOON_S)
    broken.close()
    other.close()


def test_a_file_that_is_closed_has_all_that_was_queued_and_takes_no_more(
    committer: Committer, tmp_path: Path
) -> None:
    file = SessionFile(tmp_path / "session.db", committer)
    futures = [file.append(field(sequence)) for sequence in range(1, 101)]
    file.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreError, match="is closed"):
        file.append(field(101)).result(SOON_S)
    assert len(file.fields()) == 100
    assert not file.path.with_name("session.db-wal").exists()
