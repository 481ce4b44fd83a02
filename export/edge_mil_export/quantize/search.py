"""The ladder: each dialect takes the first form whose slide scores stay where FP32 puts them.

Networks have opposite needs (EfficientNet-Lite0 wants MinMax and an FP32 stem, ResNet-18 in the
trt dialect percentiles and any stem), so it is a search on held-back bags, not a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx

from edge_mil_export.agreement import Agreement
from edge_mil_export.errors import QuantizationError
from edge_mil_export.onnx_export.graph_surgery import GraphView
from edge_mil_export.progress import progress
from edge_mil_export.quantize.calibration import Calibrator
from edge_mil_export.quantize.qdq import quantize
from edge_mil_export.quantize.sensitivity import Sensitivity

MEAN_SHARE = 0.25
"""The mean should stay below this share of the maximum allowed: 0.005 of 0.02."""
CENTRED_FLOOR = 0.95
"""Smallest centred cosine of a tile. One head on its own bags can be lucky: EfficientNet-Lite0 with
an INT8 stem (0.86) moved the scores of the bundle's head by 0.02 at most and those of heads trained
on other fields by 0.056; with an FP32 stem (0.96) by 0.016."""
SHIFTED_SHARE = 1.5
"""What a score may move by under a shifted stain, as a share of the maximum allowed: 0.03 of 0.02.
EfficientNet-Lite0 in the trt dialect held 0.02 with plain stain and not 0.03 with a shifted one."""
NAMED_LAYERS = 3


@dataclass(frozen=True, slots=True)
class QuantRecipe:
    """One form: how ranges are found, and how many layers after the image stay FP32."""

    method: str
    fp32_layers: int

    @property
    def name(self) -> str:
        """For people."""
        first = {0: "INT8 stem", 1: "FP32 stem"}.get(
            self.fp32_layers, f"first {self.fp32_layers} layers FP32"
        )
        return f"{self.method}, {first}"


RUNGS = (
    QuantRecipe("MinMax", 0),
    QuantRecipe("Percentile", 0),
    QuantRecipe("MinMax", 1),
    QuantRecipe("MinMax", 2),
    QuantRecipe("Percentile", 1),
    QuantRecipe("Percentile", 2),
)
"""`runtime.md`, section 7: two calibrations serve all of them."""
SMALL_WEIGHTS = 32 * 3 * 3 * 3
"""EfficientNet's first convolution. ONNX Runtime is faster with it in FP32 (2.19 times FP32 as a
whole, against 1.81 in INT8), and as fast with the depthwise one after it (2.27), while a 7x7 stem
in FP32 costs a third of the speed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rung and what it came to.

    Attributes:
        rung: The form.
        agreement: On the held-back bags.
        shifted: On bags with shifted stain; None where the plain ones refused the form already.
    """

    rung: QuantRecipe
    agreement: Agreement
    shifted: Agreement | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """What a dialect stopped at.

    Attributes:
        dialect: cpu or trt.
        chosen: The rung taken, and its figures.
        data: Its graph.
        tried: All rungs tried, in order.
    """

    dialect: str
    chosen: Candidate
    data: bytes
    tried: tuple[Candidate, ...]


def rungs(view: GraphView) -> tuple[QuantRecipe, ...]:
    """Return the rungs in the order to try them.

    Small first layers come first in FP32, which costs no speed: the image fills 8 bits exactly, and
    rounding it again is most of the error.
    """
    free = max((depth for depth in (1, 2) if _are_small(view, depth)), default=0)
    if not free:
        return RUNGS
    nearest = {rung: abs(rung.fp32_layers - free) for rung in RUNGS}
    return tuple(sorted(RUNGS, key=lambda rung: (rung.fp32_layers < free, nearest[rung])))


def _are_small(view: GraphView, depth: int) -> bool:
    first = view.first_layers(depth)
    layers = [n for n in view.model.graph.node if n.name in first and view.has_weight(n)]
    sizes = [math.prod(view.initializers[node.input[1]].dims) for node in layers]
    return bool(sizes) and max(sizes) <= SMALL_WEIGHTS


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Compare a graph with the original on the held-back bags: as they are, and stain shifted."""

    plain: Callable[[bytes], Agreement]
    shifted: Callable[[bytes], Agreement]


def climb(
    model: onnx.ModelProto,
    calibrator: Calibrator,
    dialect: str,
    judges: Acceptance,
    sensitivity: Callable[[str], list[Sensitivity]],
    max_difference: float,
) -> SearchResult:
    """Try rung after rung.

    Stops at the first that holds the maximum, the mean (a quarter of it), half as much again as the
    maximum with shifted stain, and the centred cosine with both. Where none holds all of it, the
    smallest mean within the maximum is taken, among those that hold the shifted stain if any does.

    Args:
        model: The FP32 graph, from `resolve_constants`.
        calibrator: Of that model.
        dialect: cpu or trt.
        judges: Compare a graph with the original.
        sensitivity: Measures what each layer costs in a dialect, worst first.
        max_difference: What a slide score may move by.

    Raises:
        QuantizationError: No rung holds the maximum; the message names the layers that hurt most.
    """
    view, tried = GraphView(model), []
    best: tuple[tuple[bool, float], Candidate, bytes] | None = None
    for rung in progress(rungs(view), f"INT8 for {dialect}", "form"):
        kept = view.first_layers(rung.fp32_layers)
        data = quantize(
            model, calibrator.statistics(rung.method), dialect, kept
        ).SerializeToString()
        plain = judges.plain(data)
        if plain.score_difference_max > max_difference:
            tried.append(Candidate(rung, plain))
            continue
        found = Candidate(rung, plain, judges.shifted(data))
        tried.append(found)
        rank = (not _holds_shifted(found, max_difference), plain.score_difference_mean)
        holds = rank <= (False, MEAN_SHARE * max_difference) and _is_alike(found)
        if best is None or holds or rank < best[0]:
            best = rank, found, data
        if holds:
            break
    if best is None:
        raise _nothing_holds(dialect, tried, sensitivity(dialect), max_difference)
    return SearchResult(dialect, best[1], best[2], tuple(tried))


def _is_alike(found: Candidate) -> bool:
    assert found.shifted is not None
    least = min(found.agreement.centred_cosine_min, found.shifted.centred_cosine_min)
    return least >= CENTRED_FLOOR


def _holds_shifted(found: Candidate, max_difference: float) -> bool:
    assert found.shifted is not None
    return found.shifted.score_difference_max <= SHIFTED_SHARE * max_difference


def _nothing_holds(
    dialect: str, tried: list[Candidate], layers: list[Sensitivity], max_difference: float
) -> QuantizationError:
    nearest = min(tried, key=lambda found: found.agreement.score_difference_max)
    total = sum(layer.error for layer in layers) or 1.0
    named = ", ".join(
        f"{layer.name} ({layer.error / total:.0%} of the error)" for layer in layers[:NAMED_LAYERS]
    )
    return QuantizationError(
        f"No INT8 form for {dialect} keeps the slide score within {max_difference:g}: the nearest "
        f"({nearest.rung.name}) moves it by up to {nearest.agreement.score_difference_max:.3g} "
        f"(mean {nearest.agreement.score_difference_mean:.3g}); the layers that hurt most are "
        f"{named}. Export with --precision fp32, calibrate on tiles nearer to the slides, or allow "
        "more with --max-score-difference.",
        dialect=dialect,
        layers=",".join(layer.name for layer in layers[:NAMED_LAYERS]),
    )
