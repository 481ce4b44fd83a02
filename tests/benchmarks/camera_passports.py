"""How far camera passports mend simulated cameras, on tissue that they were not measured on.

A camera of each seed has colours between those of two real scanners (five_scanners), its own lamp,
curve, optics, sharpening, noise, JPEG and rotation. Its passport is measured on 14 fields of a
slide of some tissue, with its scan; then whole fields of other tissue are scored as the scanner,
the camera and the mended camera show them. The heads saw neither.

usage: python tests/benchmarks/camera_passports.py DATA [--seeds FIRST:END]
           [--subject lite0|demo] [--precision fp32|int8] [--refusals] [--json]
       DATA is ../shared/data
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import repository_path  # noqa: F401 - the folder of the simulated cameras
from array_slide import ArraySlide
from simulated_camera import SimulatedCamera, draw_camera, identity_camera

from edge_mil.bundle import InputSpec, open_bundle
from edge_mil.calibration.passport import (
    BundleIdentity,
    CameraPassport,
    measure_passport,
    pair_fields,
)
from edge_mil.calibration.passport.effect import score_shift
from edge_mil.errors import CalibrationError
from edge_mil.imaging.tissue import TissueTest
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.tile_scorer import ModelTileScorer
from edge_mil.types import Frame, SlideScore, UInt8Array

FIELD_PX = (640, 800)
FIELDS = 14
BLURRED_PX = 2.0
"""Softness of the cameras that must be called not mendable."""
TRAINING, PASSPORT = 19, 8
"""Fields of the heads, and of the passport's slide; the other twelve are scored."""
PAINTED = 91_000
"""First seed of the demo's slides, which its model never saw."""
PAINTED_BAGS = 8
PAINTED_PX = (1024, 1280)
PASSPORT_PX = (1536, 2048)
"""Sizes of the painted slides: of those that are scored, and of the passport's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One camera.

    Attributes:
        seed: Of the camera.
        before: Mean |shift| of the score of a bag of other tissue, without a correction.
        largest_before: Its largest.
        after: Mean with the passport's correction.
        largest_after: Its largest.
        bound: The stated 95 % bound for bags of that size.
        held: Share of the bags within the bound.
        verified: Whether the passport says that the camera is mended.
        colour: Form of the colour map.
        seconds: Of measuring the passport.
    """

    seed: int
    before: float
    largest_before: float
    after: float
    largest_after: float
    bound: float
    held: float
    verified: bool
    colour: str
    seconds: float


class Subject:
    """A bundle, a slide for passports, another slide, and bags of other tissue."""

    def __init__(
        self,
        model: Model,
        slide: UInt8Array,
        other_slide: UInt8Array,
        bags: Sequence[UInt8Array],
        mpp: float,
    ) -> None:
        self.model, self.slide, self.other_slide, self.mpp = model, slide, other_slide, mpp
        self.scorer = ModelTileScorer(model)
        assert model.input is not None
        self.spec: InputSpec = model.input
        spec = self.spec.tissue
        self._test = TissueTest(spec.background, spec.min_difference, spec.min_share)
        self.bags = [bag for bag in bags if len(self.tiles(bag, bag))]
        self.references = [self.score(self.tiles(bag, bag)) for bag in self.bags]

    def tiles(self, image: UInt8Array, scan: UInt8Array) -> UInt8Array:
        """Cut whole tiles of an image where the scan shows tissue."""
        side = self.spec.tile_height_px
        found = [
            image[y : y + side, x : x + side]
            for y in range(0, image.shape[0] - side + 1, side)
            for x in range(0, image.shape[1] - side + 1, side)
            if self._test.share(scan[y : y + side, x : x + side]) >= self._test.min_share
        ]
        return np.stack(found) if found else np.empty((0, side, side, 3), np.uint8)

    def score(self, tiles: UInt8Array) -> SlideScore:
        """Score one bag."""
        features = self.scorer.features(tiles)
        found = self.scorer.scores(features, [np.arange(len(features))])[0]
        assert found is not None
        return found

    def passport(self, camera: SimulatedCamera, slide: UInt8Array | None = None) -> CameraPassport:
        """Measure a passport on fields of the slide, or of another one."""
        pairs = pair_fields(
            fields_of(camera, self.slide if slide is None else slide),
            ArraySlide(self.slide, self.mpp),
            self.spec,
            self.mpp,
            lambda pixels: pixels,
        )
        bundle = self.model.bundle
        identity = BundleIdentity(bundle.digest, bundle.manifest.name, self.model.precision)
        return measure_passport(pairs, self.scorer, identity, mpp=self.mpp, now=time.time())


def fields_of(camera: SimulatedCamera, slide: UInt8Array) -> Iterator[Frame]:
    """Yield a camera's fields of a slide, at random places."""
    chance = np.random.default_rng([camera.seed, 7])
    height, width = FIELD_PX
    for number in range(FIELDS):
        x = int(chance.integers(0, slide.shape[1] - width))
        y = int(chance.integers(0, slide.shape[0] - height))
        yield Frame(camera.field(slide, x, y, FIELD_PX), name=f"field {number}")


def measure_row(subject: Subject, camera: SimulatedCamera) -> Row:
    """Measure a passport, and the shift of other tissue before and after."""
    started = time.perf_counter()
    passport = subject.passport(camera)
    seconds = time.perf_counter() - started
    before, after, bounds = [], [], []
    for number, scan in enumerate(subject.bags):
        seen = subject.tiles(camera.see(scan, number), scan)
        reference = subject.references[number]
        before.append(score_shift(reference, subject.score(seen)))
        after.append(score_shift(reference, subject.score(passport.correction.apply(seen))))
        bounds.append(passport.after.bound_of(len(seen)))
    return Row(
        camera.seed,
        float(np.mean(before)),
        max(before),
        float(np.mean(after)),
        max(after),
        float(np.mean(bounds)),
        float(np.mean(np.array(after) <= np.array(bounds))),
        passport.verified,
        passport.correction.colour.kind + ("+gain" if passport.correction.gains else ""),
        seconds,
    )


def lite0(data: Path, folder: Path, precision: str) -> Subject:
    """Return EfficientNet-Lite0 with a head that was trained on 19 fields of real tissue."""
    import torch
    from cross_validated_heads import train
    from edge_mil_export.extractors import open_extractor
    from edge_mil_export.onnx_export.extractor_graph import export_extractor, open_graph
    from evaluation_subjects import FIELDS as TISSUE
    from evaluation_subjects import NORMALISE
    from real_bundle import WEIGHTS, export

    files = sorted((data / TISSUE).glob("*/*.jpg"))
    order = np.random.default_rng(11).permutation(len(files))
    images = [_read(files[k]) for k in order]
    labels = [int(files[k].parent.name == "viable") for k in order]
    source = open_extractor(
        "timm:tf_efficientnet_lite0",
        weights=data.parent / WEIGHTS,
        tile_px=(224, 224),
        normalise=NORMALISE,
    )
    network = open_graph(export_extractor(source, 1280).data)
    cut = [_squares(image, 224) for image in images]
    features = [network.features(tiles) for tiles in cut[:TRAINING]]
    head = folder / "abmil.pt"
    torch.save(train(features, labels[:TRAINING], 0).state_dict(), head)
    calibration = folder / "tiles"
    calibration.mkdir()
    for k in range(TRAINING):
        cv2.imwrite(str(calibration / f"field{k:02}.png"), images[k][:, :, ::-1])
    out = export(
        head,
        folder / "bundle",
        *("--tile-px", "224", "--mpp", "1.0", "--classes", "other,viable"),
        *("--normalise", NORMALISE, "--precision", "fp32,int8" if precision == "int8" else "fp32"),
        *("--calibration", str(calibration)),
    )
    model = load_model(open_bundle(out), precision=precision, threads=2)
    split = TRAINING + PASSPORT
    slide = _mosaic(images[TRAINING:split], 3)
    return Subject(
        model, slide, _mosaic(images[:PASSPORT], 3), [x[:672, :896] for x in images[split:]], 1.0
    )


def demo(data: Path, folder: Path, precision: str) -> Subject:
    """Return the demo's bundle and painted slides."""
    from edge_mil.demo.painted_slide import MPP, paint_slide
    from edge_mil.demo.run import BUNDLE

    sizes = [PASSPORT_PX] * 2 + [PAINTED_PX] * PAINTED_BAGS
    slides = [
        paint_slide(PAINTED + k, positive=bool(k % 2), height_px=high, width_px=wide).pixels
        for k, (high, wide) in enumerate(sizes)
    ]
    model = load_model(open_bundle(BUNDLE), precision=precision, threads=2)
    return Subject(model, slides[1], slides[0], slides[2:], MPP)


SUBJECTS: dict[str, Callable[[Path, Path, str], Subject]] = {"lite0": lite0, "demo": demo}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", default="200:220", help="FIRST:END (default: %(default)s)")
    parser.add_argument("--subject", choices=sorted(SUBJECTS), default="lite0")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument(
        "--refusals", action="store_true", help="also blurred cameras, and fields of another slide"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    first, end = (int(x) for x in arguments.seeds.split(":"))
    scanners = arguments.data / "five_scanners"
    with tempfile.TemporaryDirectory() as folder:
        subject = SUBJECTS[arguments.subject](arguments.data, Path(folder), arguments.precision)
        cameras = [draw_camera(scanners, seed) for seed in range(first, end)]
        rows = []
        for camera in cameras:
            rows.append(measure_row(subject, camera))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
        identity = measure_row(subject, identity_camera())
        asked = cameras if arguments.refusals else []
        blurred = [_called_blurred(subject, camera) for camera in asked]
        refused = [_refused(subject, camera) for camera in asked]
    table = {
        "cameras": [asdict(row) for row in rows],
        "mean_before": float(np.mean([row.before for row in rows])),
        "mean_after": float(np.mean([row.after for row in rows])),
        "bound_held": sum(row.held >= 0.95 for row in rows),
        "identity": asdict(identity),
        "blurred_called_so": sum(blurred),
        "other_slide_refused": sum(refused),
    }
    if arguments.json:
        print(json.dumps(table, indent=2))
        return 0
    print("| camera | before | largest | after | largest | bound | within | correction | state |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(_line(row))
    count = len(rows)
    print(f"Mean before {table['mean_before']:.4f}, after {table['mean_after']:.4f}.")
    print(f"The bound holds for {table['bound_held']} of {count} cameras.")
    print(f"An identity camera moves {identity.after:.5f} at a shift of {identity.before:.5f}.")
    if not arguments.refusals:
        return 0
    print(f"Blurred cameras called not mendable: {sum(blurred)} of {count}.")
    print(f"Fields of another slide refused: {sum(refused)} of {count}.")
    return 0


def _line(row: Row) -> str:
    state = "verified" if row.verified else "not verified"
    return (
        f"| {row.seed} | {row.before:.3f} | {row.largest_before:.3f} | {row.after:.3f} | "
        f"{row.largest_after:.3f} | {row.bound:.3f} | {row.held:.0%} | "
        f"{row.colour} | {state} |"
    )


def _called_blurred(subject: Subject, camera: SimulatedCamera) -> bool:
    """Say whether a camera that sees blurred is called not mendable, or refused in words."""
    from dataclasses import replace

    soft = replace(camera, sigma_px=BLURRED_PX, sharpening=0.0)
    try:
        return not subject.passport(soft).verified
    except CalibrationError as error:
        return "focus" in str(error)


def _refused(subject: Subject, camera: SimulatedCamera) -> bool:
    try:
        subject.passport(camera, subject.other_slide)
    except CalibrationError as error:
        return error.details.get("reason") == "PASSPORT_OTHER_SLIDE"
    return False


def _read(path: Path) -> UInt8Array:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return np.ascontiguousarray(image[:, :, ::-1])


def _squares(image: UInt8Array, side: int) -> UInt8Array:
    return np.stack(
        [
            image[y : y + side, x : x + side]
            for y in range(0, image.shape[0] - side + 1, side)
            for x in range(0, image.shape[1] - side + 1, side)
        ]
    )


def _mosaic(images: Sequence[UInt8Array], columns: int) -> UInt8Array:
    """Lay images side by side, as one slide; what is missing is glass."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    out = np.full((rows * height, columns * width, 3), 245, np.uint8)
    for k, image in enumerate(images):
        y, x = k // columns * height, k % columns * width
        out[y : y + height, x : x + width] = image
    return out


if __name__ == "__main__":
    sys.exit(main())
