"""Before a runner serves: the bundle's own tiles go through it, and it must hold the bound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_mil.errors import BundleError, EmptyBagError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.types import Float32Array, Float64Array, SlideScore, UInt8Array

FIDELITY_FILE = "fidelity.json"
DEFAULT_BOUND = 0.02
"""What the exporter allows a slide score to move by, where a bundle does not say."""
COSINE_FLOOR = {"fp32": 0.999, "fp16": 0.99, "int8": 0.9}
"""Centred cosine, median of the tiles, where the bundle's report has none for the precision. FP32
graphs agree to 1 - 1e-6, FP16 ones to 0.999, INT8 forms worth using to 0.98 (`runtime.md`, 7)."""
GRAPHS = {"fp32": ("fp32",), "fp16": ("fp16",), "int8": ("int8-trt", "int8-cpu")}
GENERATED_TILES = 16
BATCH = 8


@dataclass(frozen=True, slots=True)
class Check:
    """How near a runner comes to FP32.

    Attributes:
        source: Which tiles: the bundle's, or generated ones.
        tiles: How many.
        score_difference: What the score of all tiles as one bag moves by; None where the head
            cannot score so few.
        bound: What it may.
        cosine: Median of the tiles' centred cosines.
        floor: What it must reach.
    """

    source: str
    tiles: int
    score_difference: float | None
    bound: float
    cosine: float
    floor: float

    @property
    def holds(self) -> bool:
        """Whether the runner may serve; NaN never does."""
        moved = self.score_difference
        return self.cosine >= self.floor and (moved is None or moved <= self.bound)

    def sentence(self) -> str:
        """Say the figures."""
        score = "the head cannot score so few tiles"
        if self.score_difference is not None:
            score = f"the score moves by {self.score_difference:.4f} ({self.bound:g} allowed)"
        return (
            f"on {self.tiles} {self.source} {score}, centred cosine {self.cosine:.4f} (at least "
            f"{self.floor:g})"
        )


def check_runner(model: Model, runner: Runner) -> Check:
    """Run the bundle's fidelity tiles, and compare features and score with FP32's.

    Args:
        model: Its head scores; its first runner is the reference where the bundle brings none.
        runner: Not at work yet.

    Raises:
        BackendLostError: The runner is lost on the way.
        BundleError: The bundle's reference cannot be read, or it has no extractor.
    """
    reference = model.reference
    if reference is not None:
        tiles, wanted, source = reference.tiles, reference.features, "tiles of the bundle"
    else:
        tiles, source = generated_tiles(model), "generated tiles (the bundle brings none)"
        judge = model.fp32_runner()
        wanted = _features(judge, tiles)
        if model.extractor is None or judge is not model.extractor.first:
            judge.network.close()
    found = _features(runner, tiles)
    bound, floor = _limits(model, runner.precision)
    return Check(
        source,
        len(tiles),
        _score_difference(model, wanted, found),
        bound,
        _median_cosine(wanted, found),
        floor,
    )


def generated_tiles(model: Model) -> UInt8Array:
    """Return soft coloured noise on the background of glass: the same at each call.

    Raises:
        BundleError: The bundle has no extractor.
    """
    spec = model.input
    if spec is None:
        raise BundleError(f"{model.bundle.manifest.name} has no extractor, so nothing to check.")
    rng = np.random.default_rng(0)
    height, width = spec.tile_height_px, spec.tile_width_px
    coarse = rng.uniform(0.3, 1.0, (GENERATED_TILES, 9, 9, 3))
    rows, columns = np.arange(height) * 9 // height, np.arange(width) * 9 // width
    blocks = coarse[:, rows][:, :, columns]
    noise = rng.normal(0, 0.05, blocks.shape)
    background = np.array(spec.tissue.background)
    return np.asarray(np.clip((blocks + noise) * background, 0, 255), dtype=np.uint8)


def _features(runner: Runner, tiles: UInt8Array) -> Float32Array:
    parts = [
        runner.network.run({"tiles": tiles[at : at + BATCH]})["features"]
        for at in range(0, len(tiles), BATCH)
    ]
    return np.concatenate(parts)


def _limits(model: Model, precision: str) -> tuple[float, float]:
    """Return what the score may move by, and the cosine to reach, as the bundle's report says."""
    floor = COSINE_FLOOR[precision]
    if not model.bundle.has(FIDELITY_FILE):
        return DEFAULT_BOUND, floor
    try:
        report: dict[str, Any] = json.loads(model.bundle.read(FIDELITY_FILE))
        bound = float(report.get("max_score_difference", DEFAULT_BOUND))
        figures = report.get("comparisons", {})
        keys = [key for key in GRAPHS[precision] if key in figures]
        measured = [float(figures[key]["centred_cosine_min"]) for key in keys]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            f"{FIDELITY_FILE} of {model.bundle.manifest.name} cannot be read ({error}); export the "
            "bundle again."
        ) from error
    # The median of a few tiles must reach what the worst tile reached when it was exported.
    return bound, min([floor, *measured])


def _score_difference(model: Model, wanted: Float32Array, found: Float32Array) -> float | None:
    try:
        before, after = _score(model, wanted), _score(model, found)
    except EmptyBagError:
        return None
    return float(np.abs(before - after).max())


def _score(model: Model, features: Float32Array) -> Float64Array:
    """Return what is compared: probabilities; else logits or the pooled vector at unit length."""
    head = model.aggregator
    instance_order = (
        grid_order([(at, 0) for at in range(len(features))]) if head.needs_instance_order else None
    )
    score: SlideScore = head.score(
        head.update(head.initial_state(), model.attend(features, instance_order))
    )
    if score.probabilities:
        return np.asarray(score.probabilities, dtype=np.float64)
    numbers = np.asarray(score.pooled or score.logits, dtype=np.float64)
    return numbers / max(float(np.linalg.norm(numbers)), 1e-12)


def _median_cosine(wanted: Float32Array, found: Float32Array) -> float:
    """Return the median cosine after the mean of the wanted features is taken off both."""
    mean = wanted.mean(axis=0, dtype=np.float64)
    left, right = wanted - mean, found - mean
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1) / np.maximum(lengths, 1e-12)
    return float(np.median(cosines))
