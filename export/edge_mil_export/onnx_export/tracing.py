"""torch.onnx.export with the settings that every graph of a bundle needs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from torch import nn

from edge_mil.errors import BundleError
from edge_mil_export.onnx_export.graph_surgery import NEWEST_IR

OPSET = 18
"""Newest that every TensorRT from 10.3 on is documented to parse, with a margin of two."""


def trace_rows(
    module: nn.Module,
    rows: torch.Tensor,
    name: str,
    outputs: Sequence[str],
    *,
    fewest: int | None = None,
) -> onnx.ModelProto:
    """Return a module as an ONNX graph whose first axis is dynamic.

    Args:
        module: Takes one tensor; put into evaluation mode here.
        rows: An example, float32.
        name: Of the input.
        outputs: Names of the outputs.
        fewest: Rows that the graph must take at least; None: any number.

    Raises:
        BundleError: torch gave no graph.
        torch.onnx.OnnxExporterError: torch cannot trace the module.
    """
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (rows,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("n", min=fewest)},),
            # The optimiser takes an added constant of 1e-8 for zero, and x / (|x| + 1e-8) is then
            # NaN at 0 (`docs/design/aggregators.md`, "What goes into ONNX").
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise BundleError(f"torch gave no graph for {name}; update torch, and export again.")
    model: onnx.ModelProto = program.model_proto
    model.ir_version = NEWEST_IR
    return model


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own progress and deprecation notes off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
