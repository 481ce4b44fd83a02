from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_mil.cli import Parser
from edge_mil.cli.serve import add_parser
from edge_mil.service.listening import parse_address

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
        line = line.replace(f"${{{name}}}", value)
    return shlex.split(line)


def test_the_unit_starts_a_command_that_serve_understands() -> None:
    program, verb, *words = command()
    assert (Path(program).name, verb) == ("edge-mil", "serve")
    parser = Parser(prog="edge-mil")
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args([verb, *words])
    assert [str(path) for path in arguments.bundle] == ["/srv/edge-mil/bundle.milb"]
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
