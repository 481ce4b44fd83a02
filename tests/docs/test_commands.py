"""Every command line in the pages is one that the commands understand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import edge_mil_export.cli
import pytest

import edge_mil.cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md"]


def commands() -> Iterator[tuple[str, str]]:
    """Yield (page, command line) of each line in an indented block that calls one of ours."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (edge-mil\S* .*)$", text, re.MULTILINE):
            yield page.name, re.sub(r"\s+#.*", "", line)


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_a_command_in_the_pages_is_understood(page: str, line: str) -> None:
    program, *words = shlex.split(line)
    if program == "edge-mil":
        parser = edge_mil.cli._parser(words[0])
    else:
        parser = edge_mil_export.cli._parser()
    assert callable(parser.parse_args(words).run), page


def test_the_pages_name_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, page.name
