"""The report: one page that loads nothing, says what must be said and escapes what it is told."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from edge_mil.session.report.charts import (
    INFLUENCE_LIMIT,
    LOWERS,
    RAISES,
    influence_colour,
    scale_bar_um,
)
from edge_mil.session.report.content import (
    HistoryPoint,
    MosaicImage,
    ReportContent,
    TopField,
)
from edge_mil.session.report.page import render_report
from edge_mil.types import CellLayer, InfluenceMap, Region, SlideScore, Verdict

JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 200, np.uint8))[1].tobytes()
VALUES = np.array([[np.nan, 0.4], [-0.3, 0.001]], np.float32)
CONTENT = ReportContent(
    title="slide <script>alert(1)</script>",
    subtitle="today",
    bundle_name="a & b",
    bundle_digest="sha256:" + "0" * 64,
    class_name="tumour",
    score=SlideScore(("normal", "tumour"), (-1.0, 1.5), (0.076, 0.924), instances=3),
    coverage=0.41,
    history=(
        HistoryPoint(1, Verdict.BLANK, None, 0.0),
        HistoryPoint(2, Verdict.ACCEPTED, 0.3, 0.2),
        HistoryPoint(3, Verdict.ACCEPTED, 0.924, 0.41),
    ),
    verdicts={Verdict.ACCEPTED: 2, Verdict.BLANK: 1},
    mosaic=MosaicImage(JPEG, Region(0.0, 0.0, 400.0, 300.0)),
    heat_map=InfluenceMap("tumour", 64.0, 64.0, 64.0, 64.0, VALUES, 3),
    top_fields=(TopField(3, 1.25, JPEG, Region(50.0, 50.0, 200.0, 150.0)),),
    settings={"session": "01ABC"},
    about_model=("Trained on nothing.",),
)


class _Page(HTMLParser):
    """Notes tags and every address of a page; refuses tags that are not closed."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    page = _Page(render_report(CONTENT))
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in render_report(CONTENT)


def test_what_it_is_told_is_escaped() -> None:
    page = render_report(CONTENT)
    assert "<script>" not in page
    assert "a &amp; b" in page


def test_it_says_research_use_coverage_and_the_bundles_digest() -> None:
    page = render_report(CONTENT)
    assert "Research use only. Not for diagnosis." in page
    assert "41%" in page
    assert CONTENT.bundle_digest in page
    assert "Trained on nothing." in page


def test_each_verdict_is_counted_and_explained() -> None:
    page = render_report(CONTENT)
    assert "<td>brought something new to the score</td>" in page
    assert '<td class="n">2</td><td class="n">67%</td>' in page
    assert '<rect class="verdict BLANK"' in page


@pytest.mark.parametrize(
    ("width_um", "bar_um"), [(1536.0, 200.0), (60_000.0, 10_000.0), (3.0, 0.5), (0.0, 1.0)]
)
def test_the_scale_bar_is_a_round_number_that_fits(width_um: float, bar_um: float) -> None:
    assert scale_bar_um(Region(0.0, 0.0, width_um, 10.0)) == bar_um


def test_the_legend_has_numbers_and_names_the_class() -> None:
    page = render_report(CONTENT)
    assert f"+{INFLUENCE_LIMIT:g}" in page
    assert f"-{INFLUENCE_LIMIT:g}" in page
    assert "raises tumour" in page


def test_only_cells_that_changed_the_score_are_coloured() -> None:
    heat = re.search(r'<g class="heat">(.*?)</g>', render_report(CONTENT), re.DOTALL)
    assert heat is not None
    assert heat[1].count("<rect") == 2
    assert "+0.400 logit" in heat[1]
    assert 'x="128" y="64"' in heat[1]


def test_the_scale_is_fixed_signed_and_full_at_its_limit() -> None:
    assert influence_colour(0.1)[0] == RAISES
    assert influence_colour(-0.1)[0] == LOWERS
    assert influence_colour(0.1)[1] == influence_colour(-0.1)[1]
    assert influence_colour(9.0) == influence_colour(INFLUENCE_LIMIT)


@pytest.mark.parametrize(
    "less",
    [
        {"score": None, "history": (HistoryPoint(1, Verdict.BLANK, None, 0.0),), "top_fields": ()},
        {"mosaic": None, "heat_map": None},
        {"history": (HistoryPoint(1, Verdict.ACCEPTED, 0.5, 1.0),)},
        {"history": (), "verdicts": {}},
        {"score": SlideScore(("risk", "tumour"), (0.5, -2.0), (), instances=1)},
    ],
    ids=["no score", "no positions", "one field", "no field", "no probabilities"],
)
def test_less_is_a_page_too(less: dict[str, object]) -> None:
    page = render_report(dataclasses.replace(CONTENT, **less))  # type: ignore[arg-type]
    assert "nan" not in _without_pictures(page)
    _Page(page)


def _without_pictures(page: str) -> str:
    return re.sub(r"base64,[^\"]*", "", page)


def test_focus_and_coverage_are_layers_that_are_switched_on() -> None:
    values = np.array([[1.0, 0.5], [0.0, np.nan]], np.float32)
    layers = (
        CellLayer("focus", 0.0, 0.0, 100.0, 100.0, values * 50 + 1),
        CellLayer("coverage", 0.0, 0.0, 100.0, 100.0, values),
    )
    page = render_report(dataclasses.replace(CONTENT, layers=layers))
    for name in ("focus", "coverage"):
        assert f'<input type="checkbox" id="{name}"><label for="{name}">' in page
        assert len(re.findall(rf'<g class="{name}">\s*<rect', page)) == 1
    assert "<title>50% seen</title>" in page
    assert "<title>sharpness 51</title>" in page
    # A cell of which nothing is known is not drawn.
    assert page.count("seen</title>") == 3
