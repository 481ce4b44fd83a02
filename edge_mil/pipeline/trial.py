"""One tile through the whole of a bundle, before anybody is told that it is ready."""

from __future__ import annotations

import numpy as np

from edge_mil.errors import BackendLostError, BundleError, EdgeMilError, EmptyBagError
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.pipeline.model import Model
from edge_mil.types import Float32Array, SlideScore

TILES = 2
"""Two, since a head may take one alone for a special case."""
COLUMNS = 8
FEWEST = 16
"""Instances of the bag that is scored; a head that needs more gets them."""
SEED = 13
FOREIGN = (
    ArithmeticError,
    AssertionError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What array code raises when graphs and manifest are of two bundles."""


def try_model(model: Model) -> None:
    """Extract, attend, pool and score a few tiles of noise.

    Raises:
        BundleError: The bundle's parts do not fit together, or a number is not finite.
        BackendLostError: The device does not answer.
    """
    name = model.bundle.manifest.name
    try:
        _score_noise(model)
    except (BundleError, BackendLostError):
        raise
    except (EdgeMilError, *FOREIGN) as error:
        raise BundleError(
            f"{name} cannot score a tile ({str(error)[:200] or type(error).__name__}), so it takes "
            "no fields; export the bundle again."
        ) from error


def _score_noise(model: Model) -> None:
    manifest, draw = model.bundle.manifest, np.random.default_rng(SEED)
    count = max(FEWEST, int(getattr(model.aggregator, "smallest", 1)))
    if model.input is None:
        features: Float32Array = draw.normal(size=(count, manifest.aggregator.feature_dim)).astype(
            np.float32
        )
    else:
        spec = model.input
        shape = (TILES, spec.tile_height_px, spec.tile_width_px, 3)
        found = model.extract(draw.integers(0, 256, shape, dtype=np.uint8))
        if found.shape != (TILES, manifest.aggregator.feature_dim):
            raise BundleError(
                f"The extractor of {manifest.name} gives features of shape {found.shape} for "
                f"{TILES} tiles, and bundle.json says {manifest.aggregator.feature_dim} wide; "
                "export the bundle again."
            )
        features = np.resize(found, (count, found.shape[1]))
        if model.reference is not None:
            model.reference.evaluate(model.reference.distance(features))
    order = grid_order([(i % COLUMNS, i // COLUMNS) for i in range(count)])
    aggregator = model.aggregator
    state = aggregator.update(aggregator.initial_state(), model.attend(features, order))
    state = aggregator.from_bytes(aggregator.to_bytes(state))
    try:
        score = aggregator.score(state)
    except EmptyBagError:
        return
    _check_score(model, score)


def _check_score(model: Model, score: SlideScore) -> None:
    classes, name = model.bundle.manifest.task.classes, model.bundle.manifest.name
    if score.pooled:
        return
    if len(score.logits) != len(classes):
        raise BundleError(
            f"The head of {name} gives {len(score.logits)} outputs and bundle.json names "
            f"{len(classes)} classes; export the bundle again with --classes of that number."
        )
    if not np.isfinite([*score.logits, *score.probabilities]).all():
        raise BundleError(f"The head of {name} gives numbers that are not finite for noise.")
