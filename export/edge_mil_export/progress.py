"""Progress on standard error, only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, unit: str) -> Iterator[Item]:
    """Yield the items under a bar that goes away when done; none where stderr is no terminal."""
    yield from tqdm(items, desc=label, unit=unit, leave=False, disable=None)


@contextlib.contextmanager
def step(label: str) -> Iterator[None]:
    """Name a step that cannot be counted, and its seconds when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    start = time.perf_counter()
    sys.stderr.write(f"{label} ...\r")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(f"{label}: {time.perf_counter() - start:.0f} s\n")
