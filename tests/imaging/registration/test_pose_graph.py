"""Positions from offsets."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mil.imaging.registration import PoseEdge, settle


def test_offsets_that_agree_give_their_positions() -> None:
    links = [PoseEdge(1, 2, 10, 0, 1), PoseEdge(2, 3, 0, 10, 1), PoseEdge(1, 3, 10, 10, 0.1)]
    settled = settle({1: (5, 5), 2: (0, 0), 3: (0, 0)}, links)
    assert settled[1] == (5, 5)
    assert settled[2] == pytest.approx((15, 5))
    assert settled[3] == pytest.approx((15, 15))


def test_the_error_of_a_loop_is_shared_by_its_links() -> None:
    links = [PoseEdge(k, k + 1, 10, 0, 1) for k in range(1, 5)]
    closing = PoseEdge(1, 5, 30, 0, 1)
    settled = settle({k: (10.0 * (k - 1), 0.0) for k in range(1, 6)}, [*links, closing])
    steps = np.diff([settled[k][0] for k in range(1, 6)])
    assert steps == pytest.approx([8] * 4)


def test_what_no_link_joins_stays() -> None:
    settled = settle({1: (0, 0), 2: (7, 7), 3: (9, 9)}, [PoseEdge(2, 3, 1, 1, 1)])
    assert settled == {1: (0, 0), 2: (7, 7), 3: (9, 9)}
