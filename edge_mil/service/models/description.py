"""A bundle as clients see it: what its manifest says, in the words of the wire."""

from __future__ import annotations

from edge_mil.bundle import Bundle
from edge_mil.v1 import edge_mil_pb2 as pb

MPP_TOLERANCE = 0.1
"""Relative difference of the camera's MPP that a bundle of whole fields allows
(`docs/design/imaging.md`, "Whole fields as instances")."""

INSTANCE_KINDS = {"grid": pb.INSTANCE_KIND_GRID, "field": pb.INSTANCE_KIND_FIELD}
TASK_KINDS = {
    "classification": pb.TASK_KIND_CLASSIFICATION,
    "regression": pb.TASK_KIND_REGRESSION,
    "survival": pb.TASK_KIND_SURVIVAL,
    "pooling": pb.TASK_KIND_POOLING,
}


def describe(bundle: Bundle, message: pb.ModelInfo) -> None:
    """Write what a bundle's manifest says into a message."""
    manifest = bundle.manifest
    message.title = f"{manifest.name} {manifest.version}".strip()
    message.version = manifest.version
    message.class_names.extend(manifest.task.classes)
    message.feature_dim = manifest.aggregator.feature_dim
    message.intended_use = manifest.intended_use
    message.task = TASK_KINDS[manifest.task.kind]
    message.architecture = manifest.aggregator.architecture
    if manifest.input is None:
        return
    spec = manifest.input
    message.expected_mpp, message.mpp_tolerance = spec.mpp, MPP_TOLERANCE
    message.instances = INSTANCE_KINDS[spec.instances]
    message.tile_width_px, message.tile_height_px = spec.tile_width_px, spec.tile_height_px
    if spec.tile_width_px == spec.tile_height_px:
        message.tile_px = spec.tile_width_px
    message.tissue.background.extend(spec.tissue.background)
    message.tissue.min_difference = spec.tissue.min_difference
    message.tissue.min_share = spec.tissue.min_share
