"""`fidelity.json`: what was compared, on what, and how far the scores moved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from edge_mil.types import RESEARCH_USE_ONLY
from edge_mil_export.agreement import Agreement
from edge_mil_export.fidelity.bags import FidelitySet
from edge_mil_export.quantize.search import Candidate, SearchResult

DIGITS = 6


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Half:
    """The FP16 graph against the reference, and the graph."""

    agreement: Agreement
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fidelity:
    """All that was measured of one export.

    Attributes:
        framework: What computed the reference: torch, or the ONNX file.
        graph_error: Largest difference of the FP32 graph's features from the reference's on noise,
            of max(1, largest feature).
        fp32: The FP32 graph against the reference.
        climbs: Dialect -> its ladder.
        between: The two dialects against each other; None without INT8.
        max_difference: What a slide score may move by.
        measured_on: The bags.
        half: FP16; None without it.
    """

    framework: str
    graph_error: float
    fp32: Agreement
    climbs: Mapping[str, SearchResult]
    between: Agreement | None
    max_difference: float
    measured_on: FidelitySet
    half: Half | None = None

    def document(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        on = self.measured_on
        comparisons: dict[str, Any] = {"fp32": _figures(self.fp32)}
        if self.half is not None:
            comparisons["fp16"] = _figures(self.half.agreement)
        for dialect, climb in self.climbs.items():
            comparisons[f"int8-{dialect}"] = {
                **_figures(climb.chosen.agreement),
                "form": _rung(climb.chosen),
                "ladder": [_step(tried) for tried in climb.tried],
            }
        document: dict[str, Any] = {
            "notice": RESEARCH_USE_ONLY,
            "reference": f"{self.framework} FP32",
            "max_score_difference": self.max_difference,
            "fp32_graph_error": self.graph_error,
            "measured_on": {
                "source": on.source,
                "bags": [
                    {"name": name, "tiles": tiles}
                    for bag in on.bags
                    for name, tiles in bag.scored()
                ],
                "tiles": sum(len(bag.tiles) for bag in on.bags),
            },
            "comparisons": comparisons,
        }
        if on.calibration is not None and self.climbs:
            document["calibration"] = {
                "tiles": len(on.calibration),
                "files": list(on.calibration_files),
            }
        if self.between is not None:
            document["int8_cpu_against_trt"] = _figures(self.between)
        return document

    def to_json(self) -> bytes:
        """Return the bytes of `fidelity.json`."""
        return (json.dumps(self.document(), indent=2, sort_keys=True) + "\n").encode()


def _step(tried: Candidate) -> dict[str, Any]:
    shifted = {} if tried.shifted is None else {"shifted_stain": _short(tried.shifted)}
    return {"form": _rung(tried), **_short(tried.agreement), **shifted}


def _rung(tried: Candidate) -> dict[str, Any]:
    return {
        "calibration": tried.rung.method,
        "fp32_layers": tried.rung.fp32_layers,
        "name": tried.rung.name,
    }


def _figures(agreement: Agreement) -> dict[str, Any]:
    found = dataclasses.asdict(agreement)
    moved = found.pop("score_differences")
    figures = {name: _rounded(number) for name, number in found.items()}
    return {**figures, "score_difference_per_bag": [_rounded(number) for number in moved]}


def _short(agreement: Agreement) -> dict[str, Any]:
    figures = _figures(agreement)
    del figures["score_difference_per_bag"]
    return figures


def _rounded(number: Any) -> Any:
    return round(number, DIGITS) if isinstance(number, float) else number
