"""Measure an FP32 graph, make FP16 and both INT8 dialects of it, and measure those too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.agreement import Agreement, BagScorer, compare
from edge_mil_export.errors import QuantizationError
from edge_mil_export.extractors.source import ExtractorSource
from edge_mil_export.fidelity.bags import Bag, FidelitySet
from edge_mil_export.fidelity.report import Fidelity, Fp16Result
from edge_mil_export.fidelity.robustness import measure_robustness
from edge_mil_export.fidelity.stain_shift import shifted_bags
from edge_mil_export.onnx_export.extractor_graph import ExtractorGraph, open_graph
from edge_mil_export.onnx_export.graph_surgery import resolve_constants
from edge_mil_export.progress import progress
from edge_mil_export.quantize.calibrator import Calibrator
from edge_mil_export.quantize.fp16 import to_fp16
from edge_mil_export.quantize.qdq import DIALECTS
from edge_mil_export.quantize.search import Acceptance, SearchResult, search_recipe
from edge_mil_export.quantize.sensitivity import Sensitivity, layer_sensitivities

BATCH = 8
"""Tiles of one run: ONNX Runtime is as fast at 8 as at 32."""
SENSITIVITY_TILES = 8
"""Enough to rank layers."""


def measure(
    source: ExtractorSource,
    graph: ExtractorGraph,
    scorer: BagScorer,
    tiles: FidelitySet,
    *,
    int8: bool,
    fp16: bool = False,
    max_difference: float,
    robustness: bool = False,
) -> Fidelity:
    """Compare every graph of an export with the original, on the slide score.

    Args:
        source: The original.
        graph: Its FP32 graph.
        scorer: The bundle's head.
        tiles: Calibration tiles and bags that do not calibrate.
        int8: Also make and measure the INT8 dialects.
        fp16: Also make and measure FP16.
        max_difference: What a slide score may move by.
        robustness: Also measure what faults of a camera do to the score.

    Raises:
        QuantizationError: No recipe of a dialect holds; the message names the layers. Or FP16 does
            not hold.
    """
    reference = _features(source.features, tiles.bags, f"{source.framework} FP32")
    fp32 = compare(reference, bag_features(graph.data, tiles.bags), scorer)
    fp16_result = None
    if fp16:
        fp16_result = _measure_fp16(graph.model, reference, scorer, tiles.bags, max_difference)
    searches: dict[str, SearchResult] = {}
    between_dialects = None
    if int8:
        searches, between_dialects = _search_dialects(
            graph.model, reference, scorer, tiles, max_difference
        )
    return Fidelity(
        source.framework,
        graph.max_error,
        fp32,
        searches,
        between_dialects,
        max_difference,
        tiles,
        fp16_result,
        measure_robustness(open_graph(graph.data).features, scorer, tiles.bags)
        if robustness
        else {},
    )


def bag_features(data: bytes, bags: Sequence[Bag]) -> list[Float32Array]:
    """Return the features (n, d) of each bag and its parts, by a graph in ONNX Runtime."""
    return _features(open_graph(data).features, bags, "ONNX Runtime")


def _features(
    extract: Callable[[UInt8Array], Float32Array], bags: Sequence[Bag], label: str
) -> list[Float32Array]:
    found = []
    for bag in progress(bags, label, "bag"):
        parts = [extract(bag.tiles[at : at + BATCH]) for at in range(0, len(bag.tiles), BATCH)]
        found += bag.split_features(np.concatenate(parts))
    return found


def _measure_fp16(
    model: onnx.ModelProto,
    reference: list[Float32Array],
    scorer: BagScorer,
    bags: Sequence[Bag],
    max_difference: float,
) -> Fp16Result:
    data = to_fp16(model).SerializeToString()
    agreement = compare(reference, bag_features(data, bags), scorer)
    # Written so that NaN is refused too: an activation beyond FP16's range becomes infinite.
    if not agreement.score_difference_max <= max_difference:
        raise QuantizationError(
            f"FP16 moves the slide score by up to {agreement.score_difference_max:.3g} and "
            f"{max_difference:g} is allowed; export without fp16, or allow more with "
            "--max-score-difference."
        )
    return Fp16Result(agreement, data)


def _search_dialects(
    model: onnx.ModelProto,
    reference: list[Float32Array],
    scorer: BagScorer,
    tiles: FidelitySet,
    max_difference: float,
) -> tuple[dict[str, SearchResult], Agreement]:
    """Search a recipe for each dialect; return them, and how well the two agree."""
    resolved = resolve_constants(model)
    assert tiles.calibration is not None
    calibration = tiles.calibration
    calibrator = Calibrator(resolved, calibration)

    measured: dict[bytes, list[Float32Array]] = {}  # SHA-256 of a graph -> its features
    shifted = shifted_bags(tiles.bags)
    shifted_reference = bag_features(model.SerializeToString(), shifted)

    def plain_agreement(data: bytes) -> Agreement:
        features = bag_features(data, tiles.bags)
        measured[hashlib.sha256(data).digest()] = features
        return compare(reference, features, scorer)

    def shifted_agreement(data: bytes) -> Agreement:
        return compare(shifted_reference, bag_features(data, shifted), scorer)

    def sensitivity(dialect: str) -> list[Sensitivity]:
        statistics = calibrator.statistics("MinMax")
        return layer_sensitivities(resolved, statistics, dialect, calibration[:SENSITIVITY_TILES])

    acceptance = Acceptance(plain_agreement, shifted_agreement)
    searches = {
        dialect: search_recipe(
            resolved, calibrator, dialect, acceptance, sensitivity, max_difference
        )
        for dialect in DIALECTS
    }
    cpu, trt = (measured[hashlib.sha256(searches[d].data).digest()] for d in DIALECTS)
    return searches, compare(cpu, trt, scorer)
