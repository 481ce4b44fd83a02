"""Registers all 36 pairs of the nine real stage tiles, and prints each beside the truth.

usage: python tests/benchmarks/stage_tile_pairs.py
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_mil.imaging.registration.pairwise import Registration, register_pair
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

SIDE_PX = 512


@dataclass(frozen=True)
class Pair:
    """Two tiles, the stored offset between them and what registration says."""

    names: tuple[str, str]
    truth: tuple[float, float]
    found: Registration | None

    @property
    def shares(self) -> float:
        """Return the share of a tile that both show."""
        x, y = (max(0.0, 1 - abs(way) / SIDE_PX) for way in self.truth)
        return x * y

    @property
    def error_px(self) -> float:
        """Return the larger of both errors of a registration that is believed; 0 for a refusal."""
        if self.found is None or not self.found.reliable:
            return 0.0
        return max(abs(self.found.dx - self.truth[0]), abs(self.found.dy - self.truth[1]))

    @property
    def believed(self) -> bool:
        """Say whether the registration is believed."""
        return self.found is not None and self.found.reliable


def all_pairs(folder: Path) -> list[Pair]:
    """Register every pair of tiles, without any guess."""
    tiles = []
    with (folder / "positions.csv").open() as lines:
        for row in csv.DictReader(lines):
            grey = cv2.imread(str(folder / row["file"]), cv2.IMREAD_GRAYSCALE)
            place = float(row["registered_x_px"]), float(row["registered_y_px"])
            tiles.append((row["file"], place, RegistrationPyramid.of(np.asarray(grey, np.uint8))))
    return [
        Pair((a, b), (there[0] - here[0], there[1] - here[1]), register_pair(first, second))
        for (a, here, first), (b, there, second) in itertools.combinations(tiles, 2)
    ]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description="Register all pairs of nine real stage tiles.").parse_args()
    folder = Path(__file__).resolve().parents[3] / "shared/data/stage_tiles"
    out = sys.stdout
    out.write(
        "pair                    truth px        shared  found px          response  error px\n"
    )
    for pair in all_pairs(folder):
        one, truth = pair.found, f"({pair.truth[0]:.0f}, {pair.truth[1]:.0f})"
        found = f"({one.dx:.1f}, {one.dy:.1f})" if one is not None else ""
        verdict = f"{pair.error_px:8.2f}" if pair.believed else "refused"
        out.write(
            f"{' '.join(pair.names):22s}  {truth:14s}  {pair.shares:5.1%}  {found:16s}  "
            f"{one.response if one else 0:8.2f}  {verdict}\n"
        )


if __name__ == "__main__":
    main()
