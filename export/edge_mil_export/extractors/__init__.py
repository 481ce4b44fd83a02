"""Extractors from wherever their authors keep them: timm, TorchScript, ONNX, a Python factory."""

from edge_mil_export.extractors.opening import KINDS, open_extractor
from edge_mil_export.extractors.source import ExtractorSource, Normalisation, parse_normalisation

__all__ = [
    "KINDS",
    "ExtractorSource",
    "Normalisation",
    "open_extractor",
    "parse_normalisation",
]
