"""`onnx:FILE`: a graph that others exported, brought to opset 13 or newer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edge_mil.types import UInt8Array
from edge_mil_export.errors import ExtractorError, first_line
from edge_mil_export.extractors.source import ExtractorSource, Normalisation

OLDEST_OPSET = 13
"""Weights in INT8 with a scale per channel need it."""
CONVERTED_OPSET = 18
ORT_ERRORS_ONLY = 3
"""Severity from which ONNX Runtime writes to standard error; a user cannot act on its warnings."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxExtractor(ExtractorSource):
    """An ONNX graph from images to features.

    Attributes:
        model: Takes float32 (n, 3, h, w), or uint8 (n, h, w, 3) and normalises by itself.
    """

    framework = "the ONNX file"
    model: onnx.ModelProto

    @property
    def takes_bytes(self) -> bool:
        """Whether the graph takes uint8 images."""
        return bool(_inputs(self.model)[0].type.tensor_type.elem_type == TensorProto.UINT8)

    def run(self, tiles: UInt8Array) -> object:
        """Run the file as it is in ONNX Runtime.

        Raises:
            ExtractorError: ONNX Runtime does not run it.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = ORT_ERRORS_ONLY
        try:
            session = ort.InferenceSession(
                self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            given = tiles if self.takes_bytes else self.normalise(tiles)
            return session.run(None, {session.get_inputs()[0].name: given})[0]
        except Exception as error:  # ONNX Runtime's errors share no base class that it exports
            raise ExtractorError(
                f"{self.name} does not run in ONNX Runtime {ort.__version__} "
                f"({first_line(error)}); export it again."
            ) from error


def open_onnx(
    path: Path, tile_px: tuple[int, int], normalisation: Normalisation | None
) -> OnnxExtractor:
    """Read an ONNX file: one image input, float32 (n, 3, h, w) or uint8 (n, h, w, 3).

    Args:
        path: The file; weights beside it (external data) are taken in.
        tile_px: Height and width of a tile.
        normalisation: None where the graph takes 0 to 255; so does every uint8 input.

    Raises:
        ExtractorError: It cannot be read, holds NaN, or takes something else.
    """
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ExtractorError(f"There is no ONNX file {path}; check the path.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ExtractorError(
            f"{path.name} is no valid ONNX model ({first_line(error)}); export it again."
        ) from error
    _check_weights(model, path.name)
    inputs = _inputs(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExtractorError(
            f"{path.name} has {len(inputs)} inputs and {len(model.graph.output)} outputs, and an "
            "extractor has one image input and one output of features (n, d); export it so."
        )
    image = inputs[0].type.tensor_type
    sides = [d.dim_value or None for d in image.shape.dim]
    is_bytes = image.elem_type == TensorProto.UINT8
    expected = [None, *tile_px, 3] if is_bytes else [None, 3, *tile_px]
    fits = len(sides) == 4 and all(
        side is None or want is None or side == want
        for side, want in zip(sides[1:], expected[1:], strict=True)
    )
    if not fits or image.elem_type not in (TensorProto.UINT8, TensorProto.FLOAT):
        raise ExtractorError(
            f"{path.name} takes {sides} and the tiles are {expected}, float32 (n, 3, h, w) or "
            "uint8 (n, h, w, 3); check --tile-px, or export it so."
        )
    if sides[0] not in (None, 0):
        raise ExtractorError(
            f"{path.name} is fixed to batches of {sides[0]}; export it with a dynamic batch axis."
        )
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        model = onnx.version_converter.convert_version(model, CONVERTED_OPSET)
    return OnnxExtractor(f"onnx:{path.name}", tile_px, None if is_bytes else normalisation, model)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the graph's inputs without its weights, which older files name as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]


def _check_weights(model: onnx.ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or not math.prod(tensor.dims):
            continue
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ExtractorError(
                f"{tensor.name} of {name} holds NaN or infinity, so the file is damaged; "
                "export an earlier checkpoint."
            )
