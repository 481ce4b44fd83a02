"""A state directory has one service, and what it lacks is said at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_service import RunningService, launch
from small_bundle import write_small_bundle

from edge_mil.errors import StoreBusyError, StoreDeniedError, StoreFullError
from edge_mil.store import StateClaim
from edge_mil.store import state_claim as module


def test_a_second_claim_is_refused_and_names_the_first(tmp_path: Path) -> None:
    first = StateClaim(tmp_path / "state", "a test")
    with pytest.raises(StoreBusyError, match=rf"in use by a test, process {os.getpid()} on "):
        StateClaim(tmp_path / "state", "another test")
    with pytest.raises(StoreBusyError, match="in use by a test"):
        StateClaim(tmp_path / "state", "a third")
    first.release()
    StateClaim(tmp_path / "state", "another test").release()


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from edge_mil.store import StateClaim;"
        "claim = StateClaim(Path(sys.argv[1]), 'killed'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")], check=False)
    StateClaim(tmp_path / "state", "the next").release()


def test_what_an_opening_that_was_cut_off_left_is_removed(tmp_path: Path) -> None:
    cut = tmp_path / "sessions" / ".01ARZ3NDEKTSV4RRFFQ69G5FAV"
    cut.mkdir(parents=True)
    StateClaim(tmp_path, "a test").release()
    assert not cut.exists()


def test_a_path_that_is_a_file_is_denied(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreDeniedError, match="cannot be used"):
        StateClaim(tmp_path / "state", "a test")


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_denied(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    with pytest.raises(StoreDeniedError, match="cannot be used"):
        StateClaim(tmp_path / "state", "a test")


def test_a_disk_without_room_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALLEST_FREE_BYTES", 1 << 62)
    with pytest.raises(StoreFullError, match=r"has \d+ MB left"):
        StateClaim(tmp_path / "state", "a test")


def test_a_second_service_on_a_state_directory_ends_with_one_sentence(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    service = RunningService(bundle.path, tmp_path)
    try:
        other = f"unix:{tmp_path / 'other.sock'}"
        process, said = launch(
            ["--bundle", str(bundle.path), "--listen", other, "--state", str(tmp_path / "state")]
        )
        assert process.wait(60) == 2
        line = said.get(timeout=10)
        assert "in use by edge-mil serve at" in line
        assert f"process {service.process.pid}" in line
    finally:
        assert service.stop() == 0
