"""Open the extractor that `--extractor KIND:WHERE` names."""

from __future__ import annotations

from pathlib import Path

from edge_mil.errors import UsageError
from edge_mil_export.errors import ExtractorError
from edge_mil_export.extractors.options import ExtractorOptions
from edge_mil_export.extractors.source import ExtractorSource, parse_normalisation
from edge_mil_export.extractors.timm_names import check_timm_name

KINDS = ("checkpoint", "preset", "timm", "torchscript", "onnx", "python")
FORMS = (
    "checkpoint:FILE, preset:NAME, timm:NAME, torchscript:FILE, onnx:FILE or python:MODULE:FACTORY"
)
OF_PUBLISHED_FILES = ("checkpoint", "preset", "timm")
"""Kinds whose files `--extractor-option` tells more about."""


def check_extractor(
    spec: str, *, weights: Path | None, normalise: str | None, options: ExtractorOptions
) -> None:
    """Refuse what is wrong in itself, before anything slow is imported.

    Raises:
        UsageError: The specification is none of FORMS, or an option does not go with it.
        ExtractorError: A file is not there.
    """
    kind, _, where = spec.partition(":")
    if kind not in KINDS or not where:
        raise UsageError(f"--extractor {spec} is not {FORMS}.")
    if normalise is not None:
        parse_normalisation(normalise)
    if options != ExtractorOptions() and kind not in OF_PUBLISHED_FILES:
        raise UsageError(
            f"--extractor-option tells what a file of weights cannot, and {spec} says it itself; "
            "leave it out."
        )
    if kind in ("preset", "timm"):
        _check_name(kind, where)
        if weights is None:
            raise UsageError(
                f"{spec} needs --extractor-weights FILE; nothing is downloaded, so fetch the "
                "weights first (a .safetensors or .pth file, or the folder of a model hub)."
            )
    elif weights is not None and kind != "python":
        raise UsageError(f"{spec} holds its weights itself; leave --extractor-weights out.")
    if kind in ("torchscript", "onnx", "python") and normalise is None:
        raise UsageError(
            f"{spec} does not say how its images are normalised; name --normalise R,G,B/R,G,B "
            "(mean and standard deviation of 0 to 1), or none when it does that itself."
        )
    file = Path(where) if kind in ("checkpoint", "torchscript", "onnx") else weights
    if file is not None and not file.exists():
        raise ExtractorError(f"There is no file {file}; check the path of the extractor.")


def open_extractor(
    spec: str,
    *,
    weights: Path | None,
    tile_px: tuple[int, int],
    normalise: str | None,
    options: ExtractorOptions | None = None,
) -> ExtractorSource:
    """Load an extractor. Nothing is downloaded.

    Args:
        spec: KIND:WHERE, one of FORMS.
        weights: Weights of a preset, of a timm model, or of what the factory makes.
        tile_px: Height and width of a tile.
        normalise: As `--normalise` gives it; None takes what a preset, a file beside the weights
            or timm's configuration says.
        options: What the file of a checkpoint, a preset or a timm model cannot tell.

    Raises:
        UsageError: The specification is not one of these, an option does not go with it, or a
            fact is missing.
        ExtractorError: The extractor cannot be loaded.
        CheckpointError: The weights cannot be read.
    """
    options = options or ExtractorOptions()
    check_extractor(spec, weights=weights, normalise=normalise, options=options)
    kind, _, where = spec.partition(":")
    if kind in ("checkpoint", "preset"):
        from edge_mil_export.extractors.published.opening import open_published
        from edge_mil_export.extractors.published.presets import find_preset
        from edge_mil_export.extractors.published.request import PublishedFile

        path = weights if kind == "preset" else Path(where)
        assert path is not None
        preset = find_preset(where) if kind == "preset" else None
        name = f"preset:{preset.name}" if preset is not None else f"checkpoint:{path.name}"
        return open_published(PublishedFile(path, name, tile_px, options, normalise, preset))
    if kind == "timm":
        from edge_mil_export.extractors.timm_model import open_timm

        assert weights is not None
        return open_timm(where, weights, tile_px, normalise, options)
    normalisation = parse_normalisation(normalise or "none")
    if kind == "python":
        from edge_mil_export.extractors.python_factory import open_factory

        return open_factory(where, weights, tile_px, normalisation)
    if kind == "onnx":
        from edge_mil_export.extractors.onnx_file import open_onnx

        return open_onnx(Path(where), tile_px, normalisation)
    from edge_mil_export.extractors.torchscript import open_torchscript

    return open_torchscript(Path(where), tile_px, normalisation)


def _check_name(kind: str, where: str) -> None:
    if kind == "timm":
        check_timm_name(where)
    else:
        from edge_mil_export.extractors.published.presets import find_preset

        find_preset(where)
