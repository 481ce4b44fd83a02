"""`edge-mil-export aggregator`: a bundle that scores saved features."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

DESCRIPTION = (
    "Turn the checkpoint of an aggregator into a bundle that scores saved features "
    "(edge-mil score). The architecture is found from the checkpoint's keys."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that tell what a checkpoint's keys cannot: also those of `bundle`."""
    parser.add_argument(
        "--arch", metavar="NAME", help="architecture; detected from the keys when not named"
    )
    parser.add_argument(
        "--arch-option",
        action="append",
        default=[],
        metavar="K=V",
        help="what the file cannot tell, as activation=relu; repeat for more",
    )
    parser.add_argument(
        "--classes", metavar="A,B,...", help='names of the outputs; "0", "1", ... when not named'
    )


def add_parser(subparsers: Any) -> None:
    """Add `aggregator`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "aggregator", help="export an aggregator's checkpoint alone", description=DESCRIPTION
    )
    parser.add_argument("checkpoint", type=Path, help="a torch file or .safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add_arguments(parser)
    parser.add_argument("--name", metavar="N", help="name of the bundle; that of --out")
    parser.add_argument("--licence", metavar="TEXT", help="terms of the checkpoint's weights")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, write the bundle, say what was read from the checkpoint."""
    from edge_mil.bundle import Licences, Manifest, write_bundle
    from edge_mil.version import __version__
    from edge_mil_export.bundle.licences import CLOSED, parse_licences
    from edge_mil_export.onnx_export.aggregator import (
        export_aggregator,
        parse_classes,
        parse_options,
    )

    exported = export_aggregator(
        arguments.checkpoint,
        arch=arguments.arch,
        options=parse_options(arguments.arch_option),
        classes=parse_classes(arguments.classes),
    )
    name = arguments.name or bundle_name(arguments.out)
    terms = parse_licences([arguments.licence] if arguments.licence else [], card="")
    licence = terms.licences.aggregator
    if "aggregator" in terms.unknown:
        print(
            "edge-mil-export: the licence of the weights is not known, so the bundle is marked as "
            "not to be passed on; name it with --licence.",
            file=sys.stderr,
        )
    manifest = Manifest(
        name=name,
        version="1",
        task=exported.task,
        input=None,
        extractor=None,
        aggregator=exported.spec,
        licences=Licences(extractor="", aggregator=licence),
        redistributable=CLOSED.search(licence) is None,
        created_by=f"edge-mil-export {__version__}",
    )
    card = _card(manifest, exported.summary, arguments.checkpoint.name)
    files = {**exported.graphs, "model_card.md": card.encode()}
    bundle = write_bundle(manifest, files, arguments.out)
    if arguments.json:
        document = {
            "bundle": bundle.digest,
            "path": str(arguments.out),
            "name": name,
            "architecture": exported.spec.architecture,
            "options": exported.spec.options,
            "classes": list(exported.task.classes),
            "summary": exported.summary,
        }
        print(json.dumps(document))
    else:
        print(exported.summary)
        print(f"wrote {arguments.out} ({bundle.digest[:19]})")
    return 0


def bundle_name(out: Path) -> str:
    """Return a bundle's name from where it is written: letters, digits, dots, dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", out.resolve().name) or "bundle"


def _card(manifest: Any, summary: str, checkpoint: str) -> str:
    return (
        f"# {manifest.name}\n\n"
        f"{manifest.intended_use}\n\n"
        f"- Aggregator only: it scores saved features of width {manifest.aggregator.feature_dim}.\n"
        f"- {summary}\n"
        f"- Outputs: {', '.join(manifest.task.classes)}\n"
        f"- Weights: {checkpoint}\n"
        f"- Licence of the weights: {manifest.licences.aggregator}\n"
        f"- Written by {manifest.created_by}\n\n"
        "What it was trained on and how well it does is not in the checkpoint: ask its authors.\n"
    )
