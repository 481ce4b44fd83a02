"""Lists in pages; the token of the next page names the last entry of this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Entry = TypeVar("Entry")

MAX_PAGE = 500
"""Fields of one answer: a message stays well under gRPC's 4 MiB."""
MAX_DIGITS = 19
"""A token of fewer digits fits into SQLite's integers."""


def page_of(
    entries: Sequence[Entry], size: int, token: str, key: Callable[[Entry], str] = str
) -> tuple[list[Entry], str]:
    """Return the entries after the one that the token names, and the token of the next page.

    Args:
        entries: All of them, in a fixed order.
        size: How many to give; 0 and anything above MAX_PAGE take that.
        token: "" for the first page. One that names no entry (any more) gives the first page too.
        key: Name of an entry.
    """
    size = min(size or MAX_PAGE, MAX_PAGE)
    start = 0
    if token:
        keys = [key(entry) for entry in entries]
        start = keys.index(token) + 1 if token in keys else 0
    page = list(entries[start : start + size])
    more = start + size < len(entries)
    return page, key(page[-1]) if page and more else ""


def page_size(asked: int) -> int:
    """Return how many entries a page has; 0 and anything above MAX_PAGE take that."""
    return min(asked or MAX_PAGE, MAX_PAGE)


def sequence_of_token(token: str) -> int:
    """Return the sequence number behind which a page begins; 0 for the first page.

    A token that is no number, of another list or made up, gives the first page too.
    """
    return int(token) if token.isascii() and token.isdigit() and len(token) < MAX_DIGITS else 0
