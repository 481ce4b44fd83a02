"""A row that changed or vanished behind the store's back is told; what is whole is kept."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damage import Stored, damage, outcome, store_session

from edge_mil.cli import main
from edge_mil.errors import DamagedStoreError, StoreBusyError
from edge_mil.session import SessionFolder
from edge_mil.store import Change, SessionFile, SessionReader, examine, recover

CHANGES = {
    "a state": "UPDATE field SET state = zeroblob(length(state)) WHERE sequence = 4",
    "an answer": "UPDATE field SET answer = x'00' WHERE sequence = 4",
    "a removed flag": "UPDATE field SET removed = 1 WHERE sequence = 4",
    "a field that vanished": "DELETE FROM field WHERE sequence = 4",
    "a feature": "UPDATE instance SET features = zeroblob(64) WHERE sequence = 4 AND kind = 1",
    "a kind": "UPDATE instance SET kind = 2 WHERE sequence = 4",
    "a cell that vanished": "DELETE FROM instance WHERE sequence = 4",
    "a thumbnail": "UPDATE thumbnail SET jpeg = x'00' WHERE sequence = 4",
    "pixels": "UPDATE part SET pixels = zeroblob(length(pixels)) WHERE rowid = 1",
    "a key frame": "UPDATE key_field SET x = x + 1 WHERE sequence = 4",
    "an event": "UPDATE event SET body = '{}'",
    "the revision": "UPDATE meta SET value = '7' WHERE name = 'revision'",
    "a digest": "UPDATE seal SET digest = digest + 1 WHERE kind = 'field' AND number = 4",
    "a digest that vanished": "DELETE FROM seal WHERE kind = 'field' AND number = 4",
}
"""What a disk may do -> SQL that does it; the triggers that keep digests are off."""
NO_FIELD_LOST = {"a thumbnail", "pixels", "a key frame", "an event", "the revision"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    found = store_session(tmp_path_factory.mktemp("stored"), fields=8)
    yield found
    found.model.close()


def copy_of(stored: Stored, folder: Path) -> Path:
    shutil.copytree(stored.folder, folder)
    return folder / "sessions" / stored.session_id / "session.db"


def change(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as file:
        file.execute("DROP TRIGGER unseal_instance")
        file.execute("DROP TRIGGER unseal_part")
        assert file.execute(sql).rowcount >= 1
    file.close()


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_row_is_told_and_the_others_are_kept(
    stored: Stored, tmp_path: Path, what: str
) -> None:
    path = copy_of(stored, tmp_path / "state")
    assert examine(path).is_whole
    change(path, CHANGES[what])
    assert not examine(path).is_whole
    recovery = recover(path)
    assert recovery.lost_fields == (() if what in NO_FIELD_LOST else (4,))
    assert (recovery.kept / "session.db").is_file()
    assert examine(path).is_whole
    session = SessionFolder(tmp_path / "state").open(stored.session_id, lambda _: stored.model)
    assert session.score() == stored.score_without(recovery.lost_fields)
    # The session goes on: a lost field can be sent again where even its answer is lost.
    assert session.has_field(3)
    assert session.close().closed
    session.release()


READS: dict[str, Callable[[SessionReader], object]] = {
    "a state": lambda r: r.states(),
    "an answer": lambda r: r.answer(4),
    "a field that vanished": lambda r: r.fields(after=2, count=3),
    "a feature": lambda r: r.instances(4),
    "a kind": lambda r: r.instances(4, arrays=False),
    "a cell that vanished": lambda r: r.features_between(3, 5),
    "a thumbnail": lambda r: r.thumbnail(4),
    "pixels": lambda r: r.parts(),
    "a key frame": lambda r: r.key_frames(),
    "an event": lambda r: r.events(),
    "the revision": lambda r: r.meta(),
}


@pytest.mark.parametrize("what", READS)
def test_reading_a_changed_row_is_an_error_that_names_the_command(
    stored: Stored, tmp_path: Path, what: str
) -> None:
    path = copy_of(stored, tmp_path / "state")
    READS[what](SessionReader(path))
    change(path, CHANGES[what])
    with pytest.raises(DamagedStoreError, match=f"session check {stored.session_id}"):
        READS[what](SessionReader(path))


def test_a_damaged_row_is_not_sealed_by_the_next_change(stored: Stored, tmp_path: Path) -> None:
    path = copy_of(stored, tmp_path / "state")
    change(path, CHANGES["an answer"])
    file = SessionFile(path)
    with pytest.raises(DamagedStoreError, match="field 4"):
        file.append(Change(removed=4)).result()
    file.close()
    assert not examine(path).is_whole


def test_a_schema_that_is_no_text_is_told(stored: Stored, tmp_path: Path) -> None:
    """SQLite quotes it in a message that Python then cannot decode."""
    path = copy_of(stored, tmp_path / "state")
    data = path.read_bytes()
    for word in (b"CREATE TABLE thumbnail", b"CREATE TRIGGER unseal_part"):
        at = data.index(word)
        path.write_bytes(data[:at] + b"\x98" + data[at + 1 :])
        with pytest.raises(DamagedStoreError):
            SessionFolder(tmp_path / "state").open(stored.session_id, lambda _: stored.model)


def test_a_session_in_use_is_not_recovered(stored: Stored, tmp_path: Path) -> None:
    path = copy_of(stored, tmp_path / "state")
    file = SessionFile(path)
    with pytest.raises(StoreBusyError):
        recover(path)
    file.close()


def test_no_damage_gives_another_score_in_silence(stored: Stored, tmp_path: Path) -> None:
    """The long run is `tests/benchmarks/damaged_sessions.py`."""
    draw = random.Random(1)
    for _ in range(12):
        path = copy_of(stored, tmp_path / "state")
        where = damage(path, draw)
        assert "WRONG" not in outcome(stored, tmp_path / "state"), where
        shutil.rmtree(tmp_path / "state")


def test_the_command_names_the_damage_and_recovers(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_of(stored, tmp_path / "state")
    command = ["session", "check", "--state", str(tmp_path / "state")]
    assert main(command) == 0
    assert "whole" in capsys.readouterr().out
    change(path, CHANGES["a state"])
    assert main(command) == 1
    assert "damaged: field 4" in capsys.readouterr().out
    assert main([*command, stored.session_id, "--recover"]) == 0
    said = capsys.readouterr().out
    assert "fields that no longer count: 4" in said
    assert main(command) == 0
    capsys.readouterr()
    assert main(["session", "show", stored.session_id, "--state", str(tmp_path / "state")]) == 0
    assert "lost when the file was damaged: 4" in capsys.readouterr().out
