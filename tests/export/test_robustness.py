"""How far named faults of a camera move a bundle's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_mil_export.bundle.model_card import _robustness_lines
from edge_mil_export.fidelity.bags import Bag
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.fidelity.robustness import FAULTS, measure_robustness

from edge_mil.types import Float32Array, Float64Array, UInt8Array

TILE = (64, 64)


class MeanColour:
    """A head that reads the mean of the first feature: the brightness of red."""

    def score(self, features: Float32Array) -> Float64Array:
        return np.array([float(features[:, 0].mean())])

    def attention_logits(self, features: Float32Array) -> None:
        return None


def colours(tiles: UInt8Array) -> Float32Array:
    return (tiles.mean(axis=(1, 2)) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def bags() -> tuple[Bag, ...]:
    return tuple(Bag(f"bag {k}", paint_tiles(6, TILE, k)) for k in range(3))


def test_a_head_that_reads_colour_moves_with_the_lamp_and_not_with_focus(
    bags: tuple[Bag, ...],
) -> None:
    found = measure_robustness(colours, MeanColour(), bags)
    assert set(found) == set(FAULTS)
    assert found["white balance, red +5 %"].score_difference_mean > 0.01
    assert found["white balance, blue -10 %"].score_difference_mean == 0
    assert found["blur, sigma 1.2 px"].score_difference_mean < 0.002


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_keeps_the_size_and_changes_the_tile_the_same_each_time(name: str) -> None:
    tile = paint_tiles(1, TILE, 0)[0]
    once, again = FAULTS[name](tile), FAULTS[name](tile)
    assert once.shape == tile.shape
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert not np.array_equal(once, tile)


def test_the_model_card_has_a_line_for_each_fault_that_was_measured() -> None:
    figures: dict[str, Any] = {
        "score_difference_mean": 0.01,
        "score_difference_max": 0.02,
        "class_flips": 0,
    }
    lines = _robustness_lines({"robustness": {"gamma 0.9": figures}})
    assert "| gamma 0.9 | 0.0100 | 0.0200 | 0 |" in lines
    assert _robustness_lines({}) == []
