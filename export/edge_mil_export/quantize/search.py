"""Find the INT8 form of an extractor that keeps slide scores where FP32 puts them.

Networks have opposite needs (EfficientNet-Lite0 needs MinMax and an FP32 stem, ResNet-18 in the
trt dialect percentiles and any stem), so each dialect tries recipes on bags that did not calibrate
(`docs/design/quantization-and-runtime.md`, "Fidelity on real tissue" and "The search").
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
from edge_mil_export.quantize.calibrator import Calibrator
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
"""Layers that the error names when no recipe holds."""


@dataclass(frozen=True, slots=True)
class QuantRecipe:
    """How ranges are found, and how many layers after the image stay FP32."""

    method: str
    fp32_layers: int

    @property
    def name(self) -> str:
        """The recipe in words, for reports."""
        first = {0: "INT8 stem", 1: "FP32 stem"}.get(
            self.fp32_layers, f"first {self.fp32_layers} layers FP32"
        )
        return f"{self.method}, {first}"


RECIPES = (
    QuantRecipe("MinMax", 0),
    QuantRecipe("Percentile", 0),
    QuantRecipe("MinMax", 1),
    QuantRecipe("MinMax", 2),
    QuantRecipe("Percentile", 1),
    QuantRecipe("Percentile", 2),
)
"""Two calibrations serve all of them."""
SMALL_WEIGHTS = 32 * 3 * 3 * 3
"""EfficientNet's first convolution. ONNX Runtime is faster with it in FP32 (2.19 times FP32 as a
whole, against 1.81 in INT8), and as fast with the depthwise one after it (2.27), while a 7x7 stem
in FP32 costs a third of the speed."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe and how well its graph agrees with the original.

    Attributes:
        recipe: How the graph was made.
        agreement: On bags that did not calibrate.
        shifted: On bags with shifted stain; None where the plain ones refused the recipe already.
    """

    recipe: QuantRecipe
    agreement: Agreement
    shifted: Agreement | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The recipe that a dialect takes.

    Attributes:
        dialect: cpu or trt.
        chosen: The candidate that was taken.
        data: Its graph, serialised.
        candidates: All that were measured, in order.
    """

    dialect: str
    chosen: Candidate
    data: bytes
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Compare a graph with the original on bags that did not calibrate.

    Attributes:
        plain: On the bags as they are.
        shifted: On the bags with shifted stain.
    """

    plain: Callable[[bytes], Agreement]
    shifted: Callable[[bytes], Agreement]


def ordered_recipes(view: GraphView) -> tuple[QuantRecipe, ...]:
    """Return the recipes in the order to try them.

    Small first layers come first in FP32, which costs no speed: the image fills 8 bits exactly, and
    rounding it again is most of the error.
    """
    free = max((depth for depth in (1, 2) if _are_small(view, depth)), default=0)
    if not free:
        return RECIPES
    distance = {recipe: abs(recipe.fp32_layers - free) for recipe in RECIPES}
    return tuple(sorted(RECIPES, key=lambda recipe: (recipe.fp32_layers < free, distance[recipe])))


def _are_small(view: GraphView, depth: int) -> bool:
    first = view.first_layers(depth)
    layers = [n for n in view.model.graph.node if n.name in first and view.has_weight(n)]
    sizes = [math.prod(view.initializers[node.input[1]].dims) for node in layers]
    return bool(sizes) and max(sizes) <= SMALL_WEIGHTS


def search_recipe(
    model: onnx.ModelProto,
    calibrator: Calibrator,
    dialect: str,
    acceptance: Acceptance,
    sensitivity: Callable[[str], list[Sensitivity]],
    max_difference: float,
) -> SearchResult:
    """Try recipe after recipe, and stop at the first that holds every bound.

    The bounds: the maximum, the mean (a quarter of it), half as much again as the maximum with
    shifted stain, and the centred cosine with both. Where no recipe holds all of them, the one with
    the smallest mean within the maximum is taken, among those that hold the shifted stain if any
    does.

    Args:
        model: The FP32 graph, from `resolve_constants`.
        calibrator: Of that model.
        dialect: cpu or trt.
        acceptance: Compares a graph with the original.
        sensitivity: Measures what each layer costs in a dialect, worst first.
        max_difference: What a slide score may move by.

    Raises:
        QuantizationError: No recipe holds the maximum; the message names the layers that hurt most.
    """
    view, candidates = GraphView(model), []
    best: tuple[tuple[bool, float], Candidate, bytes] | None = None
    for recipe in progress(ordered_recipes(view), f"INT8 for {dialect}", "form"):
        kept = view.first_layers(recipe.fp32_layers)
        statistics = calibrator.statistics(recipe.method)
        data = quantize(model, statistics, dialect, kept).SerializeToString()
        plain = acceptance.plain(data)
        if plain.score_difference_max > max_difference:
            candidates.append(Candidate(recipe, plain))
            continue
        candidate = Candidate(recipe, plain, acceptance.shifted(data))
        candidates.append(candidate)
        rank = (not _holds_shifted(candidate, max_difference), plain.score_difference_mean)
        holds = rank <= (False, MEAN_SHARE * max_difference) and _holds_features(candidate)
        if best is None or holds or rank < best[0]:
            best = rank, candidate, data
        if holds:
            break
    if best is None:
        raise _no_recipe_holds(dialect, candidates, sensitivity(dialect), max_difference)
    return SearchResult(dialect, best[1], best[2], tuple(candidates))


def _holds_features(candidate: Candidate) -> bool:
    assert candidate.shifted is not None
    lowest = min(candidate.agreement.centred_cosine_min, candidate.shifted.centred_cosine_min)
    return lowest >= CENTRED_FLOOR


def _holds_shifted(candidate: Candidate, max_difference: float) -> bool:
    assert candidate.shifted is not None
    return candidate.shifted.score_difference_max <= SHIFTED_SHARE * max_difference


def _no_recipe_holds(
    dialect: str, candidates: list[Candidate], layers: list[Sensitivity], max_difference: float
) -> QuantizationError:
    nearest = min(candidates, key=lambda candidate: candidate.agreement.score_difference_max)
    total = sum(layer.error for layer in layers) or 1.0
    named = ", ".join(
        f"{layer.name} ({layer.error / total:.0%} of the error)" for layer in layers[:NAMED_LAYERS]
    )
    return QuantizationError(
        f"No INT8 form for {dialect} keeps the slide score within {max_difference:g}: the nearest "
        f"({nearest.recipe.name}) moves it by up to {nearest.agreement.score_difference_max:.3g} "
        f"(mean {nearest.agreement.score_difference_mean:.3g}); the layers that hurt most are "
        f"{named}. Export with --precision fp32, calibrate on tiles nearer to the slides, or allow "
        "more with --max-score-difference.",
        dialect=dialect,
        layers=",".join(layer.name for layer in layers[:NAMED_LAYERS]),
    )
