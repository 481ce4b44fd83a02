"""How the fake service answers fields: rules that a test gives, and a score that it can compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.errors import EdgeMilError
from edge_mil.types import Frame, SlideScore, Verdict

CLASSES = ("negative", "positive")


def mean_darkness(frames: Sequence[Frame]) -> SlideScore:
    """Score accepted fields by a function that a test can compute itself.

    The logit of "positive" is the mean over the fields of 1 - mean grey level / 255, that of
    "negative" is 0; every field is one instance.
    """
    logit = float(np.mean([1 - frame.pixels.mean() / 255 for frame in frames]))
    probability = 1 / (1 + float(np.exp(-logit)))
    return SlideScore(CLASSES, (0.0, logit), (1 - probability, probability), len(frames))


@dataclass(frozen=True, slots=True)
class FakeRules:
    """How the fake service answers a field.

    Attributes:
        verdict: Verdict of a frame; accepts all by default.
        score: Score of the accepted frames, at least one, in the order of sequence numbers; its
            classes are CLASSES.
        error: Error of a frame, as a field that cannot be decoded has; None for none.
    """

    verdict: Callable[[Frame], Verdict] = lambda frame: Verdict.ACCEPTED
    score: Callable[[Sequence[Frame]], SlideScore] = mean_darkness
    error: Callable[[Frame], EdgeMilError | None] = lambda frame: None
