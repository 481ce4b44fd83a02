"""Import this first in a program of this folder: it finds the repository's packages and helpers."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("", "export", "export/demo", "tests/support", "tests/benchmarks")

sys.path[:0] = [str(ROOT / part) for part in PARTS if str(ROOT / part) not in sys.path]
