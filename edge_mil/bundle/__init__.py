"""The exported folder: its manifest, its checksums, reading and writing it."""

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
