"""`edge-mil judge`: the verdict on each image of a folder, and the numbers behind it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cameras.image_folder import SUFFIXES, read_image
from edge_mil.errors import BundleError, SourceError
from edge_mil.imaging import GridGeometry, TissueTest
from edge_mil.imaging.quality.single_image import ImageQuality
from edge_mil.pipeline import load_model
from edge_mil.pipeline.ood.single_image_ood import SingleImageOod
from edge_mil.types import RESEARCH_USE_ONLY, Measure, Verdict, check_mpp
from edge_mil.verdict_text import words_of

TILE_PX, MPP = 224, 0.5
"""Cells without a bundle: the tile and pixel size that most models take."""


def add_parser(subparsers: Any) -> None:
    """Add `judge` and its arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "judge",
        help="judge each image of a folder alone: its verdict and the numbers behind it",
        description="Judge each image of a folder and its subfolders alone, in the order of their "
        "names, by the gates of a live session: saturation, motion, tissue, focus, and, with a "
        "bundle that has a reference, whether it is what the model was made for. "
        + RESEARCH_USE_ONLY,
    )
    parser.add_argument("folder", type=Path, help="holds png, jpg, tif or bmp images")
    parser.add_argument("--bundle", help="size of cells, tissue test and reference from a bundle")
    parser.add_argument(
        "--mpp",
        type=float,
        help="pixel size of the images, um/px; default: a pixel is one of the model's",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge the folder and print what was found.

    Raises:
        EdgeMilError: The folder, the bundle or the pixel size does not fit.
    """
    folder: Path = arguments.folder
    names = _images(folder)
    bundle = None if arguments.bundle is None else open_bundle(arguments.bundle)
    judge = _judge(bundle, arguments.mpp)
    model = None if bundle is None or not SingleImageOod.supports(bundle) else load_model(bundle)
    ood = None if model is None else SingleImageOod(model, judge.geometry)
    frames = []
    try:
        for name in names:
            entry = _entry(judge, ood, folder, name)
            frames.append(entry)
            if not arguments.json:
                print(_line(entry), flush=True)
    finally:
        if model is not None:
            model.close()
    if arguments.json:
        print(json.dumps({"frames": frames, "notice": RESEARCH_USE_ONLY}, indent=2))
    else:
        counts = Counter(str(entry["verdict"] or "unreadable") for entry in frames)
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) + ".")
        print(RESEARCH_USE_ONLY)
    sys.stdout.flush()
    return 0


def _images(folder: Path) -> list[str]:
    """Return the images of a folder and its subfolders by their path within it, sorted."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give a folder of images.", folder=folder)
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not names:
        raise SourceError(
            f"{folder} holds no images; give a folder of png, jpg, tif or bmp files.",
            folder=folder,
        )
    return names


def _judge(bundle: Bundle | None, mpp: float | None) -> ImageQuality:
    """Return the judge of a bundle's cells; of the usual ones without a bundle."""
    if mpp is not None:
        check_mpp(mpp, "--mpp")
    if bundle is None:
        return ImageQuality(GridGeometry(mpp or MPP, TILE_PX, TILE_PX, MPP))
    taken = bundle.manifest.input
    if taken is None:
        raise BundleError(
            f"{bundle.manifest.name} has no extractor, so it has no cells to judge by; give a "
            "bundle with an extractor, or none."
        )
    geometry = None
    if taken.instances == "grid":
        geometry = GridGeometry(
            mpp or taken.mpp, taken.tile_height_px, taken.tile_width_px, taken.mpp
        )
    numbers = taken.tissue
    return ImageQuality(
        geometry, TissueTest(numbers.background, numbers.min_difference, numbers.min_share)
    )


def _entry(
    judge: ImageQuality, ood: SingleImageOod | None, folder: Path, name: str
) -> dict[str, object]:
    """Return one entry of `frames`; for a file that cannot be read, the sentence that says so."""
    try:
        pixels = read_image(folder / name)
    except SourceError as error:
        return {"file": name, "verdict": None, "error": str(error)}
    found = judge.evaluate(pixels)
    verdict, measures, words = found.verdict, list(found.measures), words_of(found.verdict)
    if ood is not None and verdict is Verdict.ACCEPTED:
        compared = ood.evaluate(found, pixels)
        measures += compared.measures
        if compared.words:
            verdict, words = Verdict.OUT_OF_DISTRIBUTION, compared.words
    numbers = _numbers(found.sharpness, measures)
    return {"file": name, "verdict": verdict.name, **numbers, "words": words}


def _numbers(sharpness: float, measures: list[Measure]) -> dict[str, float]:
    """Return the numbers by name, and each threshold as NAME_threshold."""
    numbers: dict[str, float] = {"sharpness": sharpness}
    for measure in measures:
        numbers[measure.name] = measure.value
        if not math.isnan(measure.threshold):
            numbers[f"{measure.name}_threshold"] = measure.threshold
    return {name: float(f"{value:.6g}") for name, value in numbers.items()}


def _line(entry: dict[str, object]) -> str:
    if entry["verdict"] is None:
        return f"{entry['file']}  UNREADABLE  {entry['error']}"
    shown = [
        f"{name} {entry[name]:.3g}" + (f" ({entry[limit]:.3g})" if limit in entry else "")
        for name in (
            "clipped_share",
            "black_share",
            "tissue_share",
            "stillness",
            "focus",
            "sharpness",
        )
        if name in entry
        for limit in [f"{name}_threshold"]
    ]
    return f"{entry['file']}  {entry['verdict']}  {entry['words']}; {', '.join(shown)}"
