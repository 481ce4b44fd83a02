"""Service and client are killed at random moments: nothing is lost, and nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from kill_run import KillRun, run
from small_bundle import write_small_bundle

FIELDS = 24
FEW, MANY = 2, 100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "b").path


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> KillRun:
    return run(bundle, tmp_path_factory.mktemp("undisturbed") / "run", FIELDS, 0, "nobody", 0)


def check(found: KillRun, undisturbed: KillRun) -> None:
    assert set(found.acknowledged) <= set(range(1, FIELDS + 1))
    assert [field.sequence for field in found.fields] == list(range(1, FIELDS + 1))
    # To the bit: the report has every number of every field, and the score.
    assert found.report == undisturbed.report
    assert [f.SerializeToString(deterministic=True) for f in found.fields] == [
        f.SerializeToString(deterministic=True) for f in undisturbed.fields
    ]


@pytest.mark.parametrize("target", ["both"])
def test_a_few_kills_change_nothing(
    bundle: Path, undisturbed: KillRun, tmp_path: Path, target: str
) -> None:
    check(run(bundle, tmp_path / "run", FIELDS, FEW, target, 1), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["server", "client", "both"])
def test_a_hundred_kills_change_nothing(
    bundle: Path, undisturbed: KillRun, tmp_path: Path, target: str
) -> None:
    """The client begins anew with every few kills, so that all of them meet fields under way."""
    kills, seed = 0, 0
    while kills < MANY:
        found = run(bundle, tmp_path / f"run{seed}", FIELDS, 10, target, seed)
        check(found, undisturbed)
        kills, seed = kills + max(1, found.kills), seed + 1
