"""Registers random pairs of fields of a real slide, sharing from nothing to nearly all.

usage: python tests/benchmarks/random_pairs.py
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import repository_path  # noqa: F401 - finds the helpers of the tests
from hand_moved import DATA, read_slide, tissue_of
from textured_slide import with_noise

from edge_mil.imaging.registration.pairwise import register_pair
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import UInt8Array

RIGHT_PX = 2.0
LEAST_TISSUE = 0.1
BANDS = (0.0, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Pair:
    """One pair: the share of a field that both show, and what registration made of it."""

    shared: float
    error_px: float
    response: float
    believed: bool

    @property
    def wrong(self) -> bool:
        """Say whether a wrong place was believed."""
        return self.believed and self.error_px > RIGHT_PX


def random_pairs(
    slide: UInt8Array, field_px: tuple[int, int], deviation: float, count: int, seed: int
) -> list[Pair]:
    """Register `count` pairs of fields with tissue; a third of them lie anywhere."""
    chance, tissue = np.random.default_rng(seed), tissue_of(slide)
    width, height = field_px
    right, low = slide.shape[1] - width, slide.shape[0] - height

    def good(x: int, y: int) -> bool:
        inside = 0 <= x <= right and 0 <= y <= low
        if not inside:
            return False
        shown = tissue[y // 16 : (y + height) // 16, x // 16 : (x + width) // 16]
        return bool(shown.mean() >= LEAST_TISSUE)

    def picture(x: int, y: int) -> RegistrationPyramid:
        pixels = np.ascontiguousarray(slide[y : y + height, x : x + width])
        return RegistrationPyramid.of(with_noise(pixels, deviation, int(chance.integers(1 << 30))))

    pairs: list[Pair] = []
    while len(pairs) < count:
        x, y = int(chance.integers(right + 1)), int(chance.integers(low + 1))
        if chance.random() < 1 / 3:
            u, v = int(chance.integers(right + 1)), int(chance.integers(low + 1))
        else:
            u = x + int(chance.uniform(-0.95, 0.95) * width)
            v = y + int(chance.uniform(-0.95, 0.95) * height)
        if not (good(x, y) and good(u, v)):
            continue
        shared = max(0.0, 1 - abs(u - x) / width) * max(0.0, 1 - abs(v - y) / height)
        fit = register_pair(picture(x, y), picture(u, v))
        if fit is None:
            pairs.append(Pair(shared, float("inf"), 0.0, False))
            continue
        error = max(abs(fit.dx - (u - x)), abs(fit.dy - (v - y)))
        pairs.append(Pair(shared, error, fit.response, fit.reliable))
    return pairs


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description="Register random pairs of fields of a slide.").parse_args()
    out, slide = sys.stdout, read_slide(Path(DATA) / "cmu1_small_region.svs")
    out.write("field      sd  shared         pairs  found  wrong  largest error px\n")
    for field, count in (((512, 384), 600), ((1024, 768), 100)):
        for deviation in (0.0, 3.0):
            pairs = random_pairs(slide, field, deviation, count, seed=1)
            for low, high in zip((-1.0, *BANDS), BANDS, strict=False):
                band = [pair for pair in pairs if low < pair.shared <= high]
                right = [p.error_px for p in band if p.believed and not p.wrong]
                out.write(
                    f"{field[0]:4d}x{field[1]:<4d} {deviation:3.0f}  "
                    f"{max(low, 0):4.2f} to {high:4.2f}  {len(band):6d} "
                    f"{len(right):6d} {sum(p.wrong for p in band):6d}  "
                    f"{max(right, default=0):8.2f}\n"
                )
                out.flush()


if __name__ == "__main__":
    main()
