"""Export a head as the graphs that a device runs, and compare them with the head in torch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edge_mil.backends import open_backend
from edge_mil.errors import BundleError
from edge_mil.protocols import Graph
from edge_mil_export.architectures import Head
from edge_mil_export.onnx_export.tracing import trace_rows

TRACED_SIZE = 3
CHECKED_SIZES = (1, 7, 50)
"""Sizes of the bag that were not traced: a graph that holds the traced size fails here."""
TOLERANCE = 1e-5
"""Of the largest number of an output. Two float32 matrix products of width 1024, summed in other
orders, differ by some 1e-6 of it."""
SMALLEST_RANGE = 0.1
"""A range is taken as at least this: one instance's single logit may be near 0 by chance, and is
then the rest of larger numbers with their rounding."""
ATTEND_FILE, CLASSIFY_FILE, ARRAYS_FILE = "attend.onnx", "classify.onnx", "aggregator.npz"


def head_files(head: Head) -> tuple[dict[str, bytes], dict[str, str]]:
    """Cut a head where the bag ends, export its parts and compare them.

    Args:
        head: In evaluation mode.

    Returns:
        File name -> its bytes (ONNX graphs, and `aggregator.npz` where NumPy runs a part), and
        role in the manifest -> file name.

    Raises:
        BundleError: A graph does not agree with the head in torch.
    """
    files: dict[str, bytes] = {}
    roles: dict[str, str] = {}
    if head.has_attend:
        example = torch.zeros(TRACED_SIZE, head.feature_dim)
        graph = trace_rows(_Attend(head), example, "features", _attend_outputs(head))
        files[ATTEND_FILE], roles["attend"] = _serialised(graph), ATTEND_FILE
    if head.has_classifier:
        example = torch.zeros(TRACED_SIZE, head.pooled_rows, head.value_dim)
        graph = trace_rows(_Classify(head), example, "pooled", ["logits"])
        files[CLASSIFY_FILE], roles["classify"] = _serialised(graph), CLASSIFY_FILE
    _check(head, files)
    if arrays := head.arrays():
        files[ARRAYS_FILE], roles["arrays"] = _packed(arrays), ARRAYS_FILE
    return files, roles


class _Attend(nn.Module):
    """`attend` alone: what it computes of each instance."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embeddings, logits, *extra = self.head.attend(features)
        if embeddings is features:
            # An input that is an output as well would lose its name to it.
            embeddings = features.clone()
        return (embeddings, logits, *extra) if _gives_logits(self.head) else (embeddings, *extra)


class _Classify(nn.Module):
    """`classify` alone: pooled vectors to logits."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.head.classify(pooled)


def _gives_logits(head: Head) -> bool:
    return head.channels > 0 and head.logits_in_attend


def _attend_outputs(head: Head) -> list[str]:
    """Return the names of the outputs of `attend.onnx`; `values` are the embeddings."""
    logits = ["attention_logits"] if _gives_logits(head) else []
    return ["values", *logits, *head.extra_outputs]


def _packed(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return arrays as an .npz, the same bytes for the same arrays."""
    out = io.BytesIO()
    np.savez(out, **dict(arrays))  # type: ignore[arg-type] # its stub takes every name for an option
    return out.getvalue()


def _serialised(model: onnx.ModelProto) -> bytes:
    """Return a graph without what the exporter notes of this machine: paths and stack traces."""
    graph = model.graph
    del graph.metadata_props[:]
    parts: list[Any] = [*graph.node, *graph.value_info, *graph.input, *graph.output]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    return model.SerializeToString(deterministic=True)


def _check(head: Head, files: Mapping[str, bytes]) -> None:
    """Compare the graphs with the head in torch at sizes that were not traced.

    Raises:
        BundleError: They differ by more than TOLERANCE.
    """
    backend = open_backend("cpu", threads=1)
    rng = np.random.default_rng(0)
    networks = {name: backend.open(Graph(data, name)) for name, data in files.items()}
    for size in CHECKED_SIZES:
        features = rng.standard_normal((size, head.feature_dim)).astype(np.float32)
        pooled = rng.standard_normal((size, head.pooled_rows, head.value_dim)).astype(np.float32)
        if ATTEND_FILE in networks:
            with torch.no_grad():
                outputs = _Attend(head)(torch.from_numpy(features))
            found = networks[ATTEND_FILE].run({"features": features})
            for name, wanted in zip(_attend_outputs(head), outputs, strict=True):
                _compare(ATTEND_FILE, size, wanted, found[name])
        if CLASSIFY_FILE in networks:
            with torch.no_grad():
                wanted = head.classify(torch.from_numpy(pooled))
            found = networks[CLASSIFY_FILE].run({"pooled": pooled})
            _compare(CLASSIFY_FILE, size, wanted, found["logits"])
    for network in networks.values():
        network.close()


def _compare(name: str, size: int, expected: torch.Tensor, found: np.ndarray[Any, Any]) -> None:
    wanted = expected.numpy()
    largest = max(float(np.abs(wanted).max()), SMALLEST_RANGE)
    error = np.inf
    if wanted.shape == found.shape:
        error = float(np.abs(wanted - found).max()) / largest
    # Written so that NaN is refused too.
    if not error <= TOLERANCE:
        raise BundleError(
            f"{name} differs from the head in torch by {error:.1e} of the range at {size} "
            f"instances (at most {TOLERANCE:g} is allowed), so no bundle was written; update torch "
            "and onnxruntime, or report the head.",
            size=size,
        )
