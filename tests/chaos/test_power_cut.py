"""The power fails at any moment: what was acknowledged is there, and nothing else is wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from cut_sessions import CutCheck
from power_cut import WRITER, record, try_cuts
from small_bundle import write_small_bundle

from edge_mil.pipeline import load_model

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace: apt-get install strace"
)


@pytest.mark.parametrize(
    ("fields", "count"), [(6, 60), pytest.param(24, 2000, marks=pytest.mark.slow)]
)
def test_what_was_acknowledged_survives_a_cut_at_any_moment(
    tmp_path: Path, fields: int, count: int
) -> None:
    """The long run is `tests/benchmarks/power_cuts.py`."""
    bundle = write_small_bundle(tmp_path / "bundle")
    model, state = load_model(bundle, threads=1), tmp_path / "state"
    events = record(WRITER, state, tmp_path, str(bundle.path), str(fields))
    check = CutCheck.of(state, model)
    assert len(check.answers) == fields
    outcomes = try_cuts(events, state, count, check, random.Random(0))
    assert not [became for became in outcomes if "WRONG" in became], outcomes
    assert sum(outcomes.values()) == count
    assert outcomes["all acknowledged fields"] > count // 4
    model.close()
