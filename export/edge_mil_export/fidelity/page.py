"""`fidelity.html`: the same figures for people, in one file that needs nothing else."""

from __future__ import annotations

import html
from typing import Any

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
LADDER = (*COLUMNS[:5], (SHIFTED, "Score moved with stain shifted, max"))
NAMES = {
    "fp32": "FP32 graph (ONNX Runtime)",
    "fp16": "FP16 for TensorRT, here in ONNX Runtime",
    "int8-cpu": "INT8 for ONNX Runtime (cpu)",
    "int8-trt": "INT8 for TensorRT (trt), here in ONNX Runtime",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto;
       max-width: 70rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { border-bottom: 1px solid #d5dae2; padding: .35rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #7a8598; vertical-align: bottom; }
.chosen td { background: #e6f2ea; font-weight: 600; }
.notice { border-left: 4px solid #b3541e; padding-left: .8rem; }
"""


def render_page(name: str, document: dict[str, Any]) -> bytes:
    """Return the page of a bundle's fidelity report.

    Args:
        name: The bundle's name.
        document: From `Fidelity.document`.
    """
    limit, on = document["max_score_difference"], document["measured_on"]
    comparisons: dict[str, Any] = document["comparisons"]
    rows = [(NAMES[key], figures) for key, figures in comparisons.items()]
    if "int8_cpu_against_trt" in document:
        rows.append(("The two INT8 dialects against each other", document["int8_cpu_against_trt"]))
    parts = [
        f"<h1>Fidelity of {html.escape(name)}</h1>",
        f'<p class="notice">{html.escape(document["notice"])}</p>',
        f"<p>Each graph against {html.escape(document['reference'])}. A slide score may move by "
        f"{limit:g}. Measured on {len(on['bags'])} bags ({on['tiles']} tiles): "
        f"{html.escape(on['source'])}.</p>",
        _table("Graph", COLUMNS, [(label, figures, False) for label, figures in rows]),
        "<p>Centred: after the mean feature of the reference is taken off both; raw cosines hide "
        "what differs. Attention rank correlation is Spearman's, within each bag.</p>",
    ]
    for key, figures in comparisons.items():
        if "ladder" in figures:
            parts.append(_ladder(NAMES[key], figures))
    parts.append(_bags(comparisons, on))
    if "calibration" in document:
        given = document["calibration"]
        files = ", ".join(html.escape(file) for file in given["files"])
        parts.append(f"<h2>Calibration</h2><p>{given['tiles']} tiles of: {files}.</p>")
    body = "\n".join(parts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fidelity of {html.escape(name)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
    return page.encode()


def _ladder(label: str, figures: dict[str, Any]) -> str:
    rows = []
    for step in figures["ladder"]:
        moved = step.get("shifted_stain", {}).get("score_difference_max")
        row = {**step, SHIFTED: moved}
        rows.append((step["form"]["name"], row, step["form"] == figures["form"]))
    return f"<h2>Forms tried: {html.escape(label)}</h2>" + _table("Form", LADDER, rows)


def _bags(comparisons: dict[str, Any], on: dict[str, Any]) -> str:
    names = list(comparisons)
    head = "".join(f"<th>{html.escape(NAMES[key])}</th>" for key in names)
    body = []
    for number, bag in enumerate(on["bags"]):
        cells = "".join(
            f"<td>{comparisons[key]['score_difference_per_bag'][number]:.4f}</td>" for key in names
        )
        body.append(f"<tr><td>{html.escape(bag['name'])}</td><td>{bag['tiles']}</td>{cells}</tr>")
    return (
        '<h2>Score moved, bag by bag</h2><div class="wide"><table><thead><tr><th>Bag</th>'
        f"<th>Tiles</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _table(
    first: str,
    columns: tuple[tuple[str, str], ...],
    rows: list[tuple[str, dict[str, Any], bool]],
) -> str:
    head = "".join(f"<th>{label}</th>" for _, label in columns)
    body = []
    for label, figures, chosen in rows:
        cells = "".join(f"<td>{_number(figures[key])}</td>" for key, _ in columns)
        mark = ' class="chosen"' if chosen else ""
        body.append(f"<tr{mark}><td>{html.escape(label)}</td>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr><th>{first}</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
