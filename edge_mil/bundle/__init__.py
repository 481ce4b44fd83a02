"""Bundles: the exported folder in, a verified `Bundle` with its manifest and its files out.

`manifest` is `bundle.json` as values; `reader` opens a folder or a packed file and verifies every
checksum; `writer` writes a folder, and packs one into a single file. `bounds` holds the limits of
a manifest, `graph_check` refuses graphs that name other files, `arrays` reads .npz files that may
lie about their sizes.
"""

from edge_mil.bundle.arrays import read_arrays
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
from edge_mil.bundle.writer import check_out, pack_bundle, write_bundle

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
    "check_out",
    "open_bundle",
    "pack_bundle",
    "read_arrays",
    "write_bundle",
]
