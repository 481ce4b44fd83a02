"""Templates of pages: what they are told is escaped, and every name must be given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from edge_mil.pages import page_templates

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = [
    path
    for folder in ("edge_mil", "export/edge_mil_export")
    for path in (ROOT / folder).rglob("templates/*")
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with one template that shows all that `page_templates` adds."""
    folder = tmp_path / "a_package_of_pages"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    page = '<p title="{{ title }}">{{ x|number }}<img src="{{ image|data_url }}">\n'
    (folder / "templates" / "page.html.j2").write_text(page)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    sys.modules.pop(folder.name, None)


def test_a_page_escapes_what_it_is_told(package: str) -> None:
    page = page_templates(package).get_template("page.html.j2")
    said = page.render(title='"><script>', x=2.50, image=b"\xff\xd8")
    assert said == (
        '<p title="&#34;&gt;&lt;script&gt;">2.5<img src="data:image/jpeg;base64,/9g=">\n'
    )


def test_a_name_that_a_page_does_not_get_is_an_error(package: str) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        page_templates(package).get_template("page.html.j2").render(x=1.0, image=b"")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_switches_the_escaping_off(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("|safe", "| safe", "autoescape") if word in text]
    if path.suffix == ".css":
        assert "{#" not in text, "Jinja would read a comment"
