"""Compare a runner with FP32 on the bundle's fidelity tiles before it serves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, EmptyBagError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.pipeline.ood.reference import Reference
from edge_mil.pipeline.runners.runner import Extractor, Runner, open_variant
from edge_mil.pipeline.runners.variants import VARIANTS, find_variant
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, Float64Array, InstanceBatch, InstanceOrder, UInt8Array

FIDELITY_FILE = "fidelity.json"
DEFAULT_BOUND = 0.02
"""What the exporter allows a slide score to move by, where a bundle does not say."""
COSINE_FLOOR = {"fp32": 0.999, "fp16": 0.99, "int8": 0.9}
"""Smallest median of the tiles' centred cosines, where the bundle's report has none for the
precision. FP32 graphs agree to 1 - 1e-6, FP16 ones to 0.999, INT8 forms worth using to 0.98
(`docs/design/quantization-and-runtime.md`, "Which runner works on what")."""
SMALLEST_LENGTH = 1e-12
"""Smallest length of a vector that a cosine divides by."""

GENERATED_TILES = 16
NOISE_CELLS, NOISE_RANGE, NOISE_SPREAD = 9, (0.3, 1.0), 0.05
"""Generated tiles: coarse cells on a side, their range of brightness as a share of glass, and the
standard deviation of the noise upon them."""


class BundleModel(Protocol):
    """What verification needs of a model; `edge_mil.pipeline.model.Model` is one."""

    bundle: Bundle
    aggregator: Aggregator[Any]
    extractor: Extractor | None
    threads: int | None

    @property
    def reference(self) -> Reference | None: ...

    def attend(
        self, features: Float32Array, instance_order: InstanceOrder | None = None
    ) -> InstanceBatch: ...


@dataclass(frozen=True, slots=True)
class Check:
    """How near a runner comes to FP32.

    Attributes:
        source: Which tiles: the bundle's, or generated ones.
        tiles: How many.
        score_difference: What the score of all tiles as one bag moves by; None where the head
            cannot score so few.
        bound: What it may move by.
        cosine: Median of the tiles' centred cosines.
        floor: What the median must reach.
    """

    source: str
    tiles: int
    score_difference: float | None
    bound: float
    cosine: float
    floor: float

    @property
    def holds(self) -> bool:
        """Whether the runner may serve; False where a figure is NaN."""
        moved = self.score_difference
        return self.cosine >= self.floor and (moved is None or moved <= self.bound)

    def sentence(self) -> str:
        """Return the figures in words."""
        score = "the head cannot score so few tiles"
        if self.score_difference is not None:
            score = f"the score moves by {self.score_difference:.4f} ({self.bound:g} allowed)"
        return (
            f"on {self.tiles} {self.source} {score}, centred cosine {self.cosine:.4f} (at least "
            f"{self.floor:g})"
        )


def check_runner(model: BundleModel, runner: Runner) -> Check:
    """Compare a runner's features, and the score of the tiles as one bag, with FP32's.

    Args:
        model: Scores; its first runner is the reference where the bundle brings none.
        runner: Of the model's extractor, not in use yet.

    Raises:
        BackendLostError: The runner fails.
        BundleError: The bundle's reference cannot be read, or it has no extractor.
    """
    reference = model.reference
    if reference is not None:
        tiles, expected, source = reference.tiles, reference.features, "tiles of the bundle"
    else:
        tiles, source = generated_tiles(model.bundle), "generated tiles (the bundle brings none)"
        expected = _fp32_features(model, tiles)
    features = runner.features(tiles)
    bound, floor = _limits(model.bundle, runner.precision)
    return Check(
        source,
        len(tiles),
        _score_difference(model, expected, features),
        bound,
        _median_centred_cosine(expected, features),
        floor,
    )


def generated_tiles(bundle: Bundle) -> UInt8Array:
    """Return soft coloured noise on the background of glass: the same tiles at each call.

    Returns:
        RGB uint8, shape (GENERATED_TILES, h, w, 3), of the bundle's tile size.

    Raises:
        BundleError: The bundle has no extractor.
    """
    spec = bundle.manifest.input
    if spec is None:
        raise BundleError(f"{bundle.manifest.name} has no extractor, so nothing to check.")
    rng = np.random.default_rng(0)
    height, width = spec.tile_height_px, spec.tile_width_px
    # Coarse cells of one colour each, enlarged to the tile by repetition.
    cells = rng.uniform(*NOISE_RANGE, (GENERATED_TILES, NOISE_CELLS, NOISE_CELLS, 3))
    rows = np.arange(height) * NOISE_CELLS // height
    columns = np.arange(width) * NOISE_CELLS // width
    blocks = cells[:, rows][:, :, columns]
    # Noise of single pixels upon them, and all of it as light that passed through stained glass.
    noise = rng.normal(0, NOISE_SPREAD, blocks.shape)
    background = np.array(spec.tissue.background)
    return np.asarray(np.clip((blocks + noise) * background, 0, 255), dtype=np.uint8)


def _fp32_features(model: BundleModel, tiles: UInt8Array) -> Float32Array:
    """Return the features of the FP32 graph on the CPU, by the first runner where it is that."""
    variant = find_variant(model.bundle, "cpu", "fp32")
    if model.extractor is not None and model.extractor.first.variant == variant:
        return model.extractor.first.features(tiles)
    runner = open_variant(model.bundle, variant, open_backend("cpu", threads=model.threads))
    try:
        return runner.features(tiles)
    finally:
        runner.close()


def stated_bound(bundle: Bundle, graph: str) -> float:
    """Return what the bundle says that a graph may move a score by; 0 for FP32.

    Raises:
        BundleError: The bundle's report cannot be read.
    """
    if graph == "fp32":
        return 0.0
    report = _report(bundle)
    try:
        stated = report.get("comparisons", {}).get(graph, {}).get("stated_bound")
        return float(
            report.get("max_score_difference", DEFAULT_BOUND) if stated is None else stated
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(bundle, error) from error


def _limits(bundle: Bundle, precision: str) -> tuple[float, float]:
    """Return what the score may move by, and the cosine to reach, as the bundle's report has it."""
    floor, report = COSINE_FLOOR[precision], _report(bundle)
    graphs = {variant.graph for variant in VARIANTS if variant.precision == precision}
    try:
        bound = float(report.get("max_score_difference", DEFAULT_BOUND))
        comparisons = report.get("comparisons", {})
        measured = [
            float(comparisons[graph]["centred_cosine_min"])
            for graph in graphs
            if graph in comparisons
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(bundle, error) from error
    # The median of a few tiles must reach what the worst tile reached when it was exported.
    return bound, min([floor, *measured])


def _report(bundle: Bundle) -> dict[str, Any]:
    """Return the bundle's fidelity report; an empty one where it has none."""
    if not bundle.has(FIDELITY_FILE):
        return {}
    try:
        report: dict[str, Any] = json.loads(bundle.read(FIDELITY_FILE))
    except ValueError as error:
        raise _unreadable(bundle, error) from error
    return report


def _unreadable(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(
        f"{FIDELITY_FILE} of {bundle.manifest.name} cannot be read ({error}); export the bundle "
        "again."
    )


def _score_difference(
    model: BundleModel, expected: Float32Array, features: Float32Array
) -> float | None:
    """Return the largest difference of the two bags' scores; None where there is no score."""
    try:
        before, after = _score(model, expected), _score(model, features)
    except EmptyBagError:
        return None
    return float(np.abs(before - after).max())


def _score(model: BundleModel, features: Float32Array) -> Float64Array:
    """Return probabilities; without them logits or the pooled vector, at unit length."""
    head = model.aggregator
    order = None
    if head.needs_instance_order:
        order = grid_order([(column, 0) for column in range(len(features))])
    score = head.score(head.update(head.initial_state(), model.attend(features, order)))
    if score.probabilities:
        return np.asarray(score.probabilities, dtype=np.float64)
    numbers = np.asarray(score.pooled or score.logits, dtype=np.float64)
    return numbers / max(float(np.linalg.norm(numbers)), SMALLEST_LENGTH)


def _median_centred_cosine(expected: Float32Array, features: Float32Array) -> float:
    """Return the median over the tiles of the cosine of both features, less the expected mean.

    Without centring the common part of all features hides the differences: a cosine of 0.9995
    was 0.984 centred, and scores moved by up to 0.27 (`docs/design/quantization-and-runtime.md`,
    "What decides the design").
    """
    mean = expected.mean(axis=0, dtype=np.float64)
    left, right = expected - mean, features - mean
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1) / np.maximum(lengths, SMALLEST_LENGTH)
    return float(np.median(cosines))
