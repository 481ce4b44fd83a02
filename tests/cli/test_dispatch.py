from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edge_mil.cli import COMMANDS, main
from edge_mil.version import __version__


def run(*words: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    """Run `edge-mil` in a process of its own, after the statements in `prefix`."""
    program = f"import sys\n{prefix}\nfrom edge_mil.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def blocked(*packages: str) -> str:
    """Return statements that make packages look as if they were not installed."""
    return f"sys.modules.update(dict.fromkeys({packages!r}))"


ENGINE = ("cv2", "onnxruntime", "openslide", "h5py", "rich", "jinja2", "torch", "onnx", "timm")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: edge-mil {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_the_help_lists_every_command_without_importing_an_engine(words: tuple[str, ...]) -> None:
    ended = run(*words, prefix=blocked(*ENGINE))
    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in COMMANDS)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edge-mil {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("bundle",), ("bundle", "show"), ("bundle", "show", "x", "--jso"), ("--jsn",)],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(words: tuple[str, ...]) -> None:
    ended = run(*words)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "--help" in ended.stderr


def test_a_missing_package_is_the_command_that_installs_it() -> None:
    ended = run("serve", "--bundle", "nowhere", prefix=blocked("onnxruntime", "cv2", "openslide"))
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert 'pip install "edge-mil[device]"' in ended.stderr


def test_a_client_machine_can_look_at_a_bundle() -> None:
    ended = run("bundle", "show", "nowhere", prefix=blocked(*ENGINE))
    assert ended.returncode == 2
    assert ended.stderr.startswith("edge-mil: There is no bundle at nowhere")


def test_bench_without_a_name_lists_what_can_be_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench"]) == 0
    printed = capsys.readouterr().out
    assert "stream  " in printed


def test_bench_of_an_unknown_name_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nonsense"]) == 2
    assert "There is no benchmark 'nonsense'; there are " in capsys.readouterr().err


def test_an_output_that_cannot_write_micrometres_is_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "edge_mil.cli", "judge", "--help"],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert rb"\xb5m/px" in ended.stdout


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mil.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert errors == ""
