"""`edge-mil-export bundle`: export an extractor and an aggregator as one bundle."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mil.bundle import check_out
from edge_mil.errors import UsageError
from edge_mil_export.bundle.early_checks import check_files, parse_mpp
from edge_mil_export.bundle.licences import parse_licences
from edge_mil_export.commands import head_options, network_option
from edge_mil_export.extractors.kinds import check_extractor
from edge_mil_export.extractors.options import NAMES, parse_extractor_options
from edge_mil_export.extractors.published.presets import PRESETS

if TYPE_CHECKING:
    from edge_mil_export.bundle.making import ExportedBundle

PRECISIONS = ("fp32", "fp16", "int8")
MAX_TILE_PX = 8192
DEFAULT_DIFFERENCE = 0.02
"""What a slide score may move by, of a probability."""


def add_parser(subparsers: Any) -> None:
    """Add `bundle`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bundle",
        help="export an extractor and an aggregator",
        description="Export an extractor and an aggregator as one bundle, which scores slides and "
        "cameras. Every graph is compared with the original before the bundle is written; "
        "nothing is downloaded.",
    )
    parser.add_argument(
        "--extractor",
        required=True,
        metavar="KIND:WHERE",
        help="checkpoint:FILE (a published extractor, read from its keys), preset:NAME "
        f"({', '.join(PRESETS)}), timm:NAME, onnx:FILE, torchscript:FILE or python:MODULE:FACTORY "
        "(a function without arguments in your own module that returns a torch module; the current "
        "folder is searched)",
    )
    parser.add_argument(
        "--extractor-weights",
        type=Path,
        metavar="FILE",
        help="weights of preset:, timm: or python:; a file, or the folder of a model hub",
    )
    parser.add_argument(
        "--extractor-option",
        action="append",
        default=[],
        metavar="K=V",
        help=f"what the extractor's file cannot tell: {', '.join(NAMES)}; repeat for more",
    )
    parser.add_argument(
        "--aggregator", type=Path, required=True, metavar="CHECKPOINT", help="the head's weights"
    )
    head_options.add_arguments(parser)
    head_options.add_task(parser)
    network_option.add_argument(parser, both=True)
    parser.add_argument(
        "--instances",
        choices=("grid", "field"),
        default="grid",
        help="cells of the slide's grid, or whole camera fields (default: grid)",
    )
    parser.add_argument(
        "--tile-px", required=True, metavar="PX", help="size of the model's tile: 224, or WxH"
    )
    parser.add_argument(
        "--mpp", required=True, help="pixel size that the model was trained at, um/px"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P,...",
        help="fp32, and any of fp16 (for TensorRT) and int8, as fp32,fp16,int8 (default: fp32)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="folder of tiles, larger images (at --mpp) or slides; int8 needs it. Those that do "
        "not calibrate judge, where no --fidelity-slide does",
    )
    parser.add_argument(
        "--fidelity-slide",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a slide to measure the score on; repeat for more",
    )
    parser.add_argument(
        "--max-score-difference",
        type=float,
        default=DEFAULT_DIFFERENCE,
        metavar="X",
        help="what INT8 or FP16 may move a slide score by (default: 0.02); else the export fails",
    )
    parser.add_argument(
        "--normalise",
        metavar="R,G,B/R,G,B|none",
        help="mean/standard deviation, of 0 to 1; default: those of the preset, of a file beside "
        "the weights or of timm, where they leave no doubt. none: the network takes 0 to 255 and "
        "normalises by itself",
    )
    parser.add_argument(
        "--stain",
        choices=("macenko", "reinhard"),
        help="bring tiles to the stain of the calibration tiles (else of the fidelity slides) "
        "before the extractor; sessions then need edge-mil calibrate stain",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also measure how far faults of a camera (white balance, gamma, blur, sharpening, "
        "noise, JPEG, scale) move the score, for the fidelity report and the model card",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--force", action="store_true", help="replace a bundle that is there already"
    )
    parser.add_argument("--name", help="name of the bundle (default: that of --out)")
    parser.add_argument(
        "--licence",
        action="append",
        default=[],
        metavar="TEXT",
        help="terms of the weights: extractor=TEXT, aggregator=TEXT, or one TEXT for both "
        "(default: the preset's, the model card beside the weights, else unknown and not to be "
        "passed on)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, measure and write the bundle, and print the fidelity figures.

    Raises:
        EdgeMilError: An input or option does not fit; the message says which.
    """
    # 1. What is wrong in the arguments themselves is said before torch is imported.
    precisions = _precisions(arguments.precision)
    weights = network_option.parse_weights(arguments.weights)
    arch_options = head_options.parse_options(arguments.arch_option)
    extractor_options = parse_extractor_options(arguments.extractor_option)
    arch_options = network_option.with_head_weights(arch_options, weights.get("aggregator"))
    extractor_options = network_option.with_extractor_weights(
        extractor_options, weights.get("extractor")
    )
    classes = head_options.parse_classes(arguments.classes)
    tile_px, mpp = parse_tile(arguments.tile_px), parse_mpp(arguments.mpp)
    parse_licences(arguments.licence, card="")
    if "int8" in precisions and arguments.calibration is None:
        raise UsageError(
            "int8 needs --calibration DIR, a folder of tiles or slides like those that the model "
            "will see; or export with --precision fp32."
        )
    difference = arguments.max_score_difference
    if not (math.isfinite(difference) and difference > 0):
        raise UsageError(f"--max-score-difference must be above 0, got {difference:g}.")
    check_extractor(
        arguments.extractor,
        weights=arguments.extractor_weights,
        normalise=arguments.normalise,
        options=extractor_options,
    )
    check_files(arguments.aggregator, arguments.fidelity_slide, arguments.calibration)
    check_out(arguments.out, force=arguments.force)

    # 2. The long work.
    from edge_mil_export.bundle.making import BundleRequest, make_bundle

    request = BundleRequest(
        extractor=arguments.extractor,
        extractor_weights=arguments.extractor_weights,
        extractor_options=extractor_options,
        aggregator=arguments.aggregator,
        arch=arguments.arch,
        arch_options=arch_options,
        classes=classes,
        task=arguments.task,
        instances=arguments.instances,
        tile_px=tile_px,
        mpp=mpp,
        int8="int8" in precisions,
        fp16="fp16" in precisions,
        calibration=arguments.calibration,
        fidelity_slides=tuple(arguments.fidelity_slide),
        max_difference=difference,
        normalise=arguments.normalise,
        name=arguments.name or "",
        licences=tuple(arguments.licence),
        stain=arguments.stain,
        robustness=arguments.robustness,
    )
    exported = make_bundle(request, arguments.out)
    for part in exported.unknown_licences:
        print(
            f"edge-mil-export: the licence of the {part} is not known; name it with "
            f"--licence {part}=TEXT.",
            file=sys.stderr,
        )
    if arguments.json:
        print(json.dumps(_document(exported, arguments.out)))
    else:
        _print(exported, arguments.out)
    return 0


def parse_tile(text: str) -> tuple[int, int]:
    """Return height and width from `--tile-px`: one number, or WxH.

    Raises:
        UsageError: It is neither, or too large.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isdecimal() and 0 < int(s) <= MAX_TILE_PX for s in sides):
        raise UsageError(f"--tile-px is one number or width x height, as 320x240, got {text}.")
    return int(sides[-1]), int(sides[0])


def _precisions(text: str) -> list[str]:
    precisions = [word.strip() for word in text.split(",")]
    for word in precisions:
        if word not in PRECISIONS:
            raise UsageError(
                f"There is no precision {word!r}; name fp32, fp32,int8 or fp32,fp16,int8."
            )
    return precisions


def _document(exported: ExportedBundle, out: Path) -> dict[str, Any]:
    manifest = exported.bundle.manifest
    return {
        "bundle": exported.bundle.digest,
        "path": str(out),
        "name": manifest.name,
        "extractor": manifest.extractor.name if manifest.extractor else "",
        "extractor_facts": list(exported.extractor_facts),
        "extractor_left_out": list(exported.extractor_left_out),
        "licences": {
            "extractor": manifest.licences.extractor,
            "aggregator": manifest.licences.aggregator,
        },
        "feature_dim": manifest.aggregator.feature_dim,
        "architecture": manifest.aggregator.architecture,
        "classes": list(manifest.task.classes),
        "task": manifest.task.kind,
        "assumed": {one.name: one.value for one in exported.assumed},
        "files": sorted(manifest.files),
        "redistributable": manifest.redistributable,
        "fidelity": exported.fidelity,
    }


def _print(exported: ExportedBundle, out: Path) -> None:
    manifest, on = exported.bundle.manifest, exported.fidelity["measured_on"]
    name = manifest.extractor.name if manifest.extractor else ""
    print(f"{name}: features of width {manifest.aggregator.feature_dim}")
    for fact in exported.extractor_facts:
        print(f"  {fact}")
    if exported.extractor_left_out:
        print(f"  left out, not needed: {', '.join(exported.extractor_left_out)}")
    print(f"  licence of its weights: {manifest.licences.extractor}")
    print(exported.summary)
    head_options.print_assumed(exported.assumed)
    print(
        f"measured on {len(on['bags'])} bags, {on['tiles']} tiles: {on['source']} "
        f"(against {exported.fidelity['reference']})"
    )
    print(f"  {'':10}{'score moved: mean':>18}{'max':>9}{'flips':>7}{'centred cosine min':>20}")
    for key, figures in exported.fidelity["comparisons"].items():
        form = figures.get("form", {}).get("name", "")
        print(
            f"  {key:10}{figures['score_difference_mean']:18.4f}"
            f"{figures['score_difference_max']:9.4f}{figures['class_flips']:7d}"
            f"{figures['centred_cosine_min']:20.4f}  {form}"
        )
    print(f"wrote {out} ({exported.bundle.digest[:19]})")
