"""A state directory that is damaged, upgraded, backed up and restored."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from running_service import RunningService, WireStream, open_session, tissue_frames
from small_bundle import write_small_bundle

from edge_mil.bundle import open_bundle
from edge_mil.cli import main
from edge_mil.pipeline import load_model
from edge_mil.rpc.status import REASON_KEY, RETRY_KEY
from edge_mil.session import SessionFolder, SessionSummary
from edge_mil.store import examine
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

DATA = Path(__file__).resolve().parents[1] / "data" / "stored_sessions"
RELEASES = sorted(path for path in DATA.iterdir() if path.is_dir())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(write_small_bundle(tmp_path / "bundle").path, tmp_path)
    yield running
    assert running.stop() == 0


def spoil_state(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("UPDATE field SET state = zeroblob(length(state)) WHERE sequence = 2")
    file.close()


def test_a_damaged_session_is_told_listed_recovered_and_closed(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service.channel as channel:
        spoilt, whole = (open_session(channel).session_id for _ in range(2))
        stream = WireStream(channel, spoilt)
        for sequence, frame in enumerate(tissue_frames(3), start=1):
            stream.send(frame, sequence)
            stream.result()
        stream.end()
    assert service.stop() == 0
    state = tmp_path / "state"
    spoil_state(state / "sessions" / spoilt / "session.db")
    service.start()
    with service.channel as channel:
        sessions = rpc.SessionServiceStub(channel)
        for call, request in (
            (sessions.GetSession, pb.GetSessionRequest(session_id=spoilt)),
            (sessions.CloseSession, pb.CloseSessionRequest(session_id=spoilt)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=30)
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
            said = dict(caught.value.trailing_metadata())
            assert said[REASON_KEY] == "SESSION_DAMAGED"
            assert RETRY_KEY not in said
            assert "field 2" in caught.value.details()
        listed = sessions.ListSessions(pb.ListSessionsRequest(), timeout=30).sessions
        states = {session.session_id: session.state for session in listed}
        assert states[spoilt] == pb.SESSION_STATE_DAMAGED
        assert states[whole] != pb.SESSION_STATE_DAMAGED
        assert open_session(channel).session_id not in states
        # Beside the running service: it does not hold a session that it could not open.
        assert main(["session", "check", spoilt, "--recover", "--state", str(state)]) == 0
        assert "no longer count: 2" in capsys.readouterr().out
        found = sessions.GetSession(pb.GetSessionRequest(session_id=spoilt), timeout=30).session
        assert found.score.fields == 2
        closed = sessions.CloseSession(pb.CloseSessionRequest(session_id=spoilt), timeout=30)
        records = json.loads(closed.report_json)["records"]
        assert [record["removed"] for record in records] == [False, True, False]


def place(case: Path, state: Path) -> dict[str, Any]:
    """Put a stored session of an earlier release into a state directory."""
    expected: dict[str, Any] = json.loads((case / "expected.json").read_text())
    target = state / "sessions" / expected["session"]
    target.mkdir(parents=True)
    shutil.copy(case / "session.db", target)
    return expected


def logits(state: Path, case: Path, session_id: str) -> list[str]:
    model = load_model(open_bundle(case / "bundle.milb"), threads=1)
    session = SessionFolder(state).open(session_id, lambda _: model)
    score = session.score()
    session.release()
    model.close()
    assert score is not None
    return [value.hex() for value in score.logits]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_an_earlier_state_directory_is_upgraded_and_its_back_up_restored(
    release: Path, tmp_path: Path
) -> None:
    """A back-up is a copy of the directory while no service has it."""
    state, backup = tmp_path / "state", tmp_path / "backup"
    cases = [case for case in sorted(release.iterdir()) if case.is_dir()]
    expected = {case: place(case, state) for case in cases}
    shutil.copytree(state, backup)
    for _ in range(2):
        folder = SessionFolder(state)
        found = folder.page()
        assert len(found) == len(cases)
        assert all(isinstance(session, SessionSummary) for session in found)
        for case, kept in expected.items():
            assert examine(folder.file(kept["session"])).is_whole
            assert logits(state, case, kept["session"]) == kept["kept"]["logits"]
        # The upgraded directory is lost, and the back-up of before takes its place.
        shutil.rmtree(state)
        shutil.copytree(backup, state)


def test_an_upgrade_that_is_cut_off_leaves_the_earlier_release_readable(tmp_path: Path) -> None:
    """Migrations are one transaction: a disk that is full in the middle changes nothing."""
    kept = place(RELEASES[-1] / "grid_on_a_stage", tmp_path)
    path = SessionFolder(tmp_path).file(kept["session"])
    with sqlite3.connect(path) as file:
        version = file.execute("PRAGMA user_version").fetchone()[0]
        before = list(file.iterdump())
        # A name that the last migration makes is taken: it fails there.
        file.execute("CREATE VIEW seal AS SELECT 1 AS x")
    file.close()
    with pytest.raises(Exception, match="seal"):
        SessionFolder(tmp_path).reader(kept["session"])
    with sqlite3.connect(path) as file:
        file.execute("DROP VIEW seal")
        assert file.execute("PRAGMA user_version").fetchone()[0] == version
        assert list(file.iterdump()) == before
    file.close()
    SessionFolder(tmp_path).reader(kept["session"])
