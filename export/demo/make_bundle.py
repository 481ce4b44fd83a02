"""Export the demo's trained model as the bundle that the demo ships.

Usage: `PYTHONPATH=.:export:export/demo python -m make_bundle DIR`, with the folder DIR that
`python -m train --out DIR` wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import edge_mil_export.cli
from demo_model import CLASSES, MEAN, STD
from msgspec import structs
from painted_bags import TILE_PX

from edge_mil.bundle import open_bundle, write_bundle
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import BUNDLE
from edge_mil.demo.tiled_tiff import write_tiled_tiff

NAME = "demo-painted-tissue"
LICENCE = "Apache-2.0"
FIDELITY_SEED, FIDELITY_SLIDES = 70_000, 8
INTENDED_USE = (
    "Painted tissue only: it shows what edge_mil does. It has never seen a real slide, and its "
    "score of one means nothing. Research use only. Not for diagnosis."
)


def main() -> int:
    """Export the model, then name the bundle and write its model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path, help="the folder that train.py wrote")
    parser.add_argument("--out", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    trained, out = arguments.trained, arguments.out
    slides = fidelity_slides(trained / "fidelity")
    normalise = "/".join(",".join(f"{number:g}" for number in part) for part in (MEAN, STD))
    code = edge_mil_export.cli.main(
        [
            *("bundle", "--extractor", "python:demo_model:extractor"),
            *("--extractor-weights", str(trained / "extractor.pt")),
            *("--aggregator", str(trained / "head.pt"), "--classes", ",".join(CLASSES)),
            *("--tile-px", str(TILE_PX), "--mpp", f"{MPP:g}", "--normalise", normalise),
            *("--precision", "fp32,int8", "--calibration", str(trained / "calibration")),
            *(word for slide in slides for word in ("--fidelity-slide", str(slide))),
            *("--name", NAME, "--licence", LICENCE, "--out", str(out), "--force"),
        ]
    )
    if code:
        return code
    finish(out, json.loads((trained / "metrics.json").read_text()))
    return 0


def fidelity_slides(folder: Path) -> list[Path]:
    """Paint slides with unseen seeds, every second one positive, to compare INT8 with FP32 on."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(FIDELITY_SLIDES):
        paths.append(folder / f"painted_{FIDELITY_SEED + number}.tiff")
        painted = paint_slide(FIDELITY_SEED + number, positive=number % 2 == 1)
        write_tiled_tiff(paths[-1], painted.pixels, MPP)
    return paths


def finish(out: Path, metrics: dict[str, float]) -> None:
    """Give the exported bundle its name, its intended use and its model card."""
    bundle = open_bundle(out)
    # Fidelity tiles are for devices with other engines; the demo's bundle has no reference.
    files = {n: bundle.read(n) for n in bundle.manifest.files if n != "reference.npz"}
    files["model_card.md"] = card(metrics).encode()
    manifest = structs.replace(
        bundle.manifest, name=NAME, version="1", intended_use=INTENDED_USE, redistributable=True
    )
    written = write_bundle(manifest, files, out)
    size = sum(len(data) for data in files.values())
    print(f"{out}: {written.digest}, {size / 1e6:.2f} MB")


def card(metrics: dict[str, float]) -> str:
    """Return the model card, with the figures that were measured."""
    m = metrics
    return f"""# {NAME}

{INTENDED_USE}

It tells slides with small foci of large, crowded, irregular nuclei (positive) from slides without
(negative). Both hold glands, stroma, fat and clusters of lymphocytes, which are small and dark and
must not be taken for foci.

## Training

The extractor is a convolutional network of five layers (features of width 64, tiles of 128 px at
0.5 um/px), trained from nothing to tell what a tile shows on {m["train_slides"]:.0f} painted
slides. The head is gated attention pooling, trained on the labels of the same slides alone. The
painter is edge_mil/demo/painted_slide.py, the training export/demo/train.py; both are seeded.

## Measured

On {m["slides"]:.0f} painted slides with unseen seeds, looked at once, after every choice was made
({m["positive_slides"]:.0f} positive, in FP32 torch): slide-level AUROC {m["auroc"]:.4f}, accuracy
at 0.5 {m["accuracy_at_half"]:.3f}; the lowest positive scores {m["lowest_positive"]:.3f}, the
highest negative {m["highest_negative"]:.3f}.

Of the attention on positive slides {m["attention_on_foci_mean"]:.0%} lies on tiles that touch a
focus, and {m["top5_tiles_on_foci_mean"]:.0%} of the five tiles with the most attention do.

`pytest tests/demo -m slow` measures the AUROC again, through the exported graphs.

## Limits

Painted slides are all alike in ways that real ones are not: one painter, no blur, no
folds, no pen marks. A high AUROC here says that the machinery works, not that the model would.

## Licence

{LICENCE}, extractor and head. No patient data was used.
"""


if __name__ == "__main__":
    sys.exit(main())
