"""The hooks of the documentation site; `make docs` builds all of it with warnings as errors."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import PurePosixPath
from types import ModuleType

import pytest
from repository import ROOT

from edge_mil.v1 import edge_mil_pb2 as pb

FOLDER = ROOT / "docs" / "mkdocs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="needs mkdocs, a developer's tool: make docs")
    before = list(sys.path)
    found = load("hooks")
    sys.path[:] = before
    return found


def test_the_page_of_the_wire_has_every_service_message_and_enum() -> None:
    if "EDGE_MIL_PROTO_PYTHON" not in os.environ:
        pytest.skip("needs a Python with grpcio-tools in EDGE_MIL_PROTO_PYTHON: make docs")
    page = load("wire_reference").wire_lists()
    described = pb.DESCRIPTOR
    names = [
        *described.services_by_name,
        *described.message_types_by_name,
        *described.enum_types_by_name,
    ]
    assert [name for name in names if f"### {name}\n" not in page] == []
    assert (
        "| `sequence` | uint64 | 1 | starts at 1; (session, sequence) is the exactly-once" in page
    )
    assert "[StreamFieldsRequest](#streamfieldsrequest)" in page


def test_a_link_that_leaves_docs_leads_to_the_site_s_own_copy(hooks: ModuleType) -> None:
    here = PurePosixPath("design/architecture.md")
    relinked = hooks._relinked(
        "[a](../../CONTRIBUTING.md#where) [b](../heads.md)", "docs" / here, here
    )
    assert relinked == "[a](../contributing.md#where) [b](../heads.md)"


def test_a_link_of_a_page_of_the_root_loses_its_docs_folder(hooks: ModuleType) -> None:
    relinked = hooks._relinked(
        "![a](docs/picture.svg) [b](docs/heads.md) [c](deploy/README.md)",
        PurePosixPath("README.md"),
        PurePosixPath("first-steps.md"),
    )
    assert relinked == "![a](picture.svg) [b](heads.md) [c](deploy.md)"


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://cdn.example/x.js">',
        "<link href=//fonts.example/css rel=stylesheet>",
        '<img alt="" src="http://host.example/a.png">',
    ],
)
def test_an_element_from_another_host_is_found(hooks: ModuleType, element: str) -> None:
    assert hooks.LOADED_FROM_OUTSIDE.search(element)


def test_a_link_to_read_elsewhere_and_a_local_file_are_allowed(hooks: ModuleType) -> None:
    page = '<a href="https://arxiv.org/abs/1802.04712">paper</a><script src="assets/x.js">'
    assert not hooks.LOADED_FROM_OUTSIDE.search(page)


def test_every_page_of_docs_is_in_the_navigation() -> None:
    navigation = (FOLDER / "mkdocs.yml").read_text(encoding="utf-8")
    docs = ROOT / "docs"
    pages = [path.relative_to(docs).as_posix() for path in docs.rglob("*.md")]
    outside = [page for page in pages if f": {page}\n" not in navigation]
    assert [page for page in outside if not page.startswith("decisions/0")] == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [note.name for note in folder.glob("0*.md") if f"({note.name})" not in listed] == []
