"""Say how often the sharpest plane of a synthetic focus stack is found, or a neighbour of it.

    python tests/benchmarks/gates/stacks.py ../shared/data [--fields 6]

Each real field becomes nine planes, out of focus by a disc of |z - z0| x 1.5 px, with noise.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from degradations import defocused, noisy
from sources import EXTRA, MAIN, fields_of, spread

from edge_mil.cameras.image_folder import read_image
from edge_mil.imaging import GridGeometry
from edge_mil.imaging.quality.focus import box_sharpness
from edge_mil.imaging.quality.single_image import ImageQuality
from edge_mil.imaging.quality.spectrum import BLOCK_PX
from edge_mil.types import UInt8Array

PLANES, STEP_PX = 9, 1.5
PART_PX = 640


def stack_of(pixels: UInt8Array, true: int, rng: np.random.Generator) -> list[UInt8Array]:
    """Return the planes of a field that is in focus at plane `true`."""
    part = np.ascontiguousarray(pixels[:PART_PX, :PART_PX])
    deviation = rng.uniform(1.0, 4.0)
    return [
        defocused(part, abs(z - true) * STEP_PX, deviation, rng)
        if z != true
        else noisy(part, deviation, rng)
        for z in range(PLANES)
    ]


def sharpest(planes: list[UInt8Array]) -> int:
    """Return the plane with the largest sum of `box_sharpness` over all blocks."""
    height, width = planes[0].shape[:2]
    sums = np.zeros(len(planes))
    for y in range(0, max(1, height - BLOCK_PX + 1), BLOCK_PX):
        for x in range(0, max(1, width - BLOCK_PX + 1), BLOCK_PX):
            parts = [plane[y : y + BLOCK_PX, x : x + BLOCK_PX] for plane in planes]
            grey = [np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.uint8) for part in parts]
            sums += [box_sharpness(part) for part in grey]
    return int(np.argmax(sums))


def main() -> None:
    """Print how far off the chosen planes are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fields", type=int, default=6)
    given = parser.parse_args()
    rng = np.random.default_rng(3)
    quality = ImageQuality(GridGeometry(0.5, 224, 224, 0.5))
    off: dict[str, Counter[int]] = {"sharpest": Counter(), "judge": Counter()}
    for source in MAIN + EXTRA:
        for path in spread(fields_of(given.data, source), given.fields):
            true = int(rng.integers(0, PLANES))
            planes = stack_of(read_image(path), true, rng)
            off["sharpest"][abs(sharpest(planes) - true)] += 1
            numbers = [quality.evaluate(plane).sharpness for plane in planes]
            off["judge"][abs(int(np.argmax(numbers)) - true)] += 1
    real = [read_image(path) for path in fields_of(given.data, "focus_stack_a")]
    for name, counts in off.items():
        near = sum(count for distance, count in counts.items() if distance <= 1)
        print(f"{name}: planes off {dict(counts)}, within one {near / counts.total():.3f}")
    numbers = [quality.evaluate(plane).sharpness for plane in real]
    print(f"focus_stack_a: sharpest z{sharpest(real):02d}, by judge z{int(np.argmax(numbers)):02d}")


if __name__ == "__main__":
    main()
