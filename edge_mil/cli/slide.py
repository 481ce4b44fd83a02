"""`edge-mil slide`: score a whole slide file offline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from edge_mil.bundle import open_bundle
from edge_mil.calibration import CalibrationFolder, stain_transform
from edge_mil.cameras import SlideFile, parse_fov
from edge_mil.cli.arguments import (
    Subparsers,
    add_bundle,
    add_insist_mpp,
    add_json,
    add_state,
    state_folder,
)
from edge_mil.cli.console import print_table, print_text
from edge_mil.errors import UsageError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.whole_slide.colour_correction import NO_GAINS, SlideColours
from edge_mil.pipeline.whole_slide.score import SlideReading, score_slide
from edge_mil.types import RESEARCH_USE_ONLY


def add_parser(subparsers: Subparsers) -> None:
    """Add `slide`."""
    parser = subparsers.add_parser(
        "slide",
        help="score a whole slide file offline: the reference for a live run",
        description="Score every complete tissue cell of a slide at full resolution; for bundles "
        "that take whole fields, one field of each part of the slide that is as large as a field. "
        "A clean live pass over the slide must give the same score. " + RESEARCH_USE_ONLY,
    )
    add_bundle(parser)
    parser.add_argument("slide", metavar="SLIDE", type=Path, help="a file that OpenSlide reads")
    parser.add_argument(
        "--mpp", type=float, metavar="X", help="pixel size, µm/px (default: the slide's own)"
    )
    add_insist_mpp(parser)
    parser.add_argument(
        "--fov", metavar="WxH", help="size of a field in pixels; bundles of whole fields only"
    )
    parser.add_argument(
        "--backend",
        default="cpu",
        help="cpu, openvino, cuda, ort-tensorrt or tensorrt (default: cpu)",
    )
    parser.add_argument(
        "--precision", default="fp32", help="fp32, int8, or fp16 with tensorrt (default: fp32)"
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="OUT.npz",
        help="also write the features, for edge-mil score",
    )
    parser.add_argument(
        "--calibration",
        metavar="NAME",
        help="use the stain, white balance, glass and camera that edge-mil calibrate measured",
    )
    parser.add_argument(
        "--allow-enlargement",
        action="store_true",
        help="also score a slide whose pixels are more than 1.5 times the model's",
    )
    add_state(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score the slide and print the result.

    Raises:
        EdgeMilError: The bundle, the slide or an option does not fit; the message says which.
    """
    field_px = parse_fov(arguments.fov) if arguments.fov else None
    out = arguments.features
    if out is not None and out.suffix != ".npz":
        raise UsageError(f"--features writes an .npz file, got {out.name}.")
    bundle = open_bundle(arguments.bundle)
    slide = SlideFile(arguments.slide, arguments.mpp, insist=arguments.insist_mpp)
    try:
        model = load_model(
            bundle,
            backend=arguments.backend,
            precision=arguments.precision,
            engines=state_folder(arguments) / "engines",
        )
        try:
            calibrations = CalibrationFolder(state_folder(arguments))
            colours = _colours(model, arguments.calibration, calibrations)
            keep = out is not None
            reading = score_slide(
                model,
                slide,
                field_px,
                colours=colours,
                keep_features=keep,
                allow_enlargement=arguments.allow_enlargement,
            )
        finally:
            model.close()
    finally:
        slide.close()
    if out is not None:
        _write(reading, out)
    if arguments.json:
        print(json.dumps(_document(reading, bundle.digest), indent=2))
    else:
        _print(reading, bundle.manifest.name, bundle.digest, arguments.slide.name)
    return 0


def _colours(model: Model, name: str | None, calibrations: CalibrationFolder) -> SlideColours:
    """Return the colours of the named calibration; those of the bundle without a name.

    Raises:
        CalibrationError: There is no such calibration, or it lacks the stain that the bundle needs.
    """
    calibration = calibrations.load(name) if name else None
    stain = stain_transform(model.input, calibration)
    if calibration is None:
        return SlideColours(stain=stain)
    gains = calibration.shading.white_gains if calibration.shading else NO_GAINS
    passport = calibration.passport_for(model.bundle.digest)
    camera = None if passport is None else passport.correction
    return SlideColours(gains, calibration.background, stain, camera)


def _document(reading: SlideReading, digest: str) -> dict[str, object]:
    return {
        "score": reading.score.as_json() if reading.score else None,
        "instances": reading.instances,
        "bundle": digest,
        # Offline every complete tissue cell is taken.
        "coverage": 1.0 if reading.instances else 0.0,
        "notice": RESEARCH_USE_ONLY,
    }


def _write(reading: SlideReading, out: Path) -> None:
    assert reading.features is not None
    try:
        np.savez(out, features=reading.features, positions=reading.positions)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error}); name another file.") from error


def _print(reading: SlideReading, name: str, digest: str, slide: str) -> None:
    score = reading.score
    print(f"{slide}: {reading.instances} instances")
    if score is None:
        print_text("No score: the slide shows no tissue, or less than the model needs.")
    else:
        numbers = score.probabilities or score.logits
        rows = list(zip(score.classes, (f"{number:.4f}" for number in numbers), strict=False))
        print_table(rows, right={1})
    print(f"Bundle {name}, {digest}.")
    print(RESEARCH_USE_ONLY)
