"""Errors of the exporter, and how it quotes those of other libraries.

All are children of `UsageError`: the runtime never raises them, so they need no gRPC status.
"""

from __future__ import annotations

from edge_mil.errors import UsageError

QUOTED_CHARACTERS = 160
"""What a message quotes of another library's error; two lines of a terminal."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:QUOTED_CHARACTERS]


class CheckpointError(UsageError):
    """A checkpoint cannot be read, or does not hold the weights that it should."""


class ArchitectureError(UsageError):
    """The architecture of a checkpoint is not recognised, or its keys do not fit it."""


class ExtractorError(UsageError):
    """An extractor cannot be loaded, or its ONNX graph does not compute what it computes."""


class CalibrationError(UsageError):
    """The calibration images are too few, too small or cannot be read."""


class QuantizationError(UsageError):
    """No INT8 form of the extractor keeps the slide scores within the bound."""
