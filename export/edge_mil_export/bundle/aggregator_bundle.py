"""Write a bundle that holds a head alone, and scores saved features."""

from __future__ import annotations

import re
from pathlib import Path

from edge_mil.bundle import Bundle, Licences, Manifest, write_bundle
from edge_mil.version import __version__
from edge_mil_export.bundle.licences import Terms
from edge_mil_export.bundle.model_card import write_aggregator_card
from edge_mil_export.onnx_export.exported_aggregator import ExportedAggregator


def write_aggregator_bundle(
    head: ExportedAggregator, out: Path, *, name: str, terms: Terms, weights: str
) -> Bundle:
    """Write the bundle of a head, and return it opened.

    Args:
        head: The exported head.
        out: Folder to write; an earlier bundle there is replaced.
        name: Of the bundle; "" names it as its folder.
        terms: Of the aggregator's weights.
        weights: File that the weights came from, for the model card.
    """
    licence = terms.licences.aggregator
    manifest = Manifest(
        name=name or bundle_name(out),
        version="1",
        task=head.task,
        input=None,
        extractor=None,
        aggregator=head.spec,
        licences=Licences(extractor="", aggregator=licence),
        redistributable=terms.aggregator_redistributable,
        created_by=f"edge-mil-export {__version__}",
    )
    card = write_aggregator_card(manifest, head.summary, weights, head.assumed)
    return write_bundle(manifest, {**head.graphs, "model_card.md": card}, out)


def bundle_name(out: Path) -> str:
    """Return a bundle's name from where it is written: letters, digits, dots, dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", out.resolve().name) or "bundle"
