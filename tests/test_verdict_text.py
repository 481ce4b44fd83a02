"""One table of verdict sentences: complete, the same in the docs, and with the way back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from edge_mil.types import Measure, Verdict
from edge_mil.verdict_text import (
    VERDICT_TEXT,
    Reader,
    measure_sentence,
    unlocated_sentence,
    verdict_sentence,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operator.md"


@pytest.mark.parametrize("reader", get_args(Reader))
def test_every_reader_has_a_sentence_for_every_verdict(reader: Reader) -> None:
    sentences = [verdict_sentence(verdict, reader) for verdict in Verdict]
    assert all(sentences)
    assert len(set(sentences)) == len(sentences)


def test_the_operator_reads_what_happened_and_what_to_do() -> None:
    said = verdict_sentence(Verdict.BLURRED, "operator")
    assert said == "out of focus: turn the fine focus"
    assert verdict_sentence(Verdict.BLURRED, "report") == "out of focus"


def test_an_image_judged_alone_brings_nothing_to_a_score() -> None:
    assert "score" not in verdict_sentence(Verdict.ACCEPTED, "judge")


def test_the_operators_page_shows_the_table() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (.*?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    table = [(verdict.name, text.meaning, text.advice) for verdict, text in VERDICT_TEXT.items()]
    assert rows == table
    assert [name for name, _, _ in table] == [verdict.name for verdict in Verdict]


def test_a_measure_is_named_with_its_limit() -> None:
    assert measure_sentence(Measure("clipped_share", 0.8, 0.05)) == "clipped pixels 0.8, limit 0.05"
    assert measure_sentence(Measure("sharpness", 31.25)) == "sharpness 31.2"
    assert measure_sentence(Measure("of_a_later_release", 2.0)) == "of_a_later_release 2"


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ([Measure("scale_ratio", 2.0, 1.0, False)], "2 times.*objective changed"),
        ([Measure("stage_disagreement_um", 60.4, 15.0, False)], "60 µm from where the stage"),
        ([Measure("registration_response", 0.2, 0.5, False)], "0.20, 0.50 needed.*tissue"),
        (
            [
                Measure("registration_response", 0.2, 0.5, False),
                Measure("last_seen_sequence", 7),
                Measure("last_seen_x_um", 120.0),
                Measure("last_seen_y_um", -30.0),
            ],
            r"field 7, last seen at \(120, -30\) µm",
        ),
    ],
)
def test_an_unlocated_field_says_why_and_where_to_go(measures: list[Measure], words: str) -> None:
    assert re.search(words, unlocated_sentence(measures))
