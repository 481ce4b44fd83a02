"""Every command that the pages show is one that exists and understands its options."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import edge_mil_export.cli
import pytest
from repository import ROOT, written_pages

import edge_mil.cli

PAGES = written_pages()
OMITTED = "..."
"""Stands for arguments that a page leaves out: only the options beside it are checked."""


def shown(page: Path) -> str:
    """Return a page with continued lines joined."""
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def code_lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's code blocks, indented or fenced, without their comments."""
    text = shown(page)
    fenced = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    for line in [*blocks, *"\n".join(fenced).splitlines()]:
        yield re.sub(r"\s+#.*", "", line)


def inline_code(page: Path) -> Iterator[str]:
    """Yield what stands between single back ticks, on one line or over two."""
    text = re.sub(r"^```.*?^```", "", shown(page), flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", text):
        yield " ".join(code.split())


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def whole_commands() -> list[tuple[str, str]]:
    """Return (page, command line) of each line of a code block that calls one of ours."""
    return [
        (named(page), line)
        for page in PAGES
        for line in code_lines(page)
        if re.match(r"edge-mil\S* ", line) and OMITTED not in line.split()
    ]


def partial_commands() -> list[tuple[str, str]]:
    """Return (page, command) of each command within a sentence or table, arguments left out."""
    found = dict.fromkeys(
        (named(page), code)
        for page in PAGES
        for code in [*inline_code(page), *code_lines(page)]
        if re.match(r"(?:sudo )?edge-mil(?:-export)? [a-z]", code)
    )
    return [pair for pair in found if pair not in set(whole_commands())]


@functools.cache
def parser_of(program: str, command: str) -> argparse.ArgumentParser:
    if program == "edge-mil":
        return edge_mil.cli._parser(command)
    return edge_mil_export.cli._parser()


def children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return a parser's commands by name."""
    return {
        name: child
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, child in action.choices.items()
    }


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return every option of a parser, and of the commands below it."""
    below = (options(child) for child in children(parser).values())
    return {o for action in parser._actions for o in action.option_strings}.union(*below)


def bench_options() -> set[str]:
    """Return the options of all benchmarks, which `edge-mil bench NAME` hands on to NAME."""
    folders = (ROOT / "edge_mil" / "cli" / "bench", ROOT / "export" / "edge_mil_export" / "bench")
    texts = (path.read_text(encoding="utf-8") for at in folders for path in at.glob("*.py"))
    return {option for text in texts for option in re.findall(r'"(--[a-z-]+)"', text)}


@pytest.mark.parametrize(("page", "line"), whole_commands())
def test_a_command_in_a_code_block_is_understood(page: str, line: str) -> None:
    program, *words = shlex.split(line.replace(OMITTED, ""))
    assert callable(parser_of(program, words[0]).parse_args(words).run), page


@pytest.mark.parametrize(("page", "code"), partial_commands())
def test_a_command_within_a_sentence_exists_with_its_options(page: str, code: str) -> None:
    program, command, *words = code.removeprefix("sudo ").split()
    parser = children(parser_of(program, command)).get(command)
    assert parser is not None, f"{page}: {program} has no command {command}"
    asked = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert asked <= options(parser) | (bench_options() if command == "bench" else set()), page
    below = children(parser)
    if below and words and re.fullmatch(r"[a-z-]+(\|[a-z-]+)*", words[0]):
        assert set(words[0].split("|")) <= set(below), page


def test_the_pages_name_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        lines = [*code_lines(page), *inline_code(page)]
        asked = {match[1] for line in lines if (match := re.match(r"make ([a-z-]+)", line))}
        assert asked <= targets, named(page)


def programs() -> list[tuple[str, str]]:
    """Return (page, command line) of each Python program or module of ours that a page runs."""
    return [
        (named(page), line)
        for page in PAGES
        for line in dict.fromkeys([*code_lines(page), *inline_code(page)])
        if re.match(r"(?:\S*/)?python (?:-m \w|\w+/)", line)
    ]


@pytest.mark.parametrize(("page", "line"), programs())
def test_a_program_that_a_page_runs_exists_with_its_options(page: str, line: str) -> None:
    _, *words = shlex.split(line)
    if words[0] == "-m":
        if not words[1].startswith("edge_mil"):
            assert words[1] in ("pytest", "pip", "venv"), page
            return
        found = importlib.util.find_spec(words[1])
        assert found is not None, f"{page}: no module {words[1]}"
        assert found.origin is not None
        source = Path(found.origin)
    else:
        source = ROOT / words[0]
        assert source.is_file(), f"{page}: no program {words[0]}"
    text = source.read_text(encoding="utf-8")
    missing = [word for word in words if word.startswith("--") and f'"{word}"' not in text]
    assert missing == [], page


def test_tests_that_the_pages_run_exist() -> None:
    for page in PAGES:
        for line in [*code_lines(page), *inline_code(page)]:
            if "pytest" in line.split():
                paths = [word for word in line.split() if word.startswith("tests/")]
                assert [p for p in paths if not (ROOT / p).exists()] == [], f"{named(page)}: {line}"


def test_every_figure_names_the_command_that_draws_it() -> None:
    figures = [p for p in (ROOT / "docs").rglob("*") if p.suffix in (".svg", ".png", ".jpg")]
    texts = {named(page): shown(page) for page in PAGES}
    for figure in figures:
        path = figure.relative_to(ROOT).as_posix()
        shown_on = [
            page for page, text in texts.items() if f"]({path})" in text or figure.name in text
        ]
        assert shown_on, f"no page shows {path}"
        drawn = [
            line
            for page in PAGES
            for line in [*code_lines(page), *inline_code(page)]
            if line.startswith(("python ", "edge-mil "))
            and (path in line or f"--images {figure.parent.relative_to(ROOT)}" in line)
        ]
        assert drawn, f"no command draws {path}"
