"""The gates over the labelled set that is made from the real camera fields."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from shared_data import shared

from edge_mil.types import Verdict

pytestmark = [pytest.mark.shared, pytest.mark.slow]

PROGRAMS = Path(__file__).resolve().parents[2] / "benchmarks" / "gates"
GOAL = 0.02


def script(name: str) -> ModuleType:
    """Import a script of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def confusion() -> ModuleType:
    return script("confusion")


def shares(
    confusion: ModuleType, table: dict[tuple[str, str], Counter[Verdict]]
) -> tuple[float, float]:
    """Return the shares of good fields refused and of bad ones accepted, main sets only."""
    good, bad = Counter[Verdict](), Counter[Verdict]()
    for (kind, source), counts in table.items():
        if source in confusion.EXTRA or kind in confusion.BORDERLINE:
            continue
        (good if confusion.is_good(kind) else bad).update(counts)
    return 1 - good[Verdict.ACCEPTED] / good.total(), bad[Verdict.ACCEPTED] / bad.total()


def test_good_fields_pass_and_bad_ones_do_not(confusion: ModuleType) -> None:
    table = confusion.confusion(shared("data"), half="check", fields=2)
    refused, accepted = shares(confusion, table)
    assert refused <= GOAL
    assert accepted <= GOAL


def test_glass_with_dust_and_shading_is_blank(confusion: ModuleType) -> None:
    made = script("make_labelled_set")
    quality = confusion.ImageQuality(confusion.GridGeometry(0.5, 224, 224, 0.5))
    rng = made.np.random.default_rng(4)
    verdicts = Counter(
        quality.evaluate(picture.pixels).verdict
        for picture in made._without_tissue(shared("data"), rng)
        if picture.kind.startswith("blank")
    )
    assert verdicts == {Verdict.BLANK: made.BLANKS}
