"""Render `fidelity.html`: the figures of fidelity.json for people, in one file."""

from __future__ import annotations

from typing import Any

from edge_mil.pages import page_templates

SHIFTED = "shifted_stain_difference_max"
COLUMNS = (
    ("score_difference_mean", "Score moved, mean"),
    ("score_difference_max", "Score moved, max"),
    ("class_flips", "Class flips"),
    ("centred_cosine_median", "Centred cosine, median"),
    ("centred_cosine_min", "Centred cosine, min"),
    ("raw_cosine_median", "Raw cosine, median"),
    ("raw_cosine_min", "Raw cosine, min"),
    ("attention_rank_correlation", "Attention rank correlation"),
)
LADDER_COLUMNS = (*COLUMNS[:5], (SHIFTED, "Score moved with stain shifted, max"))
NAMES = {
    "fp32": "FP32 graph (ONNX Runtime)",
    "fp16": "FP16 for TensorRT, here in ONNX Runtime",
    "int8-cpu": "INT8 for ONNX Runtime (cpu)",
    "int8-trt": "INT8 for TensorRT (trt), here in ONNX Runtime",
}

Row = tuple[str, dict[str, Any], bool]
"""Label of a row, its figures by name, and whether the row was chosen."""


def render_page(name: str, document: dict[str, Any]) -> bytes:
    """Return the page of a bundle's fidelity report.

    Args:
        name: The bundle's name.
        document: From `Fidelity.document`.
    """
    comparisons: dict[str, Any] = document["comparisons"]
    graphs: list[Row] = [(NAMES[key], figures, False) for key, figures in comparisons.items()]
    if "int8_cpu_against_trt" in document:
        between = document["int8_cpu_against_trt"]
        graphs.append(("The two INT8 dialects against each other", between, False))
    ladders = [
        (NAMES[key], _ladder(figures))
        for key, figures in comparisons.items()
        if "ladder" in figures
    ]
    templates = page_templates("edge_mil_export.fidelity")
    templates.filters["figure"] = _figure
    page = templates.get_template("fidelity.html.j2").render(
        name=name,
        fidelity=document,
        names=NAMES,
        columns=COLUMNS,
        graphs=graphs,
        ladder_columns=LADDER_COLUMNS,
        ladders=ladders,
        faults=[
            (label, figures, False) for label, figures in document.get("robustness", {}).items()
        ],
    )
    return page.encode()


def _ladder(figures: dict[str, Any]) -> list[Row]:
    """Return the forms that were tried for one dialect, the chosen one marked."""
    rows = []
    for tried in figures["ladder"]:
        moved = tried.get("shifted_stain", {}).get("score_difference_max")
        form = tried["form"]
        rows.append((form["name"], {**tried, SHIFTED: moved}, form == figures["form"]))
    return rows


def _figure(value: float | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
