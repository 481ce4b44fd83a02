"""Progress bars on standard error, only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, unit: str) -> Iterator[Item]:
    """Yield the items under a bar that goes away when done; none where stderr is no terminal."""
    yield from tqdm(items, desc=label, unit=unit, leave=False, disable=None)
