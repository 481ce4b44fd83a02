"""Values come back from the wire as they went."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_mil.rpc.results import (
    decode_result,
    encode_result,
    encode_score,
    epoch_seconds,
    timestamp,
)
from edge_mil.types import FieldResult, Measure, SlideScore, Verdict

numbers = st.floats(allow_nan=False)
counts = st.integers(0, 2**31)
names = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def scores(draw: st.DrawFn) -> SlideScore:
    k = draw(st.integers(1, 4))

    def row(size: int) -> st.SearchStrategy[tuple[float, ...]]:
        return st.lists(numbers, min_size=size, max_size=size).map(tuple)

    return SlideScore(
        classes=tuple(draw(st.lists(names, min_size=k, max_size=k))),
        logits=draw(row(k)),
        probabilities=draw(st.one_of(st.just(()), row(k))),
        instances=draw(counts),
        value=draw(st.one_of(st.none(), numbers)),
        pooled=draw(row(2)),
    )


results = st.builds(
    FieldResult,
    sequence=st.integers(1, 2**63),
    verdict=st.sampled_from(Verdict),
    measures=st.lists(st.builds(Measure, names, numbers, numbers, st.booleans())).map(tuple),
    score=st.one_of(st.none(), scores()),
    revision=counts,
    fields_held=counts,
    coverage=st.floats(0, 1),
    cells_added=st.integers(0, 1000),
    cells_improved=st.integers(0, 1000),
    cells_held=counts,
    timings_s=st.just({"gate": 0.25, "fold": 1.5}),
)


@given(results)
def test_an_answer_comes_back_whole(result: FieldResult) -> None:
    assert decode_result(encode_result(result)) == result


@given(results)
def test_the_same_answer_is_the_same_bytes(result: FieldResult) -> None:
    first, second = encode_result(result), encode_result(result)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_threshold_that_is_none_stays_nan() -> None:
    result = FieldResult(1, Verdict.BLANK, (Measure("tissue_share", 0.0),))
    assert math.isnan(decode_result(encode_result(result)).measures[0].threshold)


def test_no_score_yet_is_a_message_without_classes() -> None:
    message = encode_score(None, revision=3, fields=0, coverage=0.0)
    assert (message.revision, len(message.classes)) == (3, 0)


@given(st.floats(0, 4e9))
def test_times_keep_their_microseconds(seconds: float) -> None:
    assert abs(epoch_seconds(timestamp(seconds)) - seconds) < 1e-6
