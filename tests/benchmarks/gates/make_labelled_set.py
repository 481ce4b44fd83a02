"""Make the labelled set of the gates from the real camera fields; write it to a folder if asked.

    python tests/benchmarks/gates/make_labelled_set.py ../shared/data OUT [--half check] [--other]

Each image is OUT/KIND/SET__FILE.png; OUT/labels.csv lists them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from degradations import (
    brown,
    bubbly,
    clean_glass,
    clipped_by,
    defocused,
    doubled,
    dusty,
    fluorescent,
    inked,
    jpeg,
    moved,
    noisy,
    pale,
    shaded_glass,
    softened,
    vibrated,
)
from sources import EXTRA, HALVES, MAIN, fields_of, real_shading, spread

from edge_mil.cameras.image_folder import read_image
from edge_mil.types import UInt8Array

RADII = (2, 3, 4, 5, 6, 8, 10, 12)
BORDERLINE = (2, 3)
LENGTHS = (4, 5, 6, 8, 12, 20, 30, 40)
GAINS = (1.3, 1.6, 2.0)
NOISE = (1.0, 6.0)
"""Standard deviation of the sensor's noise, grey levels: drawn evenly between these."""

DOUBLING_NOISE = (0.5, 5.0)
"""The same for doubled exposures and vibration."""

EVEN_LEVELS = (40, 60, 80, 100, 120, 140, 160, 180, 190, 200, 210)
"""Levels of fields that show nothing at all."""

CLIPPED_SHARE = 0.1
"""A field whose gain was raised is labelled clipped when this share of its pixels is at 255 in one
or two channels: a dark field is not clipped by a gain of 1.3."""

BLANKS = 40


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One labelled picture.

    Attributes:
        kind: good, blur_r04, moved_l12, clipped, blank, negatives, shading, ...
        source: The set that it was made from.
        name: Its file's name.
        pixels: RGB uint8 (h, w, 3).
    """

    kind: str
    source: str
    name: str
    pixels: UInt8Array


def labelled_set(
    data: Path,
    *,
    half: str = "all",
    fields: int = 12,
    seed: int = 0,
    other: bool = False,
    light: bool = False,
) -> Iterator[LabelledImage]:
    """Yield the labelled set.

    Args:
        data: The folder of the shared data.
        half: Which fields of each set.
        fields: Fields of each set, at most, for what is degraded; every field is shown as it is.
        seed: Chooses noise and angles.
        other: Made otherwise: Gaussian blur, noise that grows with the light, JPEG after it,
            fields made smaller or larger by a fifth.
        light: Noise, JPEG, doubled exposures, vibration, lamp and light, in place of the others.
    """
    rng = np.random.default_rng([seed, HALVES.index(half), int(other) + 2 * int(light)])
    for source in MAIN + EXTRA:
        paths = fields_of(data, source, half)
        for path in paths:
            yield LabelledImage("good", source, path.name, read_image(path))
        for path in spread(paths, fields):
            pixels = read_image(path)
            made = _made_otherwise(pixels, rng) if other else _made(pixels, rng)
            if light:
                made = _made_in_light(pixels, rng)
            for kind, picture in made:
                yield LabelledImage(kind, source, path.name, picture)
    yield from _even(rng) if light else _without_tissue(data, rng)


def _made(pixels: UInt8Array, rng: np.random.Generator) -> Iterator[tuple[str, UInt8Array]]:
    for radius in RADII:
        yield f"blur_r{radius:02d}", defocused(pixels, radius, rng.uniform(*NOISE), rng)
    for length in LENGTHS:
        angle = rng.uniform(0, 180)
        yield f"moved_l{length:02d}", moved(pixels, length, angle, rng.uniform(*NOISE), rng)
    for gain in GAINS:
        bright = clipped_by(pixels, gain)
        at_top = (bright == 255).sum(axis=2)
        clipped = float(((at_top > 0) & (at_top < 3)).mean()) > CLIPPED_SHARE
        yield ("clipped" if clipped else "brighter"), bright
    yield "black", clipped_by(pixels, 0.004)


def _made_otherwise(
    pixels: UInt8Array, rng: np.random.Generator
) -> Iterator[tuple[str, UInt8Array]]:
    scale = float(rng.choice([0.8, 1.2]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)
    other = resized.astype(np.uint8, copy=False)
    yield f"good_x{scale:g}", other
    yield "good_jpeg", jpeg(pixels, int(rng.integers(80, 96)))
    yield "good_noise", noisy(pixels, rng.uniform(1.0, 3.0), rng)
    for sigma in (2.5, 4.0, 6.0):
        yield f"gauss_s{sigma:g}", softened(other, sigma, rng.uniform(*NOISE), rng)
    for radius in (4.5, 7.0):
        yield (
            f"blur_jpeg_r{radius:g}",
            jpeg(defocused(other, radius, rng.uniform(*NOISE), rng), int(rng.integers(85, 97))),
        )
    for length in (6, 15, 35):
        moving = moved(other, length, rng.uniform(0, 180), rng.uniform(*NOISE), rng)
        yield f"moved_x_l{length:02d}", moving
        if length == 15:
            yield "moved_jpeg", jpeg(moving, int(rng.integers(85, 97)))


def _made_in_light(
    pixels: UInt8Array, rng: np.random.Generator
) -> Iterator[tuple[str, UInt8Array]]:
    for deviation in (2, 4, 6):
        yield f"good_noise{deviation}", noisy(pixels, deviation, rng)
    for deviation in (20, 40):
        yield f"noise{deviation}", noisy(pixels, deviation, rng)
    for quality in (5, 10):
        yield f"jpeg{quality:02d}", jpeg(pixels, quality)
    for shift in (8, 12, 16, 20):
        angle, share = rng.uniform(0, 180), rng.uniform(0.4, 0.5)
        made = doubled(pixels, shift, angle, share, rng.uniform(*DOUBLING_NOISE), rng)
        yield f"doubled{shift:02d}", made
    for amplitude in (3, 6):
        angle = rng.uniform(0, 180)
        made = vibrated(pixels, amplitude, angle, rng.uniform(*DOUBLING_NOISE), rng)
        yield f"vibrated{amplitude}", made
    for share in (20, 10, 5):
        yield f"dark{share:02d}", clipped_by(pixels, share / 100)
    yield "negative", (255 - pixels).astype(np.uint8)
    yield "fluorescent", fluorescent(pixels)
    yield "one_channel", np.repeat(pixels[..., 1:2], 3, axis=2)
    yield "said_brown", brown(pixels)
    yield "said_pale", pale(pixels)
    yield "said_bubbles", bubbly(pixels, rng)
    yield "said_ink_blue", inked(pixels, (40, 60, 150))
    yield "said_ink_green", inked(pixels, (30, 130, 70))


def _even(rng: np.random.Generator) -> Iterator[LabelledImage]:
    for level in EVEN_LEVELS:
        for deviation in (0.0, 1.0, 3.0, 6.0):
            even = np.full((768, 1024, 3), level, np.float32)
            name = f"{level} {deviation:g}"
            yield LabelledImage("even", "glass", name, noisy(even, deviation, rng))


def _without_tissue(data: Path, rng: np.random.Generator) -> Iterator[LabelledImage]:
    shading = real_shading(data)
    for number in range(BLANKS):
        if number % 2:
            glass, kind = shaded_glass(shading, 520, 694), "blank_real_shading"
        else:
            glass, kind = clean_glass(768, 1024, rng), "blank_vignette"
        pixels = noisy(dusty(glass, rng, int(rng.integers(5, 60))), rng.uniform(0.5, 5.0), rng)
        yield LabelledImage(kind, "glass", f"{number:02d}", pixels)
    for source, kind in (("gate_negatives", "negatives"), ("brightfield_shading", "unstained")):
        for path in fields_of(data, source):
            yield LabelledImage(kind, source, path.name, read_image(path))


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other", action="store_true")
    parser.add_argument("--light", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    made = labelled_set(
        given.data,
        half=given.half,
        fields=given.fields,
        seed=given.seed,
        other=given.other,
        light=given.light,
    )
    with (given.out / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        labels = csv.writer(table)
        labels.writerow(["file", "kind", "source"])
        for number, picture in enumerate(made):
            name = f"{picture.source}__{number:05d}__{Path(picture.name).stem}.png"
            folder = given.out / picture.kind
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name), cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR))
            labels.writerow([f"{picture.kind}/{name}", picture.kind, picture.source])


if __name__ == "__main__":
    main()
