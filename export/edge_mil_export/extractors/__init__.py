"""Load an extractor from the form that its authors publish.

`open_extractor` (`kinds`) takes `KIND:WHERE` of the command line and returns an `ExtractorSource`
(`source`): `timm_model` (with `timm_import`), `torchscript` and `python_factory` return a
`TorchExtractor` (`torch_module`), `onnx_file` an `OnnxExtractor`. A source computes the features
that every exported graph is compared with. Nothing is downloaded.
"""

from edge_mil_export.extractors.kinds import KINDS, open_extractor
from edge_mil_export.extractors.source import ExtractorSource, Normalisation, parse_normalisation
from edge_mil_export.extractors.torch_module import TorchExtractor

__all__ = [
    "KINDS",
    "ExtractorSource",
    "Normalisation",
    "TorchExtractor",
    "open_extractor",
    "parse_normalisation",
]
