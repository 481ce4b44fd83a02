"""Measure an FP32 graph, make FP16 and both INT8 dialects, and measure those too."""

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
from edge_mil_export.fidelity.report import Fidelity, Half
from edge_mil_export.fidelity.stain_shift import shifted_bags
from edge_mil_export.onnx_export.extractor import ExtractorGraph, open_graph
from edge_mil_export.onnx_export.graph_surgery import resolve_constants
from edge_mil_export.progress import progress
from edge_mil_export.quantize.calibration import Calibrator
from edge_mil_export.quantize.fp16 import half_precision
from edge_mil_export.quantize.qdq import DIALECTS
from edge_mil_export.quantize.search import Acceptance, SearchResult, climb
from edge_mil_export.quantize.sensitivity import Sensitivity, layer_sensitivities

BATCH = 8
SENSITIVITY_TILES = 8


def measure(
    source: ExtractorSource,
    graph: ExtractorGraph,
    scorer: BagScorer,
    on: FidelitySet,
    *,
    int8: bool,
    fp16: bool = False,
    max_difference: float,
) -> Fidelity:
    """Compare every graph of an export with the original, on the slide score.

    Args:
        source: The original.
        graph: Its FP32 graph.
        scorer: The bundle's head.
        on: Calibration tiles and held-back bags.
        int8: Also make and measure the INT8 dialects.
        fp16: Also make and measure FP16.
        max_difference: What a slide score may move by.

    Raises:
        QuantizationError: A dialect has no form that holds; the message names the layers. Or FP16
            does not hold.
    """
    reference = _features(source.features, on.bags, f"{source.framework} FP32")
    fp32 = compare(reference, bag_features(graph.data, on.bags), scorer)
    half = _halve(graph.model, reference, scorer, on, max_difference) if fp16 else None
    climbs: dict[str, SearchResult] = {}
    between = None
    if int8:
        climbs, between = _climb_both(graph.model, reference, scorer, on, max_difference)
    return Fidelity(
        source.framework, graph.max_error, fp32, climbs, between, max_difference, on, half
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


def _halve(
    model: onnx.ModelProto,
    reference: list[Float32Array],
    scorer: BagScorer,
    on: FidelitySet,
    max_difference: float,
) -> Half:
    data = half_precision(model).SerializeToString()
    agreement = compare(reference, bag_features(data, on.bags), scorer)
    # Written so that NaN is refused too: an activation beyond FP16's range becomes infinite.
    if not agreement.score_difference_max <= max_difference:
        raise QuantizationError(
            f"FP16 moves the slide score by up to {agreement.score_difference_max:.3g} and "
            f"{max_difference:g} is allowed; export without fp16, or allow more with "
            "--max-score-difference."
        )
    return Half(agreement, data)


def _climb_both(
    model: onnx.ModelProto,
    reference: list[Float32Array],
    scorer: BagScorer,
    on: FidelitySet,
    max_difference: float,
) -> tuple[dict[str, SearchResult], Agreement]:
    resolved = resolve_constants(model)
    assert on.calibration is not None
    calibrator = Calibrator(resolved, on.calibration)

    judged: dict[bytes, list[Float32Array]] = {}
    others = shifted_bags(on.bags)
    other_reference = bag_features(model.SerializeToString(), others)

    def plain(data: bytes) -> Agreement:
        found = judged[hashlib.sha256(data).digest()] = bag_features(data, on.bags)
        return compare(reference, found, scorer)

    def shifted(data: bytes) -> Agreement:
        return compare(other_reference, bag_features(data, others), scorer)

    def sensitivity(dialect: str) -> list[Sensitivity]:
        assert on.calibration is not None
        some = on.calibration[:SENSITIVITY_TILES]
        return layer_sensitivities(resolved, calibrator.statistics("MinMax"), dialect, some)

    climbs = {
        dialect: climb(
            resolved, calibrator, dialect, Acceptance(plain, shifted), sensitivity, max_difference
        )
        for dialect in DIALECTS
    }
    cpu, trt = (judged[hashlib.sha256(climbs[dialect].data).digest()] for dialect in DIALECTS)
    return climbs, compare(cpu, trt, scorer)
