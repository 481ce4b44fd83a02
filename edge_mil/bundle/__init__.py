"""Bundles: the exported folder in, a verified `Bundle` with its manifest and its files out.

`manifest` is `bundle.json` as values; `reader` opens a folder or a packed file and verifies every
checksum; `writer` writes a folder, and packs one into a single file.
"""

from edge_mil.bundle.manifest import (
    SCHEMA_VERSION,
    AggregatorSpec,
    ExtractorSpec,
    InputSpec,
    Licences,
    Manifest,
    StainSpec,
    TaskSpec,
    TissueSpec,
)
from edge_mil.bundle.reader import Bundle, open_bundle
from edge_mil.bundle.writer import pack_bundle, write_bundle

__all__ = [
    "SCHEMA_VERSION",
    "AggregatorSpec",
    "Bundle",
    "ExtractorSpec",
    "InputSpec",
    "Licences",
    "Manifest",
    "StainSpec",
    "TaskSpec",
    "TissueSpec",
    "open_bundle",
    "pack_bundle",
    "write_bundle",
]
