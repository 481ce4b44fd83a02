"""The operator is told why, and the way back."""

from __future__ import annotations

import re

import pytest

from edge_mil.imaging.registration import why_unlocated
from edge_mil.types import Measure


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ([Measure("scale_ratio", 2.0, 1.0, False)], "2 times.*objective was changed"),
        ([Measure("stage_disagreement_um", 60.4, 15.0, False)], "60 um from where the stage"),
        ([Measure("registration_response", 0.2, 0.5, False)], "0.20, 0.50 needed.*tissue"),
        (
            [
                Measure("registration_response", 0.2, 0.5, False),
                Measure("last_seen_sequence", 7),
                Measure("last_seen_x_um", 120.0),
                Measure("last_seen_y_um", -30.0),
            ],
            r"field 7, last seen at \(120, -30\) um",
        ),
    ],
)
def test_the_words_say_why_and_where_to(measures: list[Measure], words: str) -> None:
    assert re.search(words, why_unlocated(measures))
