from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_mil.argument_parser import Parser
from edge_mil.cli.serve import add_parser
from edge_mil.service.address import parse_address
from edge_mil.service.descriptors import WANTED
from edge_mil.service.limits import MAX_CONNECTIONS, MAX_LIVE_SESSIONS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def settings() -> dict[str, str]:
    """Return the sample configuration, as systemd reads it."""
    lines = (DEPLOY / "edge-mil.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def command() -> list[str]:
    """Return what the unit starts, with the sample configuration filled in."""
    unit = (DEPLOY / "edge-mil.service").read_text(encoding="utf-8")
    (line,) = (x for x in unit.splitlines() if x.startswith("ExecStart="))
    line = line.removeprefix("ExecStart=")
    for name, value in settings().items():
        line = line.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return shlex.split(line)


def test_the_unit_starts_a_command_that_serve_understands() -> None:
    program, verb, *words = command()
    assert (Path(program).name, verb) == ("edge-mil", "serve")
    parser = Parser(prog="edge-mil")
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args([verb, *words])
    assert [str(path) for path in arguments.bundle] == ["/srv/edge-mil/current"]
    assert str(arguments.state) == "/var/lib/edge-mil"


def test_the_sample_address_is_one_that_the_service_takes() -> None:
    assert parse_address(settings()["EDGE_MIL_LISTEN"]).host == "127.0.0.1"


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "edge-mil.service").read_text(encoding="utf-8")
    # The program is not installed at its place on a machine that runs tests.
    program = shutil.which("true")
    assert program is not None
    (tmp_path / "edge-mil.service").write_text(unit.replace(command()[0], program))
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "edge-mil.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "edge-mil.service" not in ended.stderr, ended.stderr


def test_the_units_exposure_is_at_most_three() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = str(DEPLOY / "edge-mil.service")
    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = ended.stdout.strip().splitlines()[-1]
    found = re.search(r"exposure level for edge-mil\.service: ([0-9.]+)", last)
    assert found is not None, ended.stdout + ended.stderr
    assert float(found.group(1)) <= 3.0


def test_the_scripts_explain_themselves_and_refuse_what_they_do_not_know() -> None:
    for name in ("install", "install-bundle"):
        script = str(DEPLOY / name)
        told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
        assert "--rollback" in told.stdout
        refused = subprocess.run(
            [script, "--nonsense"], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 2
        assert "there is no option --nonsense" in refused.stderr


def test_a_release_is_installed_twice_rolled_back_and_removed(tmp_path: Path) -> None:
    """With programs of one line in place of the wheels: what pip does is deploy/check-install's."""
    root = tmp_path / "root"
    for release in ("1-a", "2-b"):
        program = root / "opt/edge-mil/releases" / release / "bin/edge-mil"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
    (root / "opt/edge-mil/current").symlink_to("releases/2-b")
    (root / "opt/edge-mil/previous").symlink_to("releases/1-a")

    def install(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(DEPLOY / "install"), *words],
            env={**os.environ, "DESTDIR": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert install("--rollback").returncode == 0
    assert os.readlink(root / "opt/edge-mil/current") == "releases/1-a"
    assert install("--rollback").returncode == 0
    assert os.readlink(root / "opt/edge-mil/current") == "releases/2-b"
    session = root / "var/lib/edge-mil/sessions/one"
    session.mkdir(parents=True)
    refused = install("--remove")
    assert refused.returncode == 2
    assert "sessions are kept" in refused.stderr
    assert session.exists()
    assert install("--remove", "--purge").returncode == 0
    assert not (root / "opt/edge-mil").exists()
    assert not session.exists()


def test_the_unit_bounds_files_threads_and_memory_above_what_the_service_admits() -> None:
    unit = (DEPLOY / "edge-mil.service").read_text(encoding="utf-8")
    set_to = dict(line.split("=", 1) for line in unit.splitlines() if line[:1].isalpha())
    descriptors = MAX_CONNECTIONS + 5 * 2 * MAX_LIVE_SESSIONS
    assert int(set_to["LimitNOFILE"]) == WANTED >= 2 * descriptors
    assert int(set_to["TasksMax"]) >= 4 * 2 * MAX_LIVE_SESSIONS
    assert set_to["MemoryMax"].endswith("%")
