"""Open the extractor that `--extractor KIND:WHERE` names."""

from __future__ import annotations

from pathlib import Path

from edge_mil.errors import UsageError
from edge_mil_export.extractors.source import ExtractorSource, parse_normalisation

KINDS = ("timm", "torchscript", "onnx", "python")


def open_extractor(
    spec: str, *, weights: Path | None, tile_px: tuple[int, int], normalise: str | None
) -> ExtractorSource:
    """Load an extractor. Nothing is downloaded.

    Args:
        spec: timm:NAME, torchscript:FILE, onnx:FILE or python:MODULE:FACTORY.
        weights: Weights of a timm model, or of what the factory makes.
        tile_px: Height and width of a tile.
        normalise: As `--normalise` gives it; None takes the timm configuration.

    Raises:
        UsageError: The specification is not one of these, or an option does not go with it.
        ExtractorError: The extractor cannot be loaded.
        CheckpointError: The weights cannot be read.
    """
    kind, _, where = spec.partition(":")
    if kind not in KINDS or not where:
        raise UsageError(
            f"--extractor {spec} is not timm:NAME, torchscript:FILE, onnx:FILE or "
            "python:MODULE:FACTORY."
        )
    if kind == "timm":
        from edge_mil_export.extractors.timm_model import open_timm

        return open_timm(where, weights, tile_px, normalise)
    if normalise is None:
        raise UsageError(
            f"{spec} does not say how its images are normalised; name --normalise R,G,B/R,G,B "
            "(mean and standard deviation of 0 to 1), or none when it does that itself."
        )
    normalisation = parse_normalisation(normalise)
    if kind == "python":
        from edge_mil_export.extractors.python_factory import open_factory

        return open_factory(where, weights, tile_px, normalisation)
    if weights is not None:
        raise UsageError(f"{spec} holds its weights itself; leave --extractor-weights out.")
    if kind == "onnx":
        from edge_mil_export.extractors.onnx_file import open_onnx

        return open_onnx(Path(where), tile_px, normalisation)
    from edge_mil_export.extractors.torchscript import open_torchscript

    return open_torchscript(Path(where), tile_px, normalisation)
