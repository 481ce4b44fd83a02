"""The words of docs/glossary.md hold in the code, and the words before them are gone."""

from __future__ import annotations

import ast
import functools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT, pages, production_files, python_files

GLOSSARY = ROOT / "docs" / "glossary.md"
COLUMNS = 5

EXCEPTIONS = {
    "edge_mil/cli/judge.py": "a command of edge-mil keeps its name, and so its module",
    "edge_mil/demo/readme_picture.py": "draws the README's picture, not a frame",
    "under_way": "an idiom: a build that is going on is no variant of a runner",
}
"""Module, or name, that a forbidden word may be in -> why."""

ALIAS_ATTRIBUTE = "= renamed_attribute("
"""What a line holds that keeps an attribute's old name for one release."""

OLD_NAMES = frozenset((
    "Survey", "GridSurvey", "SlotSurvey", "StagedSurvey", "FoundSurvey", "WrappedSurvey",
    "Look", "refusal", "FieldReader", "Standing", "StandingBoard", "ShownSession",
    "Ledger", "Extractions", "Evidence", "Mosaic", "Laying", "FieldView",
    "Partial", "Seen", "MosaicPainter", "Overview", "SlotBook", "Rank",
    "Straightener", "Picture", "KeyField", "Link", "OwnBackground", "FrameJudge",
    "Judgement", "Likeness", "Alike", "Way", "ways_of", "way_of",
    "open_way", "Accelerated", "accelerate", "CHAIN", "Choice", "ChoiceFolder",
    "Places", "Folder", "Folded", "Writer", "HostedSession", "SessionHosts",
    "ModelShelf", "HostedBundle", "Wire", "put_newest", "roomy", "Judges",
    "Climb", "Rung", "Tried", "Layout", "LATER", "Reading",
))  # fmt: skip
"""Names before 0.2.0, which name nothing in Python any more.

Left out of that table are names that live on with another meaning: `place`, `values` and `heat_map`
are words of the wire, of stored files or of public methods."""

OLD_WORDS = frozenset(
    ("survey", "look", "ledger", "shelf", "standing", "raised", "weigh", "way", "ways")
)
"""Words that those names were made of: no variable or method of the two packages has them."""

ALIAS_TABLE = "renamed("
"""Where a package lists its old names for one release."""


def forbidden_words() -> dict[str, str]:
    """Return word -> the term that it must not stand for."""
    found = {}
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" |")]
        if line.startswith("| ") and len(cells) == COLUMNS and set(cells[1]) != {"-"}:
            for word in re.findall(r"`(\w+)`", cells[-1]):
                found.setdefault(word, cells[0])
    return found


def parts_of(name: str) -> list[str]:
    """Return the words that a CamelCase or snake_case name is made of, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [part.lower() for part in spaced.split("_") if part]


@functools.cache
def public_names() -> tuple[tuple[str, str], ...]:
    """Return (where, name) of every module, class, and public function or method."""
    return tuple(_public_names())


def _public_names() -> Iterator[tuple[str, str]]:
    for path in production_files():
        where = path.relative_to(ROOT).as_posix()
        for name in {path.stem, path.parent.name}:
            yield where, name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(node, ast.ClassDef) or (named and not node.name.startswith("_")):
                yield f"{where}:{node.lineno}", node.name


def holds(name: str, word: str) -> bool:
    """Say whether a name holds a word, or its plural, as consecutive parts."""
    wanted, parts = parts_of(word), parts_of(name)
    windows = (parts[at : at + len(wanted)] for at in range(len(parts) - len(wanted) + 1))
    return any(w == wanted or [*w[:-1], w[-1].removesuffix("s")] == wanted for w in windows)


def test_the_glossary_forbids_words() -> None:
    words = forbidden_words()
    assert {"picture", "look", "place", "survey", "way", "key_field"} <= set(words)
    assert holds("KeyFields", "key_field")
    assert holds("list_ways", "way")
    assert not holds("lookup", "look")
    assert not holds("always", "way")


@pytest.mark.parametrize("word", sorted(forbidden_words()))
def test_no_class_module_or_public_function_has_a_word_of_the_last_column(word: str) -> None:
    found = [
        f"{where} {name}"
        for where, name in public_names()
        if holds(name, word) and not {where.partition(":")[0], name} & EXCEPTIONS.keys()
    ]
    assert found == [], f"say {forbidden_words()[word]!r} in place of {word!r}:\n" + "\n".join(
        found
    )


def test_every_exception_is_still_needed() -> None:
    for exception in EXCEPTIONS:
        named = [n for where, n in public_names() if exception in (where.partition(":")[0], n)]
        assert any(holds(name, word) for name in named for word in forbidden_words()), exception


def old_names_in(path: Path, old: frozenset[str]) -> list[str]:
    """Return `file:line name` of each old name among a file's Python names."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    return [
        f"{path.relative_to(ROOT)}:{token.start[0]} {token.string}"
        for token in tokens
        if token.type == tokenize.NAME and token.string in old and ALIAS_ATTRIBUTE not in token.line
    ]


def test_the_names_before_0_2_0_name_nothing_in_python() -> None:
    # An alias table has them as strings, which are no names.
    found = [line for path in python_files() for line in old_names_in(path, OLD_NAMES)]
    assert found == [], "\n".join(found)


def test_the_words_of_those_names_name_no_variable_or_method() -> None:
    found = [line for path in production_files() for line in old_names_in(path, OLD_WORDS)]
    assert found == [], "\n".join(found)


def test_the_names_before_0_2_0_are_strings_in_alias_tables_only() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in production_files()}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"
        for path, text in texts.items()
        if ALIAS_TABLE not in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and node.value in OLD_NAMES
    ]
    assert found == []


def test_the_names_before_0_2_0_are_in_no_page_but_the_changelog() -> None:
    found = [
        f"{page.relative_to(ROOT)} {name}"
        for page in pages()
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        for name in re.findall(r"\w+", code)
        if name in OLD_NAMES
    ]
    assert found == []
