"""Render one session's report as one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from edge_mil.errors import StoreError
from edge_mil.pages import page_templates
from edge_mil.session.report.charts import (
    INFLUENCE_LIMIT,
    PlotArea,
    history_chart,
    influence_cells,
    layer_cells,
    legend_steps,
    scale_bar_um,
)
from edge_mil.session.report.content import ReportContent
from edge_mil.types import RESEARCH_USE_ONLY, Verdict
from edge_mil.verdict_text import verdict_sentence

HISTORY_AREA = PlotArea(left=46, right=626, top=16, floor=258)
"""Where the curves lie in `templates/history.svg.j2`, which is 640 x 320."""


def render_report(report: ReportContent) -> str:
    """Return the page as HTML."""
    templates = page_templates("edge_mil.session.report")
    templates.filters["sentence"] = verdict_sentence
    return templates.get_template("report.html.j2").render(
        report=report,
        notice=RESEARCH_USE_ONLY,
        fields=sum(report.verdicts.values()),
        accepted=report.verdicts.get(Verdict.ACCEPTED, 0),
        heat=None if report.heat_map is None else influence_cells(report.heat_map),
        layers=[layer_cells(layer) for layer in report.layers],
        legend=legend_steps(),
        limit=INFLUENCE_LIMIT,
        history=history_chart(report.history, HISTORY_AREA),
        bar_um=None if report.mosaic is None else scale_bar_um(report.mosaic.region),
    )


def write_report(report: ReportContent, out: Path) -> None:
    """Write the page to a file.

    Raises:
        StoreError: The file cannot be written.
    """
    try:
        out.write_text(render_report(report), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The report cannot be written to {out} ({error.strerror}); name another --out."
        ) from error
