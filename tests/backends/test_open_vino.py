"""OpenVINO computes at true FP32; what every backend does alike is in `tests/contracts`."""

from __future__ import annotations

import numpy as np
import pytest
from demo_graphs import demo_graph

from edge_mil.backends import open_backend


def test_openvino_gives_the_features_of_onnx_runtime_at_true_fp32() -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    graph = demo_graph("extractor.onnx")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    exact = open_backend("cpu", threads=1).open(graph).run({"tiles": tiles})["features"]
    found = open_backend("openvino", threads=1).open(graph).run({"tiles": tiles})["features"]
    # BF16, its silent default on some CPUs, is 100 times further away.
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
