"""Whatever a page or a comment names is there: links, anchors, files, pages and their headings."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT, pages, production_files, tracked_files, written_pages

from edge_mil.rpc.status import STATUS_OF


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PAGES = written_pages()
MADE_ELSEWHERE = (
    "site/",
    "dist/",
    "STATE/",
    "model_card.md",
    "tests/data/stored_sessions/",
)
"""Beginnings of paths that commands of these pages make, and names of files within a bundle."""

SUFFIXES = (".py", ".pyi", ".proto", ".toml", ".txt", ".sh", ".sql", ".service")
CODE_FILES = [
    path
    for path in tracked_files()
    if (path.suffix in SUFFIXES or path.name == "Makefile")
    # The site's own pages, and pages that are opened and not cited.
    and not named(path).startswith(("docs/mkdocs/", "tests/docs/"))
]
PATH = re.compile(
    r"(?<![\w./~$-])((?:edge_mil|export|tests|docs|deploy|proto)/[\w./*-]*)", re.ASCII
)
"""What reads like a path of this repository, from its root."""
CITATION = re.compile(r'([\w./-]*\w\.md)\b(?:`?\)?,? \(?\\?"([^"\\]{3,80})\\?")?')
"""A page, and the heading that may be quoted behind it: (`docs/design/PAGE.md`, "Heading")."""
STANDS_FOR_A_NAME = re.compile(r"[A-Z]{2,}|[*]")
"""NAME, KIND, *: the recipe's reader puts a name there."""


def without_code(text: str) -> str:
    """Return a page without its code, which may hold brackets that are no links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"^ {4,}\S.*$", "", text, flags=re.M)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower())) for heading in found}


def headings(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {heading.strip().replace("`", "") for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def links() -> Iterator[tuple[str, str]]:
    for page in pages():
        text = without_code(page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            yield named(page), target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_a_link_leads_to_a_page_and_an_anchor_that_exist(page: str, target: str) -> None:
    if re.match(r"[a-z]+:", target):
        return
    path, _, anchor = target.partition("#")
    found = (ROOT / page).parent / path if path else ROOT / page
    assert found.exists(), f"{page} links to {target}"
    if anchor:
        assert anchor in anchors(found), f"{page} links to {target}"


def paths_in(text: str) -> set[str]:
    """Return what reads like a path of this repository, without what stands for a name."""
    found = set()
    for match in PATH.finditer(text):
        path = match[1].rstrip(".-")
        if not STANDS_FOR_A_NAME.search(path.removesuffix("README.md")):
            found.add(path)
    return {p for p in found if not p.startswith(MADE_ELSEWHERE)}


def comments_of(path: Path) -> str:
    """Return the comments and strings of a Python file, or all of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in kinds)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    missing = [
        path
        for path in sorted(paths_in(page.read_text(encoding="utf-8")))
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_every_path_that_a_comment_or_docstring_of_the_packages_names_exists() -> None:
    missing = [
        f"{named(path)}: {name}"
        for path in production_files()
        for name in sorted(paths_in(comments_of(path)))
        if "/" in name.rstrip("/") and Path(name).suffix and not (ROOT / name).exists()
    ]
    assert missing == [], "\n".join(missing)


def cited() -> Iterator[tuple[Path, str, str]]:
    """Yield (file, page, quoted heading or "") of each `NAME.md` that code or a page names."""
    for path in [*CODE_FILES, *PAGES]:
        text = " ".join(path.read_text(encoding="utf-8").replace("#", " ").split())
        for match in CITATION.finditer(text):
            if not match[1].startswith(("/", *MADE_ELSEWHERE)) and "NAME" not in match[1]:
                yield path, match[1], match[2] or ""


def resolved(name: str, citing: Path) -> Path | None:
    """Return the page that a name means: from the root, or beside the page that names it.

    Tests make the path of a page of docs/ from its parts.
    """
    beside = ROOT / "docs" if ROOT / "tests" in citing.parents else citing.parent
    for found in (ROOT / name, (beside / name).resolve()):
        if found.is_file():
            return found
    return None


def test_every_page_that_code_or_a_page_cites_is_in_the_repository() -> None:
    missing = {f"{named(path)}: {name}" for path, name, _ in cited() if not resolved(name, path)}
    assert missing == set(), "\n".join(sorted(missing))


def test_every_heading_that_is_quoted_behind_a_page_is_in_that_page() -> None:
    quoted = [(path, resolved(name, path), heading) for path, name, heading in cited() if heading]
    assert len(quoted) > 10, "the pattern finds no quoted headings any more"
    wrong = [
        f"{named(path)}: {named(page)} has no heading {heading!r}"
        for path, page, heading in quoted
        if page is not None and heading not in headings(page)
    ]
    assert wrong == [], "\n".join(wrong)


def test_every_reason_that_a_page_names_is_one_of_the_code() -> None:
    reasons = {reason for _, reason in STATUS_OF.values()}
    for path in production_files():
        text = path.read_text(encoding="utf-8")
        reasons |= set(re.findall(r'reason(?:=|"\] = |", )"([A-Z_]+)"', text))
    looks_like_one = re.compile(
        r"`((?:PIXEL_SIZE|OPTICS|AFFINE|CRC|DECODE|SEQUENCE|SESSION|BUNDLE|CALIBRATION|STORE"
        r"|CHANNELS|REQUEST|FIELDS?|PROTOCOL|POSITION|FRAME|ARGUMENT|PACKAGE|NOT|NO|TOO)_[A-Z_]+"
        r"|FENCED)`"
    )
    for page in PAGES:
        named_here = set(looks_like_one.findall(page.read_text(encoding="utf-8")))
        assert named_here <= reasons, named(page)


def test_no_page_names_a_host_that_packages_come_from() -> None:
    hosts = re.compile(r"https?://(?:pypi|files\.pythonhosted|registry|index)\.|nvcr\.io|ghcr\.io")
    for page in PAGES:
        assert not hosts.search(page.read_text(encoding="utf-8")), named(page)


def test_pages_write_micrometres_with_a_micro_sign() -> None:
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
        found = re.findall(r"\S*[\d(,]\s?um\b.*|\bum(?:/px| per | of the stage).*", text)
        assert found == [], named(page)


def test_the_table_of_layers_has_every_package_and_module_of_the_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.findall(r"^layers = \[\n(.*?)^\]", contract, re.M | re.S)[0]
    page = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    table = page[page.index("## Layers") : page.index("## Seams")]
    assert [name for name in re.findall(r"\w+", layers) if f"`{name}`" not in table] == []
