"""Export a head's whole official forward as one ONNX graph, to compare costs with.

Only `edge-mil bench aggregators` uses it: in a bundle the head is cut where the bag ends.
"""

from __future__ import annotations

import numpy as np
import torch

from edge_mil.backends import open_backend
from edge_mil.protocols import Graph
from edge_mil_export.architectures.head import Head
from edge_mil_export.onnx_export.tracing import trace_rows

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
    "transmil_millab": "the grid's side depends on the size of the bag",
    "transmil_torchmil": "the grid's side depends on the size of the bag",
    "rrt_millab": "the padding before the landmarks depends on the size of the bag",
    "mambamil": "a loop over the instances",
    "cobra": "a loop over the instances",
    "gigapath": "the segments depend on the size of the bag, and tiles have coordinates",
    "stamp_vit_alibi": "tiles have coordinates",
    "otsurv": "iterations in float64 until they settle",
}
"""Head -> why one ONNX graph of any bag size is the wrong tool for it
(`docs/design/aggregators.md`, "Whole-bag heads in NumPy")."""


def whole_graph(name: str, head: Head) -> tuple[bytes, str]:
    """Return the graph, features (n, d) -> logits (c,), or b"" and why there is none.

    Args:
        name: As bundles name the head.
        head: The head in eval mode.
    """
    if name in NO_GRAPH:
        return b"", NO_GRAPH[name]
    example = torch.randn(TRACED, head.feature_dim)
    try:
        model = trace_rows(head, example, "features", ["logits"], fewest=SMALLEST)
    except torch.onnx.OnnxExporterError as error:
        return b"", f"torch cannot export it ({type(error).__name__})"
    data = model.SerializeToString()
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
