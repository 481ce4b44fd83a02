"""Measure ranges and means of every tensor that INT8 may round, over calibration tiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edge_mil.types import Float64Array, UInt8Array
from edge_mil_export.onnx_export.graph_surgery import HEAVY, copy_model
from edge_mil_export.progress import progress

Ranges = dict[str, tuple[float, float]]
"""Name of a tensor -> lowest and highest value; 0 always lies between them."""

POOLS = ("MaxPool", "GlobalAveragePool", "ReduceMean")
BATCH = 8
"""Tiles of one run."""
BINS = 4096
"""Of a histogram, from which percentiles are read."""
PERCENTILE = 99.99
"""Share of the values that a range keeps by the percentile method, in percent."""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Ranges and means of a graph's tensors over the calibration tiles.

    Attributes:
        ranges: Lowest and highest value of each tensor.
        means: Mean of each channel of each tensor, float64.
    """

    ranges: Ranges
    means: dict[str, Float64Array]


class Calibrator:
    """Runs calibration tiles through a graph, and keeps statistics of its tensors.

    Percentiles need a second pass, which is made when they are first needed. Memory does not
    grow with the number of tiles.
    """

    def __init__(self, model: onnx.ModelProto, tiles: UInt8Array) -> None:
        """Open the graph.

        Args:
            model: From `resolve_constants`; its one input takes the tiles.
            tiles: uint8, shape (n, h, w, 3).
        """
        self._tiles = tiles
        self._input, self._names, self._session = _open(model)
        self._min_max: Statistics | None = None
        self._percentiles: Ranges | None = None

    def statistics(self, method: str) -> Statistics:
        """Return the statistics by MinMax, or with ranges cut at the 99.99th percentile."""
        if self._min_max is None:
            self._min_max = self._first_pass()
        if method == "MinMax":
            return self._min_max
        if self._percentiles is None:
            self._percentiles = self._second_pass(self._min_max.ranges)
        return Statistics(self._percentiles, self._min_max.means)

    def _runs(self, label: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        starts = range(0, len(self._tiles), BATCH)
        for at in progress(starts, label, "batch"):
            batch = self._tiles[at : at + BATCH]
            yield self._input, batch
            found = self._session.run(self._names, {self._input: batch})
            yield from zip(self._names, found, strict=True)

    def _first_pass(self) -> Statistics:
        """Return lowest and highest values, and the mean of each channel."""
        ranges: Ranges = {}
        totals: dict[str, Float64Array] = {}
        rows: dict[str, int] = {}
        for name, values in self._runs("calibrating"):
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
            channel = 1 if values.ndim == 4 else values.ndim - 1  # (n, c, h, w), or (..., c)
            others = tuple(axis for axis in range(values.ndim) if axis != channel)
            totals[name] = totals.get(name, 0) + values.sum(others, dtype=np.float64)
            rows[name] = rows.get(name, 0) + values.size // values.shape[channel]
        return Statistics(ranges, {name: totals[name] / rows[name] for name in totals})

    def _second_pass(self, ranges: Ranges) -> Ranges:
        """Return ranges cut at the percentile, from histograms between lowest and highest value."""
        counts = {name: np.zeros(BINS, dtype=np.int64) for name in ranges}
        for name, values in self._runs("percentiles"):
            low, high = ranges[name]
            if high <= low:
                continue
            bins = ((values.ravel() - low) * (BINS / (high - low))).astype(np.int32)
            counts[name] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        return {name: _cut(counts[name], *ranges[name]) for name in ranges}


def _cut(counts: npt.NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """Return the range that leaves out the rarest values at either end."""
    if not counts.sum():
        return low, high
    shares = np.cumsum(counts) / counts.sum()
    edges = np.linspace(low, high, BINS + 1)
    kept = PERCENTILE / 100
    first = int(np.searchsorted(shares, 1 - kept))
    last = min(int(np.searchsorted(shares, kept)) + 1, BINS)
    return min(float(edges[first]), 0.0), max(float(edges[last]), 0.0)


def _open(model: onnx.ModelProto) -> tuple[str, list[str], Any]:
    """Return the input, the tensors wanted, and a session that gives them."""
    import onnxruntime as ort

    made = copy_model(model)
    graph = made.graph
    constant = {tensor.name for tensor in graph.initializer}
    name = graph.input[0].name
    touched = itertools.chain.from_iterable(
        (*node.input[:2], node.output[0])
        for node in graph.node
        if node.op_type in (*HEAVY, *POOLS, "Add", "Relu", "Clip")
    )
    wanted = sorted(set(touched) - constant - {name, ""})
    del graph.output[:]
    graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in wanted)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return name, wanted, session
