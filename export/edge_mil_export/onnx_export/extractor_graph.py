"""Export an extractor as an FP32 graph, and compare it with the original."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from edge_mil.backends import open_backend
from edge_mil.protocols import Graph
from edge_mil.types import Float32Array, UInt8Array
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.onnx_file import OnnxExtractor
from edge_mil_export.extractors.source import ExtractorSource
from edge_mil_export.extractors.torch_module import TorchExtractor
from edge_mil_export.onnx_export.graph_surgery import NEWEST_IR
from edge_mil_export.onnx_export.preprocess import INPUT, OUTPUT, fuse_preprocessing, name_ends
from edge_mil_export.onnx_export.tracing import OPSET, quiet_exporter

if TYPE_CHECKING:
    import torch
    from torch import nn

LEGACY_OPSET = 17
"""Newest of torch's TorchScript exporter."""
MAX_GRAPH_BYTES = 2**31 - 2**24
"""Protobuf's limit of one ONNX file, less 16 MiB for what is not weights."""
MAX_BATCH = 256
CHECKED_BATCHES = (1, 2, 7, 16)
TOLERANCE = 1e-4
"""Of max(1, the largest feature); FP32 kernels differ by 5e-6
(`docs/design/quantization-and-runtime.md`, "Exporting the extractor")."""


@dataclass(frozen=True, slots=True, eq=False)
class ExtractorGraph:
    """The FP32 graph of an extractor.

    Attributes:
        model: The graph, uint8 (n, h, w, 3) to float32 (n, d).
        data: The serialised graph.
        max_error: Largest difference from the original's features, of max(1, largest feature).
    """

    model: onnx.ModelProto
    data: bytes
    max_error: float


def export_extractor(source: ExtractorSource, feature_dim: int) -> ExtractorGraph:
    """Export, put preprocessing in, and compare at batches of 1, 2, 7 and 16.

    Args:
        source: The extractor.
        feature_dim: Width of its features.

    Raises:
        ExtractorError: It cannot be exported, or the graph computes something else.
    """
    if isinstance(source, OnnxExtractor):
        model, is_complete = source.model, source.takes_bytes
    else:
        assert isinstance(source, TorchExtractor)
        _refuse_too_large(source)
        model, is_complete = _trace(source), False
    if not is_complete:
        model = fuse_preprocessing(model, source.tile_px, source.normalisation)
    model = _flattened(name_ends(model, feature_dim), source)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    model.doc_string = ""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExtractorError(
            f"The graph of {source.name} is not valid ONNX ({first_line(error)}); "
            "report it with the versions of torch and onnx."
        ) from error
    data = model.SerializeToString()
    return ExtractorGraph(model, data, _compare(source, data))


def run_graph(data: bytes, tiles: UInt8Array, *, batch: int = 8) -> Float32Array:
    """Return the features (n, d) that a graph gives in ONNX Runtime on all cores."""
    return open_graph(data).features(tiles, batch=batch)


@dataclass(frozen=True, slots=True, eq=False)
class OpenGraph:
    """A graph loaded into ONNX Runtime."""

    network: Any

    def features(self, tiles: UInt8Array, *, batch: int = 8) -> Float32Array:
        """Return the features (n, d) of tiles (n, h, w, 3)."""
        parts = [
            self.network.run({INPUT: tiles[at : at + batch]})[OUTPUT]
            for at in range(0, len(tiles), batch)
        ]
        return np.concatenate(parts)


def open_graph(data: bytes, label: str = "extractor") -> OpenGraph:
    """Load a graph as a device does."""
    return OpenGraph(open_backend("cpu").open(Graph(data, label)))


def _compare(source: ExtractorSource, data: bytes) -> float:
    graph = open_graph(data, source.name)
    rng, worst = np.random.default_rng(0), 0.0
    for count in CHECKED_BATCHES:
        tiles = rng.integers(0, 256, (count, *source.tile_px, 3), dtype=np.uint8)
        wanted = source.features(tiles)
        found = graph.features(tiles, batch=count)
        error = float(np.abs(wanted - found).max()) / max(1.0, float(np.abs(wanted).max()))
        # Written so that NaN is refused too.
        if not error <= TOLERANCE:
            raise ExtractorError(
                f"The ONNX graph of {source.name} differs from the original by {error:.2g} at a "
                f"batch of {count}, and {TOLERANCE:g} is allowed; the model does something that "
                "depends on the batch or that the exporter gets wrong."
            )
        worst = max(worst, error)
    return worst


def _flattened(model: onnx.ModelProto, source: ExtractorSource) -> onnx.ModelProto:
    """Make features (n, d, 1, 1) into (n, d)."""
    probe = np.zeros((1, *source.tile_px, 3), dtype=np.uint8)
    data = model.SerializeToString()
    if open_graph(data, source.name).features(probe).ndim == 2:
        return model
    for node in model.graph.node:
        node.output[:] = ["features_wide" if name == OUTPUT else name for name in node.output]
        node.input[:] = ["features_wide" if name == OUTPUT else name for name in node.input]
    flatten = helper.make_node("Flatten", ["features_wide"], [OUTPUT], "features_flatten")
    model.graph.node.append(flatten)
    return model


def _refuse_too_large(source: TorchExtractor) -> None:
    """Refuse weights that no ONNX file holds, before the minutes that tracing them takes."""
    weights = (*source.module.parameters(), *source.module.buffers())
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    if size > MAX_GRAPH_BYTES:
        raise ExtractorError(
            f"{source.name} has {size / 2**30:.1f} GiB of weights in FP32, and an ONNX file holds "
            "at most 2 GiB; use a smaller extractor."
        )


def _trace(source: TorchExtractor) -> onnx.ModelProto:
    """Return the graph of a torch module, float32 (n, 3, h, w) in, with a dynamic batch."""
    import torch

    sample = torch.zeros(2, 3, *source.tile_px)  # a batch of 1 would be taken for a constant
    with quiet_exporter(), torch.inference_mode(False), torch.no_grad():
        try:
            if isinstance(source.module, torch.jit.ScriptModule):
                return _trace_script(source.module, sample)
            program = torch.onnx.export(
                source.module,
                (sample,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},),
                verbose=False,
            )
        except Exception as error:  # the exporter lets any error of the model's code through
            raise ExtractorError(
                f"torch cannot export {source.name} to ONNX ({first_line(error)}); rewrite what it "
                "names, or export it yourself and use onnx:FILE."
            ) from error
    assert program is not None
    made: onnx.ModelProto = program.model_proto
    return made


def _trace_script(module: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
    """Return the graph of a TorchScript program, which only torch's older exporter takes."""
    import torch

    out = io.BytesIO()
    torch.onnx.export(
        module,
        (sample,),
        out,  # type: ignore[arg-type]  # the older exporter takes a file
        dynamo=False,
        opset_version=LEGACY_OPSET,
        input_names=["image"],
        output_names=["embedding"],
        dynamic_axes={"image": {0: "n"}, "embedding": {0: "n"}},
    )
    return onnx.load_model_from_string(out.getvalue())
