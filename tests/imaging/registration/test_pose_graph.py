"""Positions that fit offsets best."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mil.imaging.registration import PoseEdge, optimise_poses


def test_offsets_that_agree_give_their_positions() -> None:
    edges = [PoseEdge(1, 2, 10, 0, 1), PoseEdge(2, 3, 0, 10, 1), PoseEdge(1, 3, 10, 10, 0.1)]
    solved = optimise_poses({1: (5, 5), 2: (0, 0), 3: (0, 0)}, edges)
    assert solved[1] == (5, 5)
    assert solved[2] == pytest.approx((15, 5))
    assert solved[3] == pytest.approx((15, 15))


def test_the_error_of_a_loop_is_shared_by_its_edges() -> None:
    edges = [PoseEdge(k, k + 1, 10, 0, 1) for k in range(1, 5)]
    closing = PoseEdge(1, 5, 30, 0, 1)
    solved = optimise_poses({k: (10.0 * (k - 1), 0.0) for k in range(1, 6)}, [*edges, closing])
    steps = np.diff([solved[k][0] for k in range(1, 6)])
    assert steps == pytest.approx([8] * 4)


def test_what_no_edge_joins_stays() -> None:
    solved = optimise_poses({1: (0, 0), 2: (7, 7), 3: (9, 9)}, [PoseEdge(2, 3, 1, 1, 1)])
    assert solved == {1: (0, 0), 2: (7, 7), 3: (9, 9)}
