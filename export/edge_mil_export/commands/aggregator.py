"""`edge-mil-export aggregator`: a bundle that scores saved features."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_mil_export.bundle.licences import parse_licences
from edge_mil_export.commands import head_options, network_option
from edge_mil_export.commands.head_options import print_assumed

DESCRIPTION = (
    "Turn the checkpoint of an aggregator into a bundle that scores saved features "
    "(edge-mil score). The architecture is found from the checkpoint's keys."
)


def add_parser(subparsers: Any) -> None:
    """Add `aggregator`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "aggregator", help="export an aggregator's checkpoint alone", description=DESCRIPTION
    )
    parser.add_argument("checkpoint", type=Path, help="a torch file or .safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    head_options.add_arguments(parser)
    head_options.add_task(parser)
    network_option.add_argument(parser, both=False)
    parser.add_argument("--name", metavar="N", help="name of the bundle; that of --out")
    parser.add_argument("--licence", metavar="TEXT", help="terms of the checkpoint's weights")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export the head, write the bundle and print what was read from the checkpoint."""
    options = network_option.with_head_weights(
        head_options.parse_options(arguments.arch_option), arguments.weights
    )
    classes = head_options.parse_classes(arguments.classes)
    terms = parse_licences([arguments.licence] if arguments.licence else [], card="")

    from edge_mil_export.bundle.aggregator_bundle import write_aggregator_bundle
    from edge_mil_export.onnx_export.exported_aggregator import export_aggregator

    exported = export_aggregator(
        arguments.checkpoint,
        arch=arguments.arch,
        options=options,
        classes=classes,
        task=arguments.task,
    )
    if "aggregator" in terms.unknown:
        print(
            "edge-mil-export: the licence of the weights is not known, so the bundle is marked as "
            "not to be passed on; name it with --licence.",
            file=sys.stderr,
        )
    bundle = write_aggregator_bundle(
        exported,
        arguments.out,
        name=arguments.name or "",
        terms=terms,
        weights=arguments.checkpoint.name,
    )
    if arguments.json:
        document = {
            "bundle": bundle.digest,
            "path": str(arguments.out),
            "name": bundle.manifest.name,
            "architecture": exported.spec.architecture,
            "options": exported.spec.options,
            "classes": list(exported.task.classes),
            "task": bundle.manifest.task.kind,
            "assumed": {one.name: one.value for one in exported.assumed},
            "summary": exported.summary,
        }
        print(json.dumps(document))
    else:
        print(exported.summary)
        print_assumed(exported.assumed)
        print(f"wrote {arguments.out} ({bundle.digest[:19]})")
    return 0
