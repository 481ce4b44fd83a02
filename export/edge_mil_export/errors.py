"""What the exporter refuses on purpose.

Children of `UsageError`, since the runtime never meets them and its own tree has one level, each
with a gRPC status.
"""

from __future__ import annotations

from edge_mil.errors import UsageError


class CheckpointError(UsageError):
    """A checkpoint cannot be read, or does not hold the weights that it should."""


class ArchitectureError(UsageError):
    """The architecture of a checkpoint cannot be told, or its keys do not fit it."""


class ExtractorError(UsageError):
    """An extractor cannot be loaded, or its ONNX graph does not compute what it computes."""


class CalibrationError(UsageError):
    """The calibration images are too few, too small or cannot be read."""


class QuantizationError(UsageError):
    """No INT8 form of the extractor keeps the slide scores within the bound."""
