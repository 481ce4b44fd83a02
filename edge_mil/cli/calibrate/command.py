"""`edge-mil calibrate`: measure a part of a named calibration; list and show calibrations.

It is longer than 300 lines: the verbs share their arguments and what they print.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msgspec import structs

from edge_mil.bundle import open_bundle
from edge_mil.calibration import (
    MAX_AGE_DAYS,
    Calibration,
    CalibrationFolder,
    Measurement,
    OpticalPath,
    begin,
)
from edge_mil.calibration.calibration import DAY_S
from edge_mil.calibration.parts import CAMERA, DARK, FLAT, GATES, PIXEL_SIZE, STAIN, WHITE
from edge_mil.cameras.image_folder import ImageFolder, read_image
from edge_mil.cameras.scan_plan import ScanPlan
from edge_mil.cli.arguments import Subparsers, add_json, add_state, image_names, state_folder
from edge_mil.cli.calibrate.camera import (
    DESCRIPTION,
    add_options,
    passport_document,
    passport_rows,
    run_camera,
)
from edge_mil.cli.calibrate.histogram import histogram_lines
from edge_mil.cli.calibrate.stage import add_stage_verb
from edge_mil.cli.console import print_table, print_text
from edge_mil.errors import UsageError
from edge_mil.imaging import TissueTest
from edge_mil.types import Frame, check_mpp

VERBS = {
    FLAT: "Measure uneven light from empty glass at 4 or more positions, or, where there is no "
    "empty glass, from tissue at a dozen or more.",
    WHITE: "Measure the colour of the lamp and the level of empty glass. It comes after the flat "
    "field.",
    PIXEL_SIZE: "Measure the pixel size, and how the camera lies on the stage, from fields with "
    "known stage positions (positions.csv) that overlap by a third or more. With --distance-um: "
    "measure the pixel size from images of a ruler slide.",
    GATES: "Fit the thresholds of focus, motion and saturation to a short scan of good fields.",
    STAIN: "Measure the colours of this batch of slides from a short scan, for bundles that "
    "normalise the stain.",
    CAMERA: DESCRIPTION,
}
"""Part of a calibration -> how it is measured."""

HELP = {
    FLAT: "measure uneven light from empty glass",
    WHITE: "measure the colour of the lamp",
    PIXEL_SIZE: "measure the pixel size and the camera's axes on the stage",
    GATES: "fit the thresholds of focus, motion and saturation",
    STAIN: "measure the colours of a batch of slides",
    CAMERA: "measure what the camera does to a bundle, against a scan, and mend it",
}
"""Part of a calibration -> its line in the list of verbs."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `calibrate` and its verbs."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure flat field, white balance, pixel size, gates, stain and camera of a "
        "microscope",
        description="Measure a microscope from folders of images. Each verb adds one part to a "
        "named calibration; sessions run under that name. Measure in this order: flat-field, "
        "white-balance, pixel-size, gates, stain, camera. A part that is measured again removes "
        "the later parts that depend on it.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="|".join([*VERBS, "stage", "list", "show"]))
    verbs.required = True
    for part, line in VERBS.items():
        verb = verbs.add_parser(part, help=HELP[part], description=line)
        verb.add_argument(
            "folder", metavar="FOLDER", type=Path, help="a folder of png, jpg, tif or bmp images"
        )
        verb.add_argument(
            "--name", required=True, help="name of the calibration: letters, digits, . _ -"
        )
        verb.add_argument("--camera", default="", help="the camera and its binning, in your words")
        verb.add_argument("--objective", default="", help="the objective, as 20x/0.45")
        verb.add_argument("--tube-lens", default="", help="the tube lens or adaptor")
        verb.add_argument(
            "--mpp", type=float, metavar="X", help="pixel size where it is known, µm/px"
        )
        if part == FLAT:
            verb.add_argument(
                "--dark", type=Path, metavar="FOLDER", help="images taken with the lamp off"
            )
        if part == PIXEL_SIZE:
            verb.add_argument(
                "--distance-um",
                type=float,
                metavar="X",
                default=0.0,
                help="distance between the lines of a ruler slide, µm",
            )
        if part == GATES:
            verb.add_argument(
                "--bundle", metavar="BUNDLE", help="take the tissue test from this bundle"
            )
        _add_common(verb)
        if part == CAMERA:
            add_options(verb)
        verb.set_defaults(run=run_camera if part == CAMERA else run_measure, part=part)
    staging = verbs.add_parser(
        "stage",
        help="take over what a session's fields say of its stage",
        description="Take over the pixel size and the rotation that the overlapping fields of a "
        "session show, where they are a little off what was declared. The next session runs under "
        "that calibration.",
    )
    add_stage_verb(staging)
    listing = verbs.add_parser(
        "list",
        help="list the calibrations of this device",
        description="List the calibrations of this device.",
    )
    _add_common(listing)
    listing.set_defaults(run=run_list)
    showing = verbs.add_parser(
        "show",
        help="show one calibration",
        description="Show one calibration and the numbers behind it.",
    )
    showing.add_argument("name", metavar="NAME", help="a name from edge-mil calibrate list")
    _add_common(showing)
    showing.set_defaults(run=run_show)


def _add_common(verb: argparse.ArgumentParser) -> None:
    add_state(verb)
    verb.add_argument(
        "--max-age-days",
        type=float,
        default=MAX_AGE_DAYS,
        metavar="DAYS",
        help="call a calibration stale when it is older (default: %(default)g)",
    )
    add_json(verb)


def run_measure(arguments: argparse.Namespace) -> int:
    """Measure one part and store it.

    Raises:
        EdgeMilError: The images do not allow it; the message says which would.
    """
    part: str = arguments.part
    mpp = None if arguments.mpp is None else check_mpp(arguments.mpp, "--mpp")
    distance = getattr(arguments, "distance_um", 0.0)
    if distance < 0:
        raise UsageError(f"--distance-um is {distance:g}; it must be positive.")
    folder = _folder(arguments)
    optics = OpticalPath(arguments.camera, arguments.objective, arguments.tube_lens)
    known = folder.find(arguments.name)
    calibration = begin(known, arguments.name, optics, mpp)
    if dark := getattr(arguments, "dark", None):
        calibration = _measured(Measurement(DARK, calibration), _images(dark))
    tissue = TissueTest()
    if bundle := getattr(arguments, "bundle", None):
        spec = open_bundle(bundle).manifest.input
        if spec is not None:
            asked = spec.tissue
            tissue = TissueTest(asked.background, asked.min_difference, asked.min_share)
    measurement = Measurement(part, calibration, distance, tissue)
    moves = part == PIXEL_SIZE and not distance
    frames = _positioned(arguments.folder, mpp) if moves else _images(arguments.folder)
    calibration = _measured(measurement, frames)
    folder.save(calibration)
    void = sorted(set(known.measured if known else ()) - set(calibration.measured))
    if arguments.json:
        document = {**_document(calibration, arguments.max_age_days), "void": void}
        document["histograms"] = [
            {
                "name": h.name,
                "edges": h.edges.tolist(),
                "counts": list(h.counts),
                "threshold": h.threshold,
            }
            for h in measurement.histograms
        ]
        print(json.dumps(document, indent=2))
        return 0
    for found in measurement.histograms:
        print("\n".join(histogram_lines(found)))
    _print(calibration, arguments.max_age_days)
    if void:
        print_text(f"Measured through the old {part}, so measure again: {', '.join(void)}.")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print a table of the calibrations."""
    folder = _folder(arguments)
    found = [folder.load(name) for name in folder.names()]
    if arguments.json:
        documents = [_document(c, arguments.max_age_days) for c in found]
        print(json.dumps({"calibrations": documents}, indent=2))
        return 0
    print_table([_row(calibration, arguments.max_age_days) for calibration in found])
    if not found:
        print_text(
            f"No calibration in {folder.root}; measure one with edge-mil calibrate flat-field."
        )
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print one calibration."""
    calibration = _folder(arguments).load(arguments.name)
    if arguments.json:
        print(json.dumps(_document(calibration, arguments.max_age_days), indent=2))
    else:
        _print(calibration, arguments.max_age_days)
    return 0


def _folder(arguments: argparse.Namespace) -> CalibrationFolder:
    return CalibrationFolder(state_folder(arguments))


def _measured(measurement: Measurement, frames: Iterator[Frame]) -> Calibration:
    for frame in frames:
        measurement.add(frame)
    return measurement.finish(time.time())


def _images(folder: Path) -> Iterator[Frame]:
    for name in image_names(folder):
        yield Frame(read_image(folder / name), name=name)


def _positioned(folder: Path, mpp: float | None) -> Iterator[Frame]:
    # The folder camera asks for a pixel size, which is not known yet, and does not use it itself.
    camera = ImageFolder(folder, ScanPlan(), mpp or 1.0)
    for name in camera.names:
        yield camera.read(name)


def _document(calibration: Calibration, max_age_days: float) -> dict[str, Any]:
    shading, stain = calibration.shading, calibration.stain
    return {
        "name": calibration.name,
        "digest": calibration.digest,
        "optics": structs.asdict(calibration.optics),
        "measured": {part: _when(when) for part, when in sorted(calibration.measured.items())},
        "stale": _age_days(calibration) > max_age_days,
        "mpp": calibration.mpp,
        "frame_px": None if shading is None else list(shading.frame_px[::-1]),
        "white_gains": None if shading is None else list(shading.white_gains),
        "background": calibration.background and list(calibration.background),
        "stage_affine": calibration.stage_affine and list(calibration.stage_affine),
        "gates": None if calibration.gates is None else calibration.gates.as_json(),
        "stain": None if stain is None else asdict(stain),
        "figures": dict(calibration.figures),
        "passports": [passport_document(passport) for passport in calibration.passports],
    }


def _row(calibration: Calibration, max_age_days: float) -> tuple[str, ...]:
    mpp = "pixel size unknown" if calibration.mpp is None else f"{calibration.mpp:.4g} µm/px"
    stale = "STALE" if _age_days(calibration) > max_age_days else ""
    parts = ", ".join(sorted(calibration.measured)) or "nothing measured"
    return calibration.name, str(calibration.optics), mpp, parts, stale


def _print(calibration: Calibration, max_age_days: float) -> None:
    name, *about = _row(calibration, max_age_days)
    print_text(f"{name}: {'; '.join(part for part in about if part)}")
    rows = [(f"{part} measured", _when(t)) for part, t in sorted(calibration.measured.items())]
    rows += [(name, f"{value:.4g}") for name, value in sorted(calibration.figures.items())]
    if calibration.background is not None:
        levels = ", ".join(f"{level:.0f}" for level in calibration.background)
        rows.append(("empty glass after correction, RGB", levels))
    if calibration.stage_affine is not None:
        a, b, c, d = calibration.stage_affine
        rows.append(("camera px to stage µm", f"[{a:.5f} {b:.5f}; {c:.5f} {d:.5f}]"))
    if calibration.gates is not None:
        gates = calibration.gates.as_json().items()
        rows += [(f"gate {name}", f"{value:.4g}") for name, value in gates]
    print_table([*rows, ("digest", calibration.digest)])
    for passport in calibration.passports:
        print_text(f"Camera passport for {passport.bundle_name} ({passport.precision}):")
        print_table(passport_rows(passport))
        if passport.reason:
            print_text(passport.reason)


def _age_days(calibration: Calibration) -> float:
    return (time.time() - calibration.created) / DAY_S if calibration.measured else 0.0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
