"""Draw the synthetic bags of the three algorithmic unit tests for multiple-instance learning.

Each test offers a shortcut in training that the standard assumption (a bag is positive because of
what is in it) forbids, and punishes it in the test split.

Source:
    Raff and Holt 2023, arXiv:2310.17867; the constructions are those of their released code
    (`docs/design/aggregators.md`, "The audit"): N(mu, sd) with sd a standard deviation, i.i.d. per
    coordinate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_mil.types import Float32Array, Float64Array, Int64Array

WIDTH = 16
"""Coordinates of an instance."""
BAG = 45
"""Instances of a bag: the rest is background, as their notebook fills bags for networks."""

Rng = np.random.Generator
Draw = Callable[[Rng, int], Float64Array]


def _normal(mean: float, deviation: float) -> Draw:
    return lambda rng, count: rng.normal(mean, deviation, (count, WIDTH))


BACKGROUND, POISON, CONCEPT = _normal(0, 1), _normal(-10, 0.1), _normal(0, 3)
A, B = _normal(2, 0.1), _normal(3, 0.1)
RARE_A, RARE_B = _normal(-2, 0.1), _normal(2, 0.1)


def single_concept(rng: Rng, *, positive: bool, poisoned: bool) -> list[Float64Array]:
    """Test 1: a concept makes a bag positive; in training, poison marks the negative ones."""
    concept = CONCEPT(rng, int(rng.integers(1, 4))) if positive else CONCEPT(rng, 0)
    poison = POISON(rng, int(positive == poisoned))
    return [concept, poison]


def both_concepts(rng: Rng, *, positive: bool, poisoned: bool) -> list[Float64Array]:
    """Test 2: A and B are both needed; in training, poison marks the negative bags."""
    if positive:
        poison = POISON(rng, int(poisoned or rng.random() < 0.1))
        return [A(rng, int(rng.integers(1, 5))), B(rng, int(rng.integers(1, 5))), poison]
    one = A if rng.random() < 0.5 else B
    return [one(rng, 1), POISON(rng, int(not poisoned))]


def false_frequency(rng: Rng, *, positive: bool, poisoned: bool) -> list[Float64Array]:
    """Test 3: one of each is needed; negative test bags hold very many of one kind."""
    if positive:
        return [RARE_A(rng, 1), RARE_B(rng, 1)]
    if not poisoned:
        return [(RARE_A if rng.random() < 0.5 else RARE_B)(rng, 1)]
    one = RARE_A if rng.random() < 4 / 9 else RARE_B
    return [one(rng, int(rng.integers(35, 40)))]


@dataclass(frozen=True, slots=True)
class UnitTest:
    """One test.

    Attributes:
        number: 1, 2 or 3.
        name: For people.
        draw: Draws the marked instances of a bag.
    """

    number: int
    name: str
    draw: Callable[..., list[Float64Array]]


UNIT_TESTS = (
    UnitTest(1, "single concept", single_concept),
    UnitTest(2, "both concepts", both_concepts),
    UnitTest(3, "false frequency", false_frequency),
)


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """Bags of one split.

    Attributes:
        instances: float32 (bags, BAG, WIDTH).
        labels: int64 (bags,): 0 or 1, half of each.
    """

    instances: Float32Array
    labels: Int64Array


def draw_bags(test: UnitTest, rng: Rng, count: int, *, poisoned: bool) -> Bags:
    """Draw a split: half of the bags negative, half positive.

    The instances of a bag are shuffled: a head that sees their order learns nothing from it.

    Args:
        test: Which test.
        rng: Source of all draws.
        count: Bags.
        poisoned: False draws the training split, True the test split that punishes the shortcut.
    """
    labels = np.arange(count, dtype=np.int64) % 2
    bags = np.empty((count, BAG, WIDTH), dtype=np.float32)
    for bag, label in zip(bags, labels.tolist(), strict=True):
        marked = np.concatenate(test.draw(rng, positive=bool(label), poisoned=poisoned))
        rows = np.concatenate([marked, BACKGROUND(rng, BAG - len(marked))])
        bag[:] = rng.permutation(rows)
    return Bags(bags, labels)


def standardised(train: Bags, test: Bags) -> tuple[Bags, Bags]:
    """Return both splits, each coordinate scaled by the training instances' mean and deviation."""
    rows = train.instances.reshape(-1, WIDTH)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scaled = [Bags((b.instances - mean) / deviation, b.labels) for b in (train, test)]
    return scaled[0], scaled[1]
