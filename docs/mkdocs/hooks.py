"""Hooks of the documentation site: pages from outside of docs/, the wire, no outside request."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from wire_reference import wire_lists

ROOT = Path(__file__).resolve().parents[2]

FROM_REPOSITORY = {
    "README.md": "first-steps.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
}
"""Page of the repository, from its root -> page of the site."""
WIRE = "reference/wire.md"
"""The page that gets the lists of the `.proto`."""
LINK = re.compile(r"(\]\()([^)#:\s]+\.(?:md|svg))(#[^)]*)?(\))")
LOADED_FROM_OUTSIDE = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'>\s]+"""
)
"""An element that a browser would fetch from another host."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for source, page in FROM_REPOSITORY.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        content = _relinked(text, PurePosixPath(source), PurePosixPath(page))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links that leave docs/ to the site's own copy; list the wire on its page."""
    if page.file.generated_by is not None:
        return markdown
    if page.file.src_uri == WIRE:
        markdown = f"{markdown}\n{wire_lists()}"
    here = PurePosixPath(page.file.src_uri)
    return _relinked(markdown, "docs" / here, here)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Refuse a page that loads anything from another host: it must work without a network.

    Raises:
        PluginError: It does.
    """
    found = LOADED_FROM_OUTSIDE.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


def _relinked(text: str, source: PurePosixPath, page: PurePosixPath) -> str:
    """Return text whose relative links, valid in the repository, are valid in the site."""

    def target(match: re.Match[str]) -> str:
        named = PurePosixPath(os.path.normpath(source.parent / match[2]))
        moved = FROM_REPOSITORY.get(str(named))
        if moved is None and named.parts[0] != "docs":
            return match[0]  # mkdocs then warns, which ends a strict build
        wanted = moved or str(named.relative_to("docs"))
        relative = os.path.relpath(wanted, page.parent)
        return f"{match[1]}{relative}{match[3] or ''}{match[4]}"

    return LINK.sub(target, text)
