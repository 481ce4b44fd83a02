"""A microscope that errs ends on the score of a perfect one; staring changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from imperfect_table import ALL, LIMIT, ROWS, Subject, moved, painted_subject, real_subject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["real", "with foci", "without foci"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("s")
    if request.param == "real":
        found = real_subject(folder)
    else:
        found = painted_subject(folder, positive=request.param == "with foci")
    yield found
    assert found.service.stop() == 0


@pytest.fixture(scope="module")
def clean(subject: Subject) -> dict[str, Any]:
    return subject.stream()


@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS.keys())
def test_each_fault_and_all_together_end_near_the_clean_score(
    subject: Subject, clean: dict[str, Any], options: tuple[str, ...]
) -> None:
    assert moved(subject.stream(*options), clean) <= LIMIT


def test_staring_for_three_hundred_frames_changes_nothing_at_all(
    subject: Subject, clean: dict[str, Any]
) -> None:
    stared = subject.stream("--dwell", "300")
    assert stared["score"] == clean["score"]
    assert stared["instances"] == clean["instances"]
    assert sum(stared["fields"].values()) == sum(clean["fields"].values()) + 300


def test_staring_with_everything_wrong_changes_no_cell(subject: Subject) -> None:
    before = subject.stream(*ALL)
    stared = subject.stream(*ALL, "--dwell", "60")
    assert stared["instances"] == before["instances"]
    assert moved(stared, before) <= 1e-3
