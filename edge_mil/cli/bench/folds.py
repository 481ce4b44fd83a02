"""Time a field without its extractor, and measure memory, at growing sizes of the bag."""

from __future__ import annotations

import gc
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mil.bundle import InputSpec
from edge_mil.errors import BundleError
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.session import Session
from edge_mil.types import Float32Array, Frame, UInt8Array

HELD = (100, 10_000, 100_000)
"""Sizes of the bag at which a fold is timed."""

PROBES = 40
"""Fields that are timed at each size of the bag; the median counts."""

CELLS_PER_FIELD, FIELDS_PER_FOLD_ROW = 20, 100
"""Cells of such a field, and fields to a row."""

MAX_LEVEL = 180
"""Brightest level of a square: all of a field is tissue."""

SQUARES_PX = (3, 5, 11)
"""Sides of the squares; none divides 8, the side of JPEG's blocks."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Time and memory of a fold at one size of the bag.

    Attributes:
        held: Instances in the bag when the timing began.
        milliseconds: Median time of one field without its extractor: gates, fold, store, score.
        memory_mb: Growth of this process's memory since the bag was empty, 10^6 bytes.
    """

    held: int
    milliseconds: float
    memory_mb: float


class _WithoutExtractor(Model):
    """A model with random features, so that everything but the extractor is timed."""

    _rng = np.random.default_rng(0)

    def extract_by(self, tiles: UInt8Array) -> tuple[Float32Array, Runner | None]:
        width = self.bundle.manifest.aggregator.feature_dim
        return self._rng.standard_normal((len(tiles), width), dtype=np.float32), None


def measure_folds(model: Model, spec: InputSpec, sizes: tuple[int, ...]) -> list[Fold]:
    """Return the cost of a fold at each size; fields are squares that are darker than glass."""
    bare = _WithoutExtractor(model.bundle, None, model.attend_network, model.aggregator)
    rows, columns = 4, CELLS_PER_FIELD // 4
    size = (rows * spec.tile_height_px, columns * spec.tile_width_px)
    folds = []
    with Session(bare, spec.mpp) as session:
        gc.collect()
        empty, sequence, held = _memory_bytes(), 0, 0
        for target in sorted(sizes):
            times: list[float] = []
            begun = 0
            while len(times) < PROBES:
                row, column = divmod(sequence, FIELDS_PER_FOLD_ROW)
                x, y = column * size[1] + size[1] / 2, row * size[0] + size[0] / 2
                sequence += 1
                pixels = structured(size, seed=sequence)
                started = time.perf_counter()
                result, durable = session.submit(
                    sequence, Frame(pixels, x * spec.mpp, y * spec.mpp)
                )
                if held >= target:
                    begun = begun or held
                    times.append(time.perf_counter() - started)
                durable.result()
                if not result.cells_added:
                    raise BundleError(
                        f"The fields of this command are {result.verdict.name} under this bundle's "
                        "gates; name another bundle."
                    )
                held += result.cells_added
            gc.collect()
            grown = max(0, _memory_bytes() - empty) / 1e6
            folds.append(Fold(begun, statistics.median(times) * 1e3, grown))
    return folds


def structured(size: tuple[int, int], seed: int) -> UInt8Array:
    """Return a field of random squares of several sizes, darker than glass, uint8 (h, w, 3).

    The quality gate takes it: noise of single pixels would be refused.
    """
    chance, (height, width) = np.random.default_rng(seed), size
    layers = []
    for side in SQUARES_PX:
        small = chance.integers(0, MAX_LEVEL, (-(-height // side), -(-width // side), 3), np.uint8)
        layers.append(small.repeat(side, axis=0).repeat(side, axis=1)[:height, :width])
    return np.asarray(np.mean(layers, axis=0).round(), dtype=np.uint8)


def _memory_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
