"""Score a whole slide file offline: the reference for a live run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from edge_mil.cameras import SlideFile
from edge_mil.errors import BundleError, UsageError
from edge_mil.imaging import Cell, GridGeometry, check_field_mpp
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.whole_slide.cells import slot_fields, tissue_cells
from edge_mil.pipeline.whole_slide.colour_correction import SlideColours
from edge_mil.types import Float32Array, Float64Array, SlideScore, UInt8Array

_Instance: TypeAlias = tuple[UInt8Array, tuple[float, float], Cell]

BATCH = 32
"""Tiles extracted and folded at once."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideReading:
    """The score of a whole slide, and the instances behind it.

    Attributes:
        score: The score; None while the bag is empty, or smaller than the head needs.
        instances: Cells, or fields, of the bag.
        positions: Centres of the instances, um (x, y), float64, shape (n, 2).
        features: Their features, float32, shape (n, d); None unless they were asked for.
    """

    score: SlideScore | None
    instances: int
    positions: Float64Array
    features: Float32Array | None


def score_slide(
    model: Model,
    slide: SlideFile,
    field_px: tuple[int, int] | None = None,
    *,
    colours: SlideColours | None = None,
    keep_features: bool = False,
    allow_enlargement: bool = False,
) -> SlideReading:
    """Score a whole slide.

    Args:
        model: A bundle with an extractor.
        slide: An open slide.
        field_px: Width and height of a field, level-0 pixels; for bundles of fields only.
        colours: Corrections from a calibration; None: the colours are as they should be.
        keep_features: Also return the features of all instances.
        allow_enlargement: Accept a slide more than 1.5 times coarser than the model.

    Raises:
        BundleError: The bundle has no extractor.
        PixelSizeError: The slide's pixel size does not fit the bundle.
        UsageError: The bundle takes fields, and their size was not given or does not fit.
        SourceError: A part of the slide is damaged.
    """
    state = model.aggregator.initial_state()
    positions: list[tuple[float, float]] = []
    kept: list[Float32Array] = []
    colours = colours or SlideColours()
    instances = _instances(model, slide, field_px, colours, allow_enlargement)
    for tiles, centres, cells in _batches(instances):
        features = model.extract(colours.stained(tiles))
        batch = model.attend(features, grid_order(cells))
        state = model.aggregator.update(state, batch)
        positions += centres
        if keep_features:
            kept.append(features)
    empty = np.empty((0, model.bundle.manifest.aggregator.feature_dim), dtype=np.float32)
    return SlideReading(
        score=model.aggregator.scores([state])[0],
        instances=len(positions),
        positions=np.array(positions, dtype=np.float64).reshape(-1, 2),
        features=np.concatenate([empty, *kept]) if keep_features else None,
    )


def _instances(
    model: Model,
    slide: SlideFile,
    field_px: tuple[int, int] | None,
    colours: SlideColours,
    allow_enlargement: bool,
) -> Iterator[_Instance]:
    """Yield each instance's tile, its centre, um, and its cell or slot."""
    spec = model.input
    if spec is None:
        raise BundleError(
            f"{model.bundle.manifest.name} has no extractor, so it scores saved features only "
            "(edge-mil score); export it with an extractor to score slides."
        )
    tissue = colours.tissue(spec.tissue)
    if spec.instances == "grid":
        geometry = GridGeometry(
            slide.mpp, spec.tile_height_px, spec.tile_width_px, spec.mpp, allow_enlargement
        )
        width, height = geometry.cell_w_um, geometry.cell_h_um
        for (i, j), tile in tissue_cells(slide, geometry, tissue, colours.balanced):
            yield tile, ((i + 0.5) * width, (j + 0.5) * height), (i, j)
        return
    check_field_mpp(slide.mpp, spec.mpp)
    if field_px is None:
        raise UsageError(
            f"{model.bundle.manifest.name} takes whole fields as instances, so edge-mil slide "
            "needs their size: --fov WIDTHxHEIGHT in camera pixels, as 1024x768."
        )
    tile_px = spec.tile_height_px, spec.tile_width_px
    for update, centre in slot_fields(slide, field_px, tile_px, tissue, colours.balanced):
        assert not isinstance(update.slot, str)  # a slide's fields have positions
        yield update.tile, centre, update.slot


def _batches(
    instances: Iterator[_Instance],
) -> Iterator[tuple[UInt8Array, list[tuple[float, float]], list[Cell]]]:
    while batch := list(itertools.islice(instances, BATCH)):
        tiles, centres, cells = zip(*batch, strict=True)
        yield np.stack(tiles), list(centres), list(cells)
