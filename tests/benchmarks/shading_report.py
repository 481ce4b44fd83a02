"""What a flat field is worth on frames that it was not estimated from.

`python tests/benchmarks/shading_report.py FOLDER` prints it: coefficient of variation of the
background of each frame, before and after correction by the flat field of all the others, at full
resolution and in the 8 bits that a session sees.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mil.calibration.flat_field import (
    background_mask,
    background_variation,
    estimate_flat_field,
    shrink,
)
from edge_mil.cameras.image_folder import SUFFIXES, read_image
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Row:
    """One frame.

    Attributes:
        before: Variation of its background as it came.
        after: The same after correction.
        background: Share of the frame that was measured.
        dark_edge_kept: Share of the darkest fifth of the frame that was measured.
    """

    before: float
    after: float
    background: float
    dark_edge_kept: float


def leave_one_out(frames: Sequence[UInt8Array], every: int = 1) -> list[Row]:
    """Correct each frame, or every so-manieth, by the flat field of all the others."""
    small, rows = [shrink(frame) for frame in frames], []
    for number in range(0, len(frames), every):
        frame = frames[number]
        others = [other for k, other in enumerate(small) if k != number]
        shading = ShadingCorrection(estimate_flat_field(others).flat, frame.shape[:2])
        mask = background_mask(frame.astype(np.float32))
        dark = shading.divisor[..., 1] <= np.quantile(shading.divisor[..., 1], 0.2)
        rows.append(
            Row(
                background_variation(frame.astype(np.float32), mask),
                background_variation(shading.apply(frame).astype(np.float32), mask),
                float((mask > 0).mean()),
                float((mask[dark] > 0).mean()),
            )
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    rows = leave_one_out([read_image(path) for path in paths])
    print(f"{'frame':24}{'before':>9}{'after':>9}{'left':>8}{'background':>12}{'dark edge':>11}")
    for path, row in zip(paths, rows, strict=True):
        print(
            f"{path.name:24}{row.before:9.4f}{row.after:9.4f}{row.after / row.before:8.1%}"
            f"{row.background:12.1%}{row.dark_edge_kept:11.1%}"
        )
    before, after = (float(np.mean([getattr(r, k) for r in rows])) for k in ("before", "after"))
    print(f"{'mean':24}{before:9.4f}{after:9.4f}{after / before:8.1%}")


if __name__ == "__main__":
    main()
