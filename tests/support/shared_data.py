"""Where the real slides, models and official outputs lie, and a clear skip where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared(path: str) -> Path:
    """Return `../shared/path`, or skip the test with the reason."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs {path} of ../shared, which is not at {SHARED}")
    return found
