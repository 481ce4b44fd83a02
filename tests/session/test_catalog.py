"""Sessions of a state directory: found by an index that is made anew, damaged ones among them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from painted_field import MPP
from small_bundle import write_small_bundle

from edge_mil.errors import DamagedStoreError, SessionNotFoundError, StoreError
from edge_mil.pipeline import Model, load_model
from edge_mil.session import (
    DamagedSession,
    Session,
    SessionFolder,
    SessionSettings,
    SessionSummary,
)
from edge_mil.store import SessionFile, recover


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("bundle") / "b"), threads=1)
    yield loaded
    loaded.close()


def make(folder: SessionFolder, model: Model, request: str) -> str:
    session = folder.create(model, SessionSettings(mpp=MPP, request_id=request))
    session.release()
    return session.session_id


def spoil_meta(path: Path) -> None:
    """Change a stored value behind the store's back, as a disk would."""
    with sqlite3.connect(path) as file:
        file.execute("UPDATE meta SET value = '0.51' WHERE name = 'created'")
    file.close()


def test_a_request_id_finds_its_session_again(tmp_path: Path, model: Model) -> None:
    folder = SessionFolder(tmp_path)
    assert folder.of_request("a") is None
    made = make(folder, model, "a")
    assert folder.of_request("a") == made
    assert folder.of_request("") is None


@pytest.mark.parametrize("spoil", ["missing", "no database", "another version", "a wrong row"])
def test_the_index_is_made_anew_from_the_sessions(tmp_path: Path, model: Model, spoil: str) -> None:
    folder = SessionFolder(tmp_path)
    made = [make(folder, model, name) for name in ("a", "b", "c")]
    index = tmp_path / "sessions" / "index.db"
    if spoil == "missing":
        index.unlink()
    elif spoil == "no database":
        index.write_bytes(b"no database" * 1000)
    else:
        with sqlite3.connect(index) as file:
            change = "PRAGMA user_version = 99"
            file.execute(
                change if spoil == "another version" else "UPDATE session SET request_id = 'x'"
            )
        file.close()
    again = SessionFolder(tmp_path)
    again.refresh()
    assert [found.session_id for found in again.page()] == made[::-1]
    assert again.of_request("b") == made[1]


def test_pages_go_from_the_newest_to_the_oldest(tmp_path: Path, model: Model) -> None:
    folder = SessionFolder(tmp_path)
    made = sorted(make(folder, model, str(i)) for i in range(5))[::-1]
    first = [found.session_id for found in folder.page(count=2)]
    rest = [found.session_id for found in folder.page(before=first[-1])]
    assert first + rest == made


def test_a_session_of_another_program_is_found_and_a_deleted_one_forgotten(
    tmp_path: Path, model: Model
) -> None:
    folder = SessionFolder(tmp_path)
    kept, gone = make(folder, model, "kept"), make(folder, model, "gone")
    folder.refresh()
    (tmp_path / "sessions" / gone).rename(tmp_path / "moved away")
    other = make(SessionFolder(tmp_path), model, "other")
    assert {found.session_id for found in folder.page()} == {kept, other}
    assert folder.of_request("gone") is None


def test_a_closed_session_is_listed_as_closed(tmp_path: Path, model: Model) -> None:
    folder = SessionFolder(tmp_path)
    made = make(folder, model, "a")
    session = folder.open(made, lambda _: model)
    session.close()
    session.release()
    for _ in range(2):  # from its file, then from the index
        (found,) = folder.page()
        assert isinstance(found, SessionSummary)
        assert found.closed


def test_damaged_and_empty_sessions_are_listed_and_do_not_hide_the_others(
    tmp_path: Path, model: Model
) -> None:
    folder = SessionFolder(tmp_path)
    whole, spoilt, empty = (make(folder, model, name) for name in "abc")
    spoil_meta(folder.file(spoilt))
    folder.file(empty).write_bytes(b"")
    (tmp_path / "sessions" / "index.db").unlink()
    found = {entry.session_id: entry for entry in folder.page()}
    assert isinstance(found[whole], SessionSummary)
    for session_id, words in ((spoilt, "meta created"), (empty, "never fully opened")):
        entry = found[session_id]
        assert isinstance(entry, DamagedSession)
        assert words in entry.problem
    with pytest.raises(DamagedStoreError, match="edge-mil session check"):
        folder.open(spoilt, lambda _: model)
    recover(folder.file(spoilt))
    folder.recovered(spoilt)
    assert isinstance(folder.page()[1], SessionSummary)


def test_a_session_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SessionFolder(tmp_path)

    def refuse(self: SessionFile, change: object) -> None:
        raise StoreError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(SessionFile, "append", refuse)
        with pytest.raises(StoreError, match="no room"):
            make(folder, model, "a")
    assert folder.ids() == []
    assert [p.name for p in (tmp_path / "sessions").iterdir()] == []


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path, model: Model) -> None:
    for bad in ("../../etc/passwd", "", "a" * 26, "0" * 25):
        with pytest.raises(SessionNotFoundError):
            SessionFolder(tmp_path).open(bad, lambda _: model)


def test_a_first_commit_makes_a_session_that_can_be_opened(tmp_path: Path, model: Model) -> None:
    """At the moment its folder has its name, the file in it is whole."""
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    found = folder.summary(session.session_id)
    session.release()
    assert found.settings == session.settings
    assert isinstance(folder.open(found.session_id, lambda _: model), Session)
