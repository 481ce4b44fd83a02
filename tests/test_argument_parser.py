"""What a program answers when something goes wrong, the same for both command lines."""

from __future__ import annotations

import pytest

from edge_mil.argument_parser import Parser, missing_package, run_program
from edge_mil.errors import DependencyError, SourceError


def test_a_foreseen_error_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> int:
        raise SourceError("There is no slide.")

    assert run_program("edge-mil-export", run) == 2
    assert capsys.readouterr().err == "edge-mil-export: There is no slide.\n"


def test_an_interrupted_program_has_the_shells_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> int:
        raise KeyboardInterrupt

    assert run_program("edge-mil", run) == 130
    assert capsys.readouterr().err == "edge-mil: interrupted\n"


def test_a_fault_of_ours_is_not_hidden() -> None:
    def run() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_program("edge-mil", run)


def test_options_are_never_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="edge-mil")
    parser.add_argument("--bundle")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--bun", "x"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_package_names_its_extra_and_a_missing_module_of_ours_stays_a_fault() -> None:
    absent = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    found = missing_package(absent, "edge-mil-export", {"torch": "export"})
    assert isinstance(found, DependencyError)
    assert 'pip install "edge-mil[export]"' in str(found)
    ours = ModuleNotFoundError("No module named 'edge_mil.nothing'", name="edge_mil.nothing")
    assert missing_package(ours, "edge-mil", {"torch": "export"}) is ours
