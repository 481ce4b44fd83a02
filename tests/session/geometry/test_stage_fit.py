"""What overlapping fields say of a stage: the numbers, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mil.session.geometry.causes import small_cause_of
from edge_mil.session.geometry.stage_fit import Move, StageFit, fit_stage

STEP = (290.0, 220.0)
COLUMNS, ROWS = 5, 4


def scan(
    *,
    scale: float = 1.0,
    rotation_deg: float = 0.0,
    backlash_um: float = 0.0,
    jitter_um: float = 0.0,
    seed: int = 0,
    rows: int = ROWS,
) -> list[Move]:
    """Return the moves of a serpentine, each field against the one before and the one above."""
    chance = np.random.default_rng(seed)
    angle = np.radians(rotation_deg)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    fields: list[tuple[int, int, float, np.ndarray]] = []
    for row in range(rows):
        direction = 1 if row % 2 == 0 else -1
        for column in range(COLUMNS)[::direction]:
            at = np.array([column * STEP[0], row * STEP[1]])
            # The first field of a row is reached along y only: x arrived as in the row before.
            arrived = direction if fields and fields[-1][1] == row else -direction
            fields.append((column, row, arrived if row else 1, at))
    reported = [at + chance.normal(0, jitter_um, 2) for *_, at in fields]
    moves = []
    for n, (column, row, arrived, at) in enumerate(fields):
        for m in range(n):
            other = fields[m]
            if abs(other[0] - column) + abs(other[1] - row) != 1:
                continue
            seen = at - other[3] - np.array([backlash_um / 2 * (arrived - other[2]), 0.0])
            image = np.linalg.solve(turn, seen)
            stage = reported[n] - reported[m]
            moves.append(
                Move(
                    m + 1,
                    n + 1,
                    (float(stage[0]), float(stage[1])),
                    (float(image[0]), float(image[1])),
                    ((arrived - other[2]) / 2, 0.0),
                )
            )
    return moves


@pytest.mark.parametrize("jitter_um", [0.0, 2.0])
def test_scale_rotation_and_backlash_are_found_to_within_their_errors(jitter_um: float) -> None:
    moves = scan(scale=1.05, rotation_deg=1.5, backlash_um=20, jitter_um=jitter_um)
    fit = fit_stage(moves)
    assert fit.scale is not None
    assert fit.rotation_deg is not None
    assert fit.backlash_um[0] is not None
    for found, true in (
        (fit.scale, 1.05),
        (fit.rotation_deg, 1.5),
        (fit.backlash_um[0], 20),
    ):
        assert abs(found.value - true) <= found.factor * found.error + 0.01 * abs(true)
    assert fit.known == (True, True)
    assert fit.backlash_um[1] is None  # y was never reversed


def test_one_row_tells_scale_and_rotation_and_no_more() -> None:
    fit = fit_stage(scan(scale=0.9, rotation_deg=-2, rows=1))
    assert fit.known == (True, False)
    assert fit.scale is not None
    assert fit.scale.value == pytest.approx(0.9, abs=1e-6)
    assert fit.rotation_deg is not None
    assert fit.rotation_deg.value == pytest.approx(-2, abs=1e-6)
    assert fit.stretch is None


def test_nothing_is_known_without_moves() -> None:
    assert fit_stage([]) == StageFit()
    assert fit_stage(scan()[:1]).scale is None
    assert fit_stage(scan()[:2]).scale is not None
    still = [Move(1, 2, (0.1, 0.0), (0.0, 0.2))] * 3
    assert fit_stage(still).scale is None


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"scale": 1.04}, "pixel-size"),
        ({"scale": 0.96}, "pixel-size"),
        ({"rotation_deg": 1.5}, "rotation"),
        ({"backlash_um": 14.0}, "backlash"),
    ],
)
def test_a_fault_beyond_its_tolerance_is_named(fault: dict[str, float], name: str) -> None:
    cause = small_cause_of(fit_stage(scan(**fault)), 0.5)
    assert cause is not None
    assert cause.name == name


@pytest.mark.parametrize(
    "fault",
    [{"scale": 1.02}, {"rotation_deg": 0.8}, {"backlash_um": 8.0}, {}],
)
def test_a_fault_within_its_tolerance_is_not_named(fault: dict[str, float]) -> None:
    assert small_cause_of(fit_stage(scan(**fault)), 0.5) is None


def test_a_stage_that_only_jitters_is_never_accused_at_any_length() -> None:
    for seed in range(60):
        moves = scan(jitter_um=3.0, seed=seed)
        for count in range(1, len(moves) + 1):
            assert small_cause_of(fit_stage(moves[:count]), 0.5) is None, (seed, count)
