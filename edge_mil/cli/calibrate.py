"""`edge-mil calibrate ...`: measure a microscope from a folder of images, by name."""

from __future__ import annotations

import argparse
import json
import sys
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
from edge_mil.calibration.parts import DARK, FLAT, GATES, PIXEL_SIZE, STAIN, WHITE
from edge_mil.cameras.image_folder import SUFFIXES, ImageFolder, read_image
from edge_mil.cameras.scan_plan import ScanPlan
from edge_mil.cli.histogram import histogram
from edge_mil.errors import SourceError, UsageError
from edge_mil.imaging import TissueTest
from edge_mil.session import default_state_folder
from edge_mil.types import Frame, check_mpp

VERBS = {
    FLAT: "Measure uneven light from empty glass at 4 or more places, or, where there is none, "
    "from tissue at a dozen or more.",
    WHITE: "Measure the lamp's colour and the level of empty glass, after the flat field.",
    PIXEL_SIZE: "Measure the pixel size, and how the camera lies on the stage, from fields at "
    "known stage positions (positions.csv) that overlap by a third or more; or the pixel size "
    "from a ruler slide (--distance-um).",
    GATES: "Fit the thresholds of focus, motion and saturation to a short scan of good fields.",
    STAIN: "Measure the colours of this batch of slides on a short scan, for bundles that want "
    "stain normalisation.",
}
"""Part -> what measuring it is about."""


def add_parser(subparsers: Any) -> None:
    """Add `calibrate` and its verbs."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "calibrate",
        help="measure flat field, white balance, pixel size, gates and stain of a microscope",
        description="Measure a microscope from folders of images. Each verb adds its part to the "
        "calibration of that name, which sessions then run under. The order: flat-field, "
        "white-balance, pixel-size, gates, stain; a part that is measured anew takes out those "
        "that were measured through it.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="|".join([*VERBS, "list", "show"]))
    verbs.required = True
    for part, line in VERBS.items():
        verb = verbs.add_parser(part, help=line, description=line)
        verb.add_argument("folder", type=Path, help="holds png, jpg, tif or bmp images")
        verb.add_argument(
            "--name", required=True, help="of the calibration: letters, digits, . _ -"
        )
        verb.add_argument("--camera", default="", help="which camera and binning, in your words")
        verb.add_argument("--objective", default="", help="which objective, as 20x/0.45")
        verb.add_argument("--tube-lens", default="", help="which tube lens or adaptor")
        verb.add_argument("--mpp", type=float, help="pixel size where it is known, um/px")
        if part == FLAT:
            verb.add_argument(
                "--dark", type=Path, metavar="FOLDER", help="images with the lamp off"
            )
        if part == PIXEL_SIZE:
            verb.add_argument(
                "--distance-um", type=float, default=0.0, help="distance of a ruler's lines, um"
            )
        if part == GATES:
            verb.add_argument("--bundle", help="whose tissue test is used")
        _add_common(verb)
        verb.set_defaults(run=run_measure, part=part)
    listing = verbs.add_parser("list", help="List the calibrations of this device.")
    _add_common(listing)
    listing.set_defaults(run=run_list)
    showing = verbs.add_parser("show", help="Show one calibration and the numbers behind it.")
    showing.add_argument("name", help="as `edge-mil calibrate list` prints it")
    _add_common(showing)
    showing.set_defaults(run=run_show)


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="state directory of the service (default: $XDG_STATE_HOME/edge-mil or "
        "~/.local/state/edge-mil)",
    )
    verb.add_argument(
        "--max-age-days",
        type=float,
        default=MAX_AGE_DAYS,
        metavar="DAYS",
        help="older parts are called stale (default: %(default)g)",
    )
    verb.add_argument("--json", action="store_true", help="print one JSON document")


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
    for shown in measurement.histograms:
        print(histogram(shown))
    _print(calibration, arguments.max_age_days)
    if void:
        print(f"Measured through the old {part}, so measure again: {', '.join(void)}.")
    sys.stdout.flush()
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line for each calibration."""
    folder = _folder(arguments)
    found = [folder.load(name) for name in folder.names()]
    if arguments.json:
        documents = [_document(c, arguments.max_age_days) for c in found]
        print(json.dumps({"calibrations": documents}, indent=2))
        return 0
    for calibration in found:
        print(_line(calibration, arguments.max_age_days))
    if not found:
        print(f"No calibration in {folder.root}; measure one with edge-mil calibrate flat-field.")
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
    return CalibrationFolder(arguments.state or default_state_folder())


def _measured(measurement: Measurement, frames: Iterator[Frame]) -> Calibration:
    for frame in frames:
        measurement.add(frame)
    return measurement.finish(time.time())


def _images(folder: Path) -> Iterator[Frame]:
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give a folder of images.", folder=folder)
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not paths:
        raise SourceError(
            f"{folder} holds no images; give a folder of png, jpg, tif or bmp files.",
            folder=folder,
        )
    for path in paths:
        yield Frame(read_image(path), name=path.relative_to(folder).as_posix())


def _positioned(folder: Path, mpp: float | None) -> Iterator[Frame]:
    # The folder camera wants a pixel size, which is what is to be measured; it only passes it on.
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
    }


def _line(calibration: Calibration, max_age_days: float) -> str:
    mpp = "pixel size unknown" if calibration.mpp is None else f"{calibration.mpp:.4g} um/px"
    stale = ", STALE" if _age_days(calibration) > max_age_days else ""
    parts = ", ".join(sorted(calibration.measured)) or "nothing measured"
    return f"{calibration.name:20} {calibration.optics}; {mpp}; {parts}{stale}"


def _print(calibration: Calibration, max_age_days: float) -> None:
    print(_line(calibration, max_age_days))
    for part, when in sorted(calibration.measured.items()):
        print(f"  {part:16} measured {_when(when)}")
    for name, value in sorted(calibration.figures.items()):
        print(f"  {name:32} {value:10.4g}")
    if calibration.background is not None:
        levels = ", ".join(f"{level:.0f}" for level in calibration.background)
        print(f"  empty glass after correction     ({levels})")
    if calibration.stage_affine is not None:
        a, b, c, d = calibration.stage_affine
        print(f"  camera px to stage um            [{a:.5f} {b:.5f}; {c:.5f} {d:.5f}]")
    if calibration.gates is not None:
        for name, value in calibration.gates.as_json().items():
            print(f"  gate {name:27} {value:10.4g}")
    print(f"  {calibration.digest}")


def _age_days(calibration: Calibration) -> float:
    return (time.time() - calibration.created) / DAY_S if calibration.measured else 0.0


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
