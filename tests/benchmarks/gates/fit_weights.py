"""Fit the weights of the focus and motion gates by logistic regression, and say how they hold.

    python tests/benchmarks/gates/fit_weights.py ../shared/data [--half fit]

Good: real fields as they are (and, with less weight, after JPEG and under noise), and parts of
the clean slides. Bad: the same out of focus by a disc of 4 px and more, moved by 4 px and more,
exposed twice or vibrating, with noise after it, some of them JPEG. Prints the constants of
`edge_mil/imaging/quality/focus.py` and `gate.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from degradations import defocused, doubled, jpeg, moved, noisy, vibrated
from sources import EXTRA, HALVES, MAIN, fields_of, slide_parts, spread, textured_parts

from edge_mil.cameras.image_folder import read_image
from edge_mil.imaging.correction.background_estimate import estimate_background
from edge_mil.imaging.quality.echo import echo_strength
from edge_mil.imaging.quality.focus import focus_features, noise_corrected
from edge_mil.imaging.quality.motion import motion_features
from edge_mil.imaging.quality.spectrum import field_spectrum, tissue_blocks
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import UInt8Array

RADII = (4, 5, 7, 11)
LENGTHS = (4, 5, 7, 12, 22, 40)
SHIFTS = (5, 8, 12, 16, 20, 24)
AMPLITUDES = (3, 6, 10)
NOISES = (2, 4, 6, 8)
JPEG_SHARE = 0.4
PART_PX = 480, 640
"""Largest part of a field that is degraded: a small field is the harder one."""

WEIGHTS = {"good": 1.0, "good_jpeg": 0.6, "good_noise": 0.6, "bad": 1.0, "bad_jpeg": 0.4}
EXTRA_WEIGHT = 0.4
"""Fields that were made smaller before we got them look sharper than any camera's."""

PENALTY = 0.1

Example = tuple[str, str, tuple[float, ...], tuple[float, ...]]
"""Source, kind, features of focus, features of motion."""


def examples(data: Path, half: str, fields: int, seed: int) -> Iterator[Example]:
    """Yield the examples of one half of the fields."""
    rng = np.random.default_rng(seed)
    whole = [
        (source, read_image(path))
        for source in MAIN + EXTRA
        for path in spread(fields_of(data, source, half), fields)
    ]
    for source, pixels in [*whole, *slide_parts(data, PART_PX, 7), *textured_parts(PART_PX, 7)]:
        for kind, made in _made(pixels, rng):
            flat = estimate_background(made).flatten(made)
            spectrum = field_spectrum(tissue_blocks(flat, TissueTest()))
            if spectrum is not None:
                echo = echo_strength(spectrum)
                contrast = noise_corrected(spectrum)
                yield source, kind, focus_features(contrast), motion_features(contrast, echo)


def _made(pixels: UInt8Array, rng: np.random.Generator) -> Iterator[tuple[str, UInt8Array]]:
    yield "good", pixels
    rows, columns = (min(side, most) for side, most in zip(pixels.shape, PART_PX, strict=False))
    y = int(rng.integers(0, pixels.shape[0] - rows + 1))
    x = int(rng.integers(0, pixels.shape[1] - columns + 1))
    part = np.ascontiguousarray(pixels[y : y + rows, x : x + columns])
    yield "good_jpeg", jpeg(part, int(rng.integers(75, 96)))
    for deviation in NOISES:
        yield "good_noise", noisy(part, deviation * rng.uniform(0.85, 1.15), rng)
    bad = [("disc", radius) for radius in RADII] + [("move", length) for length in LENGTHS]
    bad += [("double", shift) for shift in SHIFTS] + [("vibrate", px) for px in AMPLITUDES]
    for how, size in bad:
        deviation, angle = rng.uniform(1.0, 7.0), rng.uniform(0, 180)
        if how == "disc":
            made = defocused(part, size, deviation, rng)
        elif how == "double":
            made = doubled(part, size, angle, rng.uniform(0.4, 0.5), deviation, rng)
        elif how == "vibrate":
            made = vibrated(part, size, angle, deviation, rng)
        else:
            made = moved(part, size, angle, deviation, rng)
        compressed = how in ("disc", "move") and rng.random() < JPEG_SHARE
        if compressed:
            made = jpeg(made, int(rng.integers(88, 97)))
        yield f"{how}{size}{'_jpeg' if compressed else ''}", made


def logistic(
    numbers: np.ndarray, good: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return weights and offset of a logistic regression; both classes weigh the same."""
    balance = weights.copy()
    for side in (True, False):
        balance[good == side] /= balance[good == side].sum()
    balance *= len(good) / 2
    middle, spread_ = numbers.mean(axis=0), numbers.std(axis=0)
    x = np.c_[(numbers - middle) / spread_, np.ones(len(numbers))]
    ridge = PENALTY * np.eye(x.shape[1])
    ridge[-1, -1] = 0.0
    w = np.zeros(x.shape[1])
    for _ in range(60):
        p = 1.0 / (1.0 + np.exp(-(x @ w)))
        slope = x.T @ (balance * (p - good)) + ridge @ w
        curve = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge + 1e-9 * np.eye(len(w))
        w -= np.linalg.solve(curve, slope)
    scaled = w[:-1] / spread_
    return scaled, float(w[-1] - (scaled * middle).sum())


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    found = list(examples(given.data, given.half, given.fields, given.seed))
    kinds = np.array([kind for _, kind, _, _ in found])
    sources = np.array([source for source, _, _, _ in found])
    good = np.char.startswith(kinds, "good")
    disc = np.char.startswith(kinds, "disc")
    move = ~good & ~disc
    named = [
        kind if kind.startswith("good") else f"bad{'_jpeg' if kind.endswith('_jpeg') else ''}"
        for kind in kinds
    ]
    weights = np.array([WEIGHTS[kind] for kind in named])
    weights[np.isin(sources, EXTRA)] *= EXTRA_WEIGHT
    focus = np.array([features for _, _, features, _ in found])
    motion = np.array([features for _, _, _, features in found])
    for name, numbers, yes, no in (
        ("FOCUS", focus, good, disc),
        ("STILL", motion, good, move),
        ("MOVING", motion, move, disc),
    ):
        used = yes | no
        w, offset = logistic(numbers[used], yes[used], weights[used])
        print(f"{name}_WEIGHTS = ({', '.join(f'{value:.2f}' for value in w)})")
        print(f"{name}_OFFSET = {offset:.2f}")
        odds = numbers @ w + offset
        print(f"# {name}: wrong {np.mean(odds[yes] < 0):.3f} and {np.mean(odds[no] > 0):.3f}")


if __name__ == "__main__":
    main()
