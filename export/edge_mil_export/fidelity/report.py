"""`fidelity.json`: what was compared, on which bags, and how far the scores moved."""

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
class Fp16Result:
    """The FP16 graph, serialised, and its agreement with the reference."""

    agreement: Agreement
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fidelity:
    """The comparisons of one export.

    Attributes:
        framework: What computed the reference: torch, or the ONNX file.
        graph_error: Largest difference of the FP32 graph's features from the reference's on noise,
            of max(1, largest feature).
        fp32: The FP32 graph against the reference.
        int8: Dialect -> the recipe that it takes, and those that were tried.
        between_dialects: The two dialects against each other; None without INT8.
        max_difference: What a slide score may move by.
        measured_on: The bags.
        fp16: The FP16 graph; None without it.
        robustness: Fault of a camera -> how far it moves the FP32 graph's scores; empty where it
            was not measured.
    """

    framework: str
    graph_error: float
    fp32: Agreement
    int8: Mapping[str, SearchResult]
    between_dialects: Agreement | None
    max_difference: float
    measured_on: FidelitySet
    fp16: Fp16Result | None = None
    robustness: Mapping[str, Agreement] = dataclasses.field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        tiles = self.measured_on
        comparisons: dict[str, Any] = {"fp32": _figures(self.fp32)}
        if self.fp16 is not None:
            comparisons["fp16"] = _figures(self.fp16.agreement)
        for dialect, search in self.int8.items():
            comparisons[f"int8-{dialect}"] = {
                **_figures(search.chosen.agreement),
                "form": _recipe(search.chosen),
                "ladder": [_step(candidate) for candidate in search.candidates],
            }
        document: dict[str, Any] = {
            "notice": RESEARCH_USE_ONLY,
            "reference": f"{self.framework} FP32",
            "max_score_difference": self.max_difference,
            "fp32_graph_error": self.graph_error,
            "measured_on": {
                "source": tiles.source,
                "bags": [
                    {"name": name, "tiles": count}
                    for bag in tiles.bags
                    for name, count in bag.scored()
                ],
                "tiles": sum(len(bag.tiles) for bag in tiles.bags),
            },
            "comparisons": comparisons,
        }
        if tiles.calibration is not None and self.int8:
            document["calibration"] = {
                "tiles": len(tiles.calibration),
                "files": list(tiles.calibration_files),
            }
        if self.between_dialects is not None:
            document["int8_cpu_against_trt"] = _figures(self.between_dialects)
        if self.robustness:
            document["robustness"] = {
                name: _without_bags(agreement) for name, agreement in self.robustness.items()
            }
        return document

    def to_json(self) -> bytes:
        return (json.dumps(self.document(), indent=2, sort_keys=True) + "\n").encode()


def _step(candidate: Candidate) -> dict[str, Any]:
    shifted = {}
    if candidate.shifted is not None:
        shifted["shifted_stain"] = _without_bags(candidate.shifted)
    return {"form": _recipe(candidate), **_without_bags(candidate.agreement), **shifted}


def _recipe(candidate: Candidate) -> dict[str, Any]:
    return {
        "calibration": candidate.recipe.method,
        "fp32_layers": candidate.recipe.fp32_layers,
        "name": candidate.recipe.name,
    }


def _figures(agreement: Agreement) -> dict[str, Any]:
    found = dataclasses.asdict(agreement)
    moved = found.pop("score_differences")
    figures = {name: _rounded(number) for name, number in found.items()}
    return {**figures, "score_difference_per_bag": [_rounded(number) for number in moved]}


def _without_bags(agreement: Agreement) -> dict[str, Any]:
    figures = _figures(agreement)
    del figures["score_difference_per_bag"]
    return figures


def _rounded(number: Any) -> Any:
    return round(number, DIGITS) if isinstance(number, float) else number
