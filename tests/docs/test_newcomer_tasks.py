"""The five tasks of a newcomer touch the files that CONTRIBUTING names, and no others."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable
from pathlib import Path

import edge_mil_export.architectures
import pytest
from repository import ROOT, production_files

from edge_mil.backends import BACKENDS
from edge_mil.types import Verdict

PAGE = ROOT / "CONTRIBUTING.md"
TASKS = (
    "add a camera",
    "add a backend",
    "add a head",
    "change a verdict's sentence",
    "change what the report shows",
)
PLACEHOLDER = re.compile(r"\b(NAME|KIND)\b")

UNION = re.compile(r"\w+( \| \w+)+")
SEVERAL = 2
"""A file that names so many members of a family must be changed when one is added."""


def files_of(task: str) -> list[str]:
    """Return the files in a task's row of the table."""
    rows = re.findall(rf"^\| {re.escape(task)} \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(rows) == 1, task
    return re.findall(r"`([^`\s]+/[^`\s]+)`", rows[0])


@functools.cache
def all_trees() -> dict[str, ast.Module]:
    """Return path -> syntax tree of every production file."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in production_files()
    }


def trees(folder: str = "") -> dict[str, ast.Module]:
    """Return path -> syntax tree of the production files below a folder."""
    return {path: tree for path, tree in all_trees().items() if path.startswith(folder)}


def members(folder: str, methods: Iterable[str]) -> dict[str, str]:
    """Return class -> file of the public classes below a folder that define all the methods."""
    found = {}
    for path, tree in trees(folder).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
                if set(methods) <= defined:
                    found[node.name] = path
    return found


def files_that_name(family: Iterable[str], *, but: Iterable[str] = ()) -> set[str]:
    """Return the files that name several members of a family as code, the members' own left out.

    A package's `__init__`, which only hands names on, does not count.
    """
    wanted, own = set(family), set(but)
    found = set()
    for path, tree in trees().items():
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for node in ast.walk(tree):  # an annotation may be a string: "Camera | Other"
            if isinstance(node, ast.Constant) and UNION.fullmatch(str(node.value)):
                named |= set(str(node.value).split(" | "))
        if path not in own and len(named & wanted) >= SEVERAL:
            found.add(path)
    return found


def files_with_strings(words: Iterable[str], *, at_least: int) -> set[str]:
    """Return the files that hold so many of some words as whole strings."""
    wanted = set(words)
    found = set()
    for path, tree in trees().items():
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        if len(strings & wanted) >= at_least:
            found.add(path)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_the_files_of_a_task_exist(task: str) -> None:
    named = files_of(task)
    assert named
    for file in named:
        if PLACEHOLDER.search(file):
            alike = list(ROOT.glob(PLACEHOLDER.sub("*", file)))
            assert len(alike) >= SEVERAL, f"{file} is where no file of its kind is"
        else:
            assert (ROOT / file).is_file(), file


def test_cameras_are_named_together_in_the_factory_only() -> None:
    cameras = members("edge_mil/cameras/", ("mpp", "frames"))
    assert {"VirtualMicroscope", "ImageFolder"} <= set(cameras)
    assert files_that_name(cameras, but=cameras.values()) == {"edge_mil/cameras/factory.py"}
    assert "edge_mil/cameras/factory.py" in files_of("add a camera")


def test_backends_are_named_together_in_two_tables_only() -> None:
    backends = members("edge_mil/backends/", ("describe",))
    assert {"OnnxRuntimeBackend", "OpenVinoBackend"} <= set(backends)
    by_class = files_that_name(backends, but=backends.values())
    several = len(BACKENDS) // 2 + 1
    by_name = files_with_strings(BACKENDS, at_least=several) - set(backends.values())
    assert by_class | by_name <= set(files_of("add a backend"))
    assert {"edge_mil/backends/__init__.py", "edge_mil/pipeline/runners/variants.py"} <= by_name


def test_poolings_are_named_together_in_the_registry_only() -> None:
    poolings = members("edge_mil/aggregators/", ("merge",)) | {
        name: path
        for path, tree in trees("edge_mil/aggregators/").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and (name := node.name).endswith("Aggregator")
    }
    assert {"AttentionAggregator", "DsmilAggregator", "TransMilAggregator"} <= set(poolings)
    found = files_that_name(poolings, but=poolings.values())
    assert found == {"edge_mil/aggregators/registry.py"}
    assert "edge_mil/aggregators/registry.py" in files_of("add a head")


def test_architectures_are_listed_together_where_the_recipe_says() -> None:
    folder = ROOT / "export" / "edge_mil_export" / "architectures"
    families = {
        path.stem
        for path in folder.rglob("*.py")
        if re.search(r"^@architecture\(", path.read_text(encoding="utf-8"), re.M)
    }
    assert {"clam", "transmil"} <= families
    listing = {
        path
        for path, tree in trees("export/").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and len({alias.name for alias in node.names} & families) >= SEVERAL
    }
    assert listing <= set(files_of("add a head"))


def test_every_decorated_architecture_is_registered() -> None:
    folder = ROOT / "export" / "edge_mil_export" / "architectures"
    decorated = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(
            r'^@architecture\(\s*"(\w+)"', path.read_text(encoding="utf-8"), re.M
        )
    }
    assert len(decorated) > 20
    assert decorated <= set(edge_mil_export.architectures.names())


def test_the_sentences_of_verdicts_are_in_one_file_only() -> None:
    verdicts = {verdict.name for verdict in Verdict}
    tables = {
        path
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict) and verdicts <= _keys(node)
    }
    assert tables == {"edge_mil/verdict_text.py"}
    assert files_of("change a verdict's sentence") == ["edge_mil/verdict_text.py"]


def _keys(table: ast.Dict) -> set[str]:
    """Return the last part of each key: `Verdict.BLANK` and "BLANK" are both BLANK."""
    found = set()
    for key in table.keys:
        if isinstance(key, ast.Attribute):
            found.add(key.attr)
        elif isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


def test_the_report_is_a_template_and_what_goes_into_it() -> None:
    template = next(Path(file) for file in files_of("change what the report shows") if "j2" in file)
    pages = [
        path
        for path, tree in trees("edge_mil/session/").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and "<html" in str(node.value).lower()
    ]
    assert pages == [], f"HTML belongs into {template}"
