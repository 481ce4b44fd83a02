"""A head's whole official forward as one ONNX graph, where one can do it: what benchmarks compare.

Nothing of this goes into a bundle: there the head is cut where the bag ends.
"""

from __future__ import annotations

import numpy as np
import torch

from edge_mil.backends import open_backend
from edge_mil.protocols import Graph
from edge_mil_export.architectures.head import Head
from edge_mil_export.onnx_export.extractor import quiet_exporter

OPSET, IR_VERSION = 18, 9
TRACED, SMALLEST = 96, 64
"""Size of the bag that is traced, and the smallest that the graph must take."""
CHECKED = (64, 133, 1000)
"""Sizes at which the graph is compared with the head in torch."""
TOLERANCE = 1e-4
"""Of max(1, the largest logit)."""

NO_GRAPH = {
    "transmil": "the grid's side depends on the size of the bag",
    "mhim_transmil": "the grid's side depends on the size of the bag",
    "rrtmil": "the regions depend on the size of the bag",
    "mambamil": "a loop over the instances",
    "otsurv": "iterations in float64 until they settle",
}
"""Head -> why one ONNX graph of any bag size is the wrong tool for it (`aggregators.md`, 6)."""


def whole_graph(name: str, head: Head) -> tuple[bytes, str]:
    """Return the graph, features (n, d) -> logits (c,), or b"" and why there is none.

    Args:
        name: As bundles name the head.
        head: The head in eval mode.
    """
    if name in NO_GRAPH:
        return b"", NO_GRAPH[name]
    try:
        data = _exported(head)
    except torch.onnx.OnnxExporterError as error:
        return b"", f"torch cannot export it ({type(error).__name__})"
    network = open_backend("cpu", threads=1).open(Graph(data, f"the whole {name}"))
    rng = np.random.default_rng(0)
    for size in CHECKED:
        features = rng.standard_normal((size, head.feature_dim)).astype(np.float32)
        if network.inputs["features"][1][0] not in (None, size):
            return b"", "torch's exporter makes the traced size of the bag a constant"
        with torch.no_grad():
            wanted = head(torch.from_numpy(features)).numpy()
        found = network.run({"features": features})["logits"]
        if not np.abs(found - wanted).max() <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            return b"", f"the exported graph is wrong at {size} instances"
    network.close()
    return data, ""


def _exported(head: Head) -> bytes:
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            head.eval(),
            (torch.randn(TRACED, head.feature_dim),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["features"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n", min=SMALLEST)},),
            # The optimiser folds added constants of 1e-8 and less away (`aggregators.md`, 6).
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    data: bytes = model.SerializeToString()
    return data
