"""Train a head from scratch on a unit test, and measure it on the poisoned bags."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_mil.types import Float32Array, Float64Array, Int64Array
from edge_mil_export.audit.unit_tests import (
    BAG,
    UNIT_TESTS,
    WIDTH,
    UnitTest,
    draw_bags,
    standardised,
)

CLASSES = 2
LEARNED, CHEATS, NOTHING, RESPECTS = 0.6, 0.45, 0.55, 0.9
"""Mean AUROC: below LEARNED on train, nothing was learned; on test, below CHEATS the shortcut was
used, up to NOTHING nothing carries over, from RESPECTS on the assumption holds."""
CHANCE_SPREAD = 0.12
"""Three standard errors of the AUROC of 100 positive and 100 negative bags of no difference:
sqrt((100 + 100 + 1) / (12 * 100 * 100)) = 0.041 (Hanley and McNeil 1982)."""

SHAPE = (BAG, WIDTH)

Maker = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a training; the notebook has 10 000 and 1 000 bags, these fit two cores.

    Attributes:
        train: Bags trained on.
        test: Bags of the poisoned test.
        epochs: As in the notebook.
        batch: Bags of one step of AdamW, whose other settings are torch's defaults.
    """

    train: int = 400
    test: int = 200
    epochs: int = 20
    batch: int = 20


SLOW_SIZES = Sizes(train=200, epochs=10, batch=10)
"""For heads that see the whole bag: a bag costs them some ten times as much."""
SEEDS = 5
"""Trainings of each test, the same for every head."""
SCORED = 50
"""Bags that are scored at once."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training: AUROC and accuracy (at 0.5) on train and on the poisoned test."""

    train_auroc: float
    test_auroc: float
    train_accuracy: float
    test_accuracy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A head in one test, the mean over the seeds.

    Attributes:
        test: Number of the test.
        name: Its name.
        train_auroc: Whether the task was learned.
        test_auroc: Below 0.5 the shortcut was used.
        train_accuracy: At a probability of 0.5.
        test_accuracy: At a probability of 0.5.
        spread: Standard deviation of the test AUROC over the seeds; 0 for one.
        seeds: How many trainings.
        verdict: respects, in part, can cheat, learned nothing, or undecided.
    """

    test: int
    name: str
    train_auroc: float
    test_auroc: float
    train_accuracy: float
    test_accuracy: float
    spread: float
    seeds: int
    verdict: str


def audit(make: Maker, *, seeds: int, sizes: Sizes | None = None) -> tuple[list[Outcome], float]:
    """Train a head on every test.

    Args:
        make: Returns a freshly initialised head, features (n, WIDTH) to logits (c,).
        seeds: Trainings of each test; they differ in the bags and in the first weights.
        sizes: How much is trained.

    Returns:
        One outcome for each test, and the CPU seconds taken.
    """
    start = time.process_time()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small gain nothing from more
    try:
        found = [
            _outcome(test, [_train(make, test, seed, sizes or Sizes()) for seed in range(seeds)])
            for test in UNIT_TESTS
        ]
    finally:
        torch.set_num_threads(threads)
    return found, time.process_time() - start


def verdict(train_auroc: float, test_auroc: float, spread: float = 0.0) -> str:
    """Return the verdict on a head.

    Args:
        train_auroc: Mean over the seeds.
        test_auroc: Mean over the seeds.
        spread: Standard deviation of the test AUROC over the seeds. Where it is more than chance
            and leads from cheating to more than nothing, the mean says nothing: undecided.
    """
    if train_auroc < LEARNED:
        return "learned nothing"
    straddles = test_auroc - spread < CHEATS and test_auroc + spread >= NOTHING
    if spread > CHANCE_SPREAD and straddles:
        return "undecided"
    if test_auroc < CHEATS:
        return "can cheat"
    if test_auroc < NOTHING:
        return "learned nothing"
    return "respects" if test_auroc >= RESPECTS else "in part"


def auroc(scores: Float64Array, labels: Int64Array) -> float:
    """Return the share of (positive, negative) pairs in the right order; a tie counts half."""
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
    positive = labels == 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def _outcome(test: UnitTest, runs: Sequence[Run]) -> Outcome:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(run, name) for run in runs)

    train, poisoned = mean("train_auroc"), mean("test_auroc")
    spread = statistics.stdev(r.test_auroc for r in runs) if len(runs) > 1 else 0.0
    return Outcome(
        test.number,
        test.name,
        train,
        poisoned,
        mean("train_accuracy"),
        mean("test_accuracy"),
        spread,
        len(runs),
        verdict(train, poisoned, spread),
    )


def _train(make: Maker, test: UnitTest, seed: int, sizes: Sizes) -> Run:
    rng = np.random.default_rng([test.number, seed])
    train, poisoned = standardised(
        draw_bags(test, rng, sizes.train, poisoned=False),
        draw_bags(test, rng, sizes.test, poisoned=True),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _TwoClasses(make())
        scorer = _scorer(model, train.instances)
        rate = torch.optim.AdamW(model.parameters())
        bags, labels = torch.from_numpy(train.instances), torch.from_numpy(train.labels)
        for _ in range(sizes.epochs):
            for rows in torch.split(torch.randperm(len(bags)), sizes.batch):
                loss = nn.functional.cross_entropy(scorer(bags[rows]), labels[rows])
                rate.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                rate.step()
    found = []
    with torch.no_grad():
        for split in (train, poisoned):
            logits = torch.cat(
                [scorer(part) for part in torch.split(torch.from_numpy(split.instances), SCORED)]
            )
            margins = (logits[:, 1] - logits[:, 0]).double().numpy()
            right = float(((margins > 0) == (split.labels == 1)).mean())
            found.append((auroc(margins, split.labels), right))
    return Run(found[0][0], found[1][0], found[0][1], found[1][1])


class _TwoClasses(nn.Module):
    """A head with two logits: its own, one against zero, or a linear layer on its outputs."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head.train().requires_grad_(requires_grad=True)
        with torch.no_grad():
            outputs = len(head(torch.zeros(SHAPE)))
        self.tail: nn.Module = nn.Identity()
        self.single = outputs == 1
        if outputs > CLASSES:
            self.tail = nn.Linear(outputs, CLASSES)

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        """Return two logits (2,) of a bag (n, d)."""
        logits: torch.Tensor = self.tail(self.head(bag))
        return nn.functional.pad(logits, (1, 0)) if self.single else logits


def _scorer(model: nn.Module, sample: Float32Array) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that scores many bags: by vmap where the head allows it, else in turn."""

    def in_turn(bags: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(bag) for bag in bags])

    at_once = torch.func.vmap(model)
    few = torch.from_numpy(sample[:3])
    with torch.no_grad():
        wanted = in_turn(few)
        try:
            same = bool(torch.allclose(at_once(few), wanted, rtol=1e-3, atol=1e-4))
        except (RuntimeError, TypeError, ValueError):  # it branches on what is in the bag
            return in_turn
    return at_once if same else in_turn
