"""`edge-mil calibrate camera`: measure what a camera does to a bundle, and what mends it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_mil.bundle import InputSpec, open_bundle
from edge_mil.calibration import Calibration, CalibrationFolder, CameraPassport, OpticalPath, begin
from edge_mil.calibration.parts import with_passport
from edge_mil.calibration.passport import (
    MAX_SHIFT,
    BundleIdentity,
    PassportPage,
    measure_passport,
    pair_fields,
    write_page,
)
from edge_mil.cameras import SlideFile
from edge_mil.cameras.image_folder import read_image
from edge_mil.cli.arguments import image_names, state_folder
from edge_mil.cli.console import print_table, print_text
from edge_mil.errors import BundleError, CalibrationError, UsageError
from edge_mil.imaging.correction.noise import noise_reduction
from edge_mil.pipeline import load_model
from edge_mil.pipeline.tile_scorer import ModelTileScorer
from edge_mil.types import RESEARCH_USE_ONLY, Frame, UInt8Array, check_mpp

DESCRIPTION = (
    "Measure the camera passport: what this camera does to the scores of one bundle, and what "
    "mends it. FIELDS is a folder of 10 to 30 fields of a slide that was also scanned, in focus, "
    "from different parts of the tissue; their positions are found on the scan. Measure it last, "
    "after flat-field and white-balance, and for each bundle by itself. " + RESEARCH_USE_ONLY
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `camera` takes beside the options of every part."""
    parser.add_argument(
        "--slide",
        type=Path,
        required=True,
        metavar="SCAN",
        help="the scan of the same slide, a file that OpenSlide reads",
    )
    parser.add_argument(
        "--slide-mpp",
        type=float,
        metavar="X",
        help="pixel size of the scan, µm/px (default: the scan's own)",
    )
    parser.add_argument(
        "--bundle", required=True, metavar="BUNDLE", help="the bundle that sessions will use"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "int8"),
        default="fp32",
        help="what the extractor computes in (default: %(default)s); take that of the sessions",
    )
    parser.add_argument(
        "--max-shift",
        type=float,
        default=MAX_SHIFT,
        metavar="P",
        help="shift of a score that 95 %% of the bags of a verified camera stay below, after "
        "mending (default: %(default)g)",
    )
    parser.add_argument(
        "--page", type=Path, metavar="OUT.html", help="also write the passport as a page"
    )


def run_camera(arguments: argparse.Namespace) -> int:
    """Measure a passport and store it; a camera that cannot be mended is stored as such.

    Raises:
        EdgeMilError: The fields, the scan or the bundle do not allow it; the message says why.
    """
    if not 0 < arguments.max_shift <= 1:
        raise UsageError(f"--max-shift is {arguments.max_shift:g}; give a share from 0 to 1.")
    if arguments.page is not None and not arguments.page.parent.is_dir():
        raise UsageError(f"There is no folder {arguments.page.parent}; name another --page.")
    mpp = None if arguments.mpp is None else check_mpp(arguments.mpp, "--mpp")
    folder = CalibrationFolder(state_folder(arguments))
    optics = OpticalPath(arguments.camera, arguments.objective, arguments.tube_lens)
    calibration = begin(folder.find(arguments.name), arguments.name, optics, mpp)
    if calibration.mpp is None:
        raise CalibrationError(
            f"Calibration {arguments.name} has no pixel size, and fields cannot be compared with "
            "a scan without one; give --mpp, or run edge-mil calibrate pixel-size first."
        )
    bundle = open_bundle(arguments.bundle)
    identity = BundleIdentity(bundle.digest, bundle.manifest.name, arguments.precision)
    spec = _input_of(bundle.manifest.input, bundle.manifest.name)
    scan = SlideFile(arguments.slide, arguments.slide_mpp)
    try:
        pairs = pair_fields(
            _frames(arguments.folder),
            scan,
            spec,
            calibration.mpp,
            lambda pixels: _corrected(calibration, pixels),
        )
    finally:
        scan.close()
    model = load_model(bundle, precision=arguments.precision)
    try:
        passport = measure_passport(
            pairs,
            ModelTileScorer(model),
            identity,
            mpp=calibration.mpp,
            now=time.time(),
            max_shift=arguments.max_shift,
        )
    finally:
        model.close()
    calibration = with_passport(calibration, passport)
    folder.save(calibration)
    if arguments.page is not None:
        write_page(
            PassportPage(calibration.name, str(calibration.optics), passport, pairs), arguments.page
        )
    left_out = {
        "blank": list(pairs.blank),
        "not_found": list(pairs.lost),
        "out_of_focus": list(pairs.unfocused),
    }
    if arguments.json:
        document = {"name": calibration.name, "digest": calibration.digest}
        print(
            json.dumps({**document, **passport_document(passport), "left_out": left_out}, indent=2)
        )
        return 0
    print_table(passport_rows(passport))
    for what, names in left_out.items():
        if names:
            print_text(f"Left out, {what.replace('_', ' ')}: {', '.join(names)}.")
    if passport.reason:
        print_text(f"This camera is not verified. {passport.reason}")
    else:
        print_text(
            f"Stored with calibration {calibration.name}: sessions of {passport.bundle_name} under "
            "it are mended, and verified."
        )
    print(RESEARCH_USE_ONLY)
    return 0


def passport_document(passport: CameraPassport) -> dict[str, Any]:
    """Return a passport for JSON."""
    before, after = passport.before, passport.after
    return {
        "bundle": passport.bundle_digest,
        "precision": passport.precision,
        "verified": passport.verified,
        "reason": passport.reason,
        "fields": passport.fields,
        "cells": passport.cells,
        "scale": passport.scale,
        "bound": passport.bound,
        "colour": passport.correction.colour.kind,
        "colour_errors": dict(passport.colour_errors),
        "mtf": list(passport.mtf),
        "gains": list(passport.correction.gains),
        "noise_gain": passport.noise_gain,
        "noise_levels": passport.noise,
        "shifts": [
            {
                "cells": b.cells,
                "mean_before": b.mean,
                "mean_after": a.mean,
                "quantile_before": b.quantile,
                "quantile_after": a.quantile,
                "bound_before": b.bound,
                "bound_after": a.bound,
            }
            for b, a in zip(before.shifts, after.shifts, strict=True)
        ],
        "centred_cosine": {"before": before.cosine, "after": after.cosine},
        "attention_rank": {"before": before.attention_rank, "after": after.attention_rank},
        "distance": {
            "scan": before.distance_scan,
            "before": before.distance,
            "after": after.distance,
        },
    }


def passport_rows(passport: CameraPassport) -> list[tuple[str, ...]]:
    """Return a passport as rows of a table."""
    before, after = passport.before, passport.after
    rows: list[tuple[str, ...]] = [
        ("pairs", f"{passport.cells} cells of {passport.fields} fields", ""),
        ("colour map", passport.correction.colour.kind, ""),
        ("noise gain", f"{passport.noise_gain:.2f}", ""),
        ("", "before", "after"),
        ("centred cosine", f"{before.cosine:.3f}", f"{after.cosine:.3f}"),
    ]
    if before.attention_rank is not None and after.attention_rank is not None:
        ranks = (f"{before.attention_rank:.3f}", f"{after.attention_rank:.3f}")
        rows.append(("attention rank correlation", *ranks))
    if before.distance is not None and after.distance is not None:
        rows.append(("distance", f"{before.distance:.3f}", f"{after.distance:.3f}"))
    for b, a in zip(before.shifts, after.shifts, strict=True):
        rows.append((f"mean shift, {b.cells} cells", f"{b.mean:.4f}", f"{a.mean:.4f}"))
        rows.append((f"95 % bound, {b.cells} cells", f"{b.bound:.4f}", f"{a.bound:.4f}"))
    return [*rows, ("camera", "verified" if passport.verified else "not verified", "")]


def _input_of(spec: InputSpec | None, name: str) -> InputSpec:
    """Return what the bundle takes.

    Raises:
        BundleError: It has no extractor.
        CalibrationError: It normalises stain.
    """
    if spec is None:
        raise BundleError(f"{name} has no extractor, so no camera changes its scores.")
    if spec.stain is not None:
        raise CalibrationError(
            f"{name} normalises stain ({spec.stain.method}) by the calibration of each batch of "
            "slides; a camera passport is for bundles without stain normalisation.",
            reason="PASSPORT_STAIN",
        )
    return spec


def _frames(folder: Path) -> Iterator[Frame]:
    for name in image_names(folder):
        yield Frame(read_image(folder / name), name=name)


def _corrected(calibration: Calibration, pixels: UInt8Array) -> UInt8Array:
    """Correct a field as a session does before its cells are cut."""
    shading = calibration.shading
    if shading is not None:
        pixels = shading.apply(pixels)
    noise = noise_reduction(calibration.noise, shading)
    return pixels if noise is None else noise.apply(pixels)
