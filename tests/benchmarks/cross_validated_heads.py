"""Gated ABMIL heads trained on some bags and asked about the others, for the evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_mil.types import Float32Array

FOLDS, EPOCHS, RATE, DECAY = 5, 10, 1e-4, 1e-3
"""Gentle on purpose: at five times the rate the scores saturate at 0 and 1 with no gain in AUROC,
and the few between move by up to 0.05."""


class GatedAbmil(nn.Module):
    """Gated attention pooling, Ilse et al. 2018, with the key names of MIL-Lab."""

    def __init__(self, width: int, embedding: int = 64, hidden: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Linear(width, embedding), nn.ReLU())
        self.global_attn = nn.ModuleDict(
            {
                "attention_a": nn.Sequential(nn.Linear(embedding, hidden), nn.Tanh()),
                "attention_b": nn.Sequential(nn.Linear(embedding, hidden), nn.Sigmoid()),
                "attention_c": nn.Linear(hidden, 1),
            }
        )
        self.classifier = nn.Linear(embedding, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (2,) of a bag (n, d)."""
        h = self.patch_embed(features)
        attention = self.global_attn
        logits = attention["attention_c"](attention["attention_a"](h) * attention["attention_b"](h))
        pooled = torch.softmax(logits, dim=0).T @ h
        result: torch.Tensor = self.classifier(pooled)[0]
        return result

    def probability(self, features: Float32Array) -> float:
        """Return the probability of class 1 of a bag (n, d)."""
        with torch.no_grad():
            logits = self(torch.from_numpy(features)).double()
        return float(torch.softmax(logits, 0)[1])


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A trained head and the bags that it has not seen.

    Attributes:
        score: Probability of a bag of features (n, d).
        unseen: Numbers of those bags.
        group: Heads of one group share a task and a seed; together they score each bag once.
        labels: 0 or 1 of every bag, by the task.
    """

    score: Callable[[Float32Array], float]
    unseen: tuple[int, ...]
    group: str
    labels: tuple[int, ...]


def cross_validate(
    bags: Sequence[Float32Array], tasks: dict[str, list[int]], seeds: int
) -> list[Head]:
    """Train the heads of every task, seed and fold.

    Args:
        bags: FP32 features of each bag, (n, d).
        tasks: Task -> the label of each bag.
        seeds: Of the first weights and of the folds.
    """
    heads = []
    for task, labels in tasks.items():
        for seed in range(seeds):
            folds = np.random.default_rng(seed).permutation(len(bags)) % FOLDS
            for fold in range(FOLDS):
                seen = [k for k in range(len(bags)) if folds[k] != fold]
                unseen = tuple(k for k in range(len(bags)) if folds[k] == fold)
                head = train([bags[k] for k in seen], [labels[k] for k in seen], seed)
                heads.append(Head(head.probability, unseen, f"{task} {seed}", tuple(labels)))
    return heads


def train(bags: Sequence[Float32Array], labels: Sequence[int], seed: int) -> GatedAbmil:
    """Train a head on some bags, one bag a step."""
    torch.manual_seed(seed)
    head = GatedAbmil(bags[0].shape[1])
    optimiser = torch.optim.Adam(head.parameters(), lr=RATE, weight_decay=DECAY)
    rng = np.random.default_rng(seed)
    inputs, targets = [torch.from_numpy(bag) for bag in bags], torch.tensor(labels)
    for _ in range(EPOCHS):
        for k in rng.permutation(len(bags)):
            loss = nn.functional.cross_entropy(head(inputs[k])[None], targets[k][None])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return head.eval()
