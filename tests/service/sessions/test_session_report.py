"""The report of a session: canonical JSON, and what JSON has no word for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from running_service import tissue_frames
from small_bundle import write_small_bundle

from edge_mil.errors import StoreError
from edge_mil.service.sessions.session_report import (
    MAX_SAFE_INTEGER,
    canonical,
    session_report,
)
from edge_mil.session import Session, SessionSettings


def session(tmp_path: Path, **settings: object) -> Session:
    bundle = write_small_bundle(tmp_path / "small")
    return Session(bundle, settings=SessionSettings(mpp=0.5, **settings))


def test_the_same_records_are_the_same_canonical_bytes(tmp_path: Path) -> None:
    with session(tmp_path, labels={"é": "\n", "a": "ﬃ"}) as opened:
        for frame in tissue_frames(2):
            opened.add(frame)
        report = session_report(opened)
        assert session_report(opened) == report
    document = json.loads(report)
    assert rfc8785.dumps(document) == report
    assert document["labels"] == {"é": "\n", "a": "ﬃ"}
    assert [record["sequence"] for record in document["records"]] == [1, 2]


def test_a_number_without_a_threshold_has_null_there(tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        opened.add(next(tissue_frames(1)))
        (record,) = json.loads(session_report(opened))["records"]
    assert None in {measure["threshold"] for measure in record["measures"]}


@pytest.mark.parametrize("sequence", [MAX_SAFE_INTEGER, MAX_SAFE_INTEGER + 1])
def test_a_sequence_number_that_a_double_cannot_hold_is_text(tmp_path: Path, sequence: int) -> None:
    with session(tmp_path) as opened:
        opened.add(next(tissue_frames(1)), sequence=sequence)
        (record,) = json.loads(session_report(opened))["records"]
    assert record["sequence"] == (sequence if sequence == MAX_SAFE_INTEGER else str(sequence))


def test_what_json_cannot_say_is_refused(tmp_path: Path) -> None:
    with (
        session(tmp_path, labels={"a": "\ud800"}) as opened,
        pytest.raises(StoreError, match="cannot be written"),
    ):
        session_report(opened)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), VALUES | st.lists(VALUES)), max_size=4),
    st.dictionaries(st.sampled_from(["revision", "labels"]), VALUES),
)
def test_the_fast_encoder_writes_what_rfc_8785_asks(
    records: list[dict[str, object]], labels: dict[str, object]
) -> None:
    document = {"labels": labels, "revision": 7, "x": ',"revision":'}
    whole = rfc8785.dumps({**document, "records": records})
    assert canonical(document, "records", records) == whole
