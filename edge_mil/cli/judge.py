"""`edge-mil judge`: the verdict on each image of a folder, with the numbers behind it."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cameras.image_folder import read_image
from edge_mil.cli.arguments import Subparsers, add_json, image_names
from edge_mil.errors import BundleError, SourceError
from edge_mil.imaging import GridGeometry, TissueTest
from edge_mil.imaging.quality.single_image import ImageQuality
from edge_mil.pipeline import load_model
from edge_mil.pipeline.ood.single_image_ood import SingleImageOod
from edge_mil.types import RESEARCH_USE_ONLY, Measure, Verdict, check_mpp
from edge_mil.verdict_text import measure_sentence, verdict_sentence

TILE_PX, MPP = 224, 0.5
"""Cells without a bundle: the tile and pixel size that most models take."""

SHOWN = ("clipped_share", "black_share", "tissue_share", "stillness", "focus", "sharpness")
"""Measures that people read; --json has all of them."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `judge`."""
    parser = subparsers.add_parser(
        "judge",
        help="judge each image of a folder alone: its verdict, with numbers",
        description="Judge each image of a folder and its subfolders alone, in the order of their "
        "names, by the gates of a live session: saturation, motion, tissue and focus. With a "
        "bundle that has a reference, also say whether the image is like what the model was made "
        "for. " + RESEARCH_USE_ONLY,
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="a folder of png, jpg, tif or bmp images"
    )
    parser.add_argument(
        "--bundle", metavar="BUNDLE", help="take cells, tissue test and reference from this bundle"
    )
    parser.add_argument(
        "--mpp",
        type=float,
        metavar="X",
        help="pixel size of the images, µm/px (default: that of the model)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge the images of the folder and print their verdicts.

    Raises:
        EdgeMilError: The folder, the bundle or the pixel size does not fit.
    """
    folder: Path = arguments.folder
    names = image_names(folder)
    bundle = None if arguments.bundle is None else open_bundle(arguments.bundle)
    quality = _image_quality(bundle, arguments.mpp)
    model = None if bundle is None or not SingleImageOod.supports(bundle) else load_model(bundle)
    ood = None if model is None else SingleImageOod(model, quality.geometry)
    judged = []
    try:
        for name in names:
            judged.append(_judge(quality, ood, folder, name))
            if not arguments.json:
                print(judged[-1].line(), flush=True)
    finally:
        if model is not None:
            model.close()
    if arguments.json:
        frames = [image.as_json() for image in judged]
        print(json.dumps({"frames": frames, "notice": RESEARCH_USE_ONLY}, indent=2))
    else:
        counts = Counter("unreadable" if i.verdict is None else i.verdict.name for i in judged)
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) + ".")
        print(RESEARCH_USE_ONLY)
    return 0


@dataclass(frozen=True, slots=True)
class _JudgedImage:
    """One image of the folder.

    Attributes:
        name: Its path inside the folder.
        verdict: None where the file cannot be read.
        words: What to read: the verdict's sentence, or why the file cannot be read.
        measures: The numbers behind the verdict.
    """

    name: str
    verdict: Verdict | None
    words: str
    measures: tuple[Measure, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the entry of `frames`: numbers by name, each limit as NAME_threshold."""
        if self.verdict is None:
            return {"file": self.name, "verdict": None, "error": self.words}
        numbers = {}
        for measure in self.measures:
            numbers[measure.name] = measure.value
            if not math.isnan(measure.threshold):
                numbers[f"{measure.name}_threshold"] = measure.threshold
        rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
        return {"file": self.name, "verdict": self.verdict.name, **rounded, "words": self.words}

    def line(self) -> str:
        """Return the line that people read."""
        if self.verdict is None:
            return f"{self.name}  UNREADABLE  {self.words}"
        by_name = {measure.name: measure for measure in self.measures}
        shown = [measure_sentence(by_name[name]) for name in SHOWN if name in by_name]
        return f"{self.name}  {self.verdict.name}  {self.words} ({'; '.join(shown)})"


def _image_quality(bundle: Bundle | None, mpp: float | None) -> ImageQuality:
    """Return the gates for a bundle's cells; for those of most models without a bundle."""
    if mpp is not None:
        check_mpp(mpp, "--mpp")
    if bundle is None:
        return ImageQuality(GridGeometry(mpp or MPP, TILE_PX, TILE_PX, MPP))
    spec = bundle.manifest.input
    if spec is None:
        raise BundleError(
            f"{bundle.manifest.name} has no extractor, so it has no cells to judge by; give a "
            "bundle with an extractor, or none."
        )
    geometry = None
    if spec.instances == "grid":
        geometry = GridGeometry(mpp or spec.mpp, spec.tile_height_px, spec.tile_width_px, spec.mpp)
    tissue = spec.tissue
    return ImageQuality(
        geometry, TissueTest(tissue.background, tissue.min_difference, tissue.min_share)
    )


def _judge(
    quality: ImageQuality, ood: SingleImageOod | None, folder: Path, name: str
) -> _JudgedImage:
    try:
        pixels = read_image(folder / name)
    except SourceError as error:
        return _JudgedImage(name, None, str(error))
    report = quality.evaluate(pixels)
    verdict, words = report.verdict, verdict_sentence(report.verdict, "judge")
    measures = Measure("sharpness", report.sharpness), *report.measures
    if ood is not None and verdict is Verdict.ACCEPTED:
        compared = ood.evaluate(report, pixels)
        measures += compared.measures
        if compared.words:
            verdict, words = Verdict.OUT_OF_DISTRIBUTION, compared.words
    return _JudgedImage(name, verdict, words, measures)
