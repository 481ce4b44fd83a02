"""Train the demo's model on painted tissue, and measure it on unseen slides.

Usage: `PYTHONPATH=.:export:export/demo python -m train --out DIR`, a few minutes on two cores.
Writes extractor.pt, head.pt, metrics.json and a folder of calibration tiles; `make_bundle.py`
turns them into `edge_mil/demo/bundle`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from demo_model import MEAN, STD, DemoExtractor, DemoHead
from edge_mil_export.audit.training import auroc
from painted_bags import FOCUS, TILE_PX, UNSURE, PaintedBag, painted_bags
from torch import Tensor, nn

TRAIN_SEED, TEST_SEED = 10_000, 60_000
"""First seeds of the slides of training and test; the demo's own is far from both.

Slides from 50 000 on were measured when SPREAD was chosen, so those from 60 000 on are the test.
"""

KINDS = 4
CALIBRATION_TILES = 192

SPREAD = 0.1
"""Weight of the attention's distance from an even one. Without it a single tile of a focus takes
all the attention, the score jumps from 0 to 1, and no field has an influence of its own.
Source: attention entropy maximisation (AEM, Zhang et al. 2024)."""


def main() -> None:
    """Paint slides, train the model, measure it and write its files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train-slides", type=int, default=96)
    parser.add_argument("--test-slides", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument(
        "--extractor", type=Path, help="an earlier extractor.pt: train the head only"
    )
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    start = time.monotonic()
    train = painted_bags(TRAIN_SEED, arguments.train_slides, arguments.workers)
    print(f"painted {len(train)} slides to learn from, {time.monotonic() - start:.0f} s")
    if arguments.extractor is None:
        extractor = train_extractor(train, arguments.epochs)
    else:
        extractor = DemoExtractor()
        extractor.load_state_dict(torch.load(arguments.extractor, weights_only=True))
        extractor.eval()
    print(f"extractor trained, {time.monotonic() - start:.0f} s")
    bags = [features(extractor, bag.tiles) for bag in train]
    head = train_head(bags, [bag.positive for bag in train])
    print(f"head trained, {time.monotonic() - start:.0f} s")
    test = painted_bags(TEST_SEED, arguments.test_slides, arguments.workers)
    metrics = measure(head, [features(extractor, bag.tiles) for bag in test], test)
    metrics["train_slides"] = len(train)
    print(json.dumps(metrics, indent=2))
    torch.save(extractor.state_dict(), arguments.out / "extractor.pt")
    torch.save(head.state_dict(), arguments.out / "head.pt")
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    write_calibration(train, arguments.out / "calibration")
    print(f"written to {arguments.out}, {time.monotonic() - start:.0f} s")


def normalised(tiles: npt.NDArray[np.uint8]) -> Tensor:
    """Return RGB uint8 (n, h, w, 3) as normalised float32 (n, 3, h, w)."""
    scaled = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255.0
    return (scaled - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def train_extractor(bags: list[PaintedBag], epochs: int) -> DemoExtractor:
    """Train the extractor to tell what a tile shows; the kinds are drawn equally often."""
    rng = np.random.default_rng(0)
    tiles = np.concatenate([bag.tiles for bag in bags])
    kinds = np.concatenate([bag.kinds for bag in bags])
    pools = [np.flatnonzero(kinds == kind) for kind in range(KINDS)]
    print("tiles of each kind:", [len(pool) for pool in pools])
    extractor, guess = DemoExtractor(), nn.Linear(64, KINDS)
    parameters = [*extractor.parameters(), *guess.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2)
    batch, steps = 64, 60
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        extractor.train()
        total, right = 0.0, 0
        for _ in range(steps):
            drawn = np.concatenate([rng.choice(pool, batch // KINDS) for pool in pools])
            inputs = _varied(normalised(tiles[drawn]), rng)
            target = torch.from_numpy(kinds[drawn])
            logits = guess(extractor(inputs))
            loss = nn.functional.cross_entropy(logits, target, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            right += int((logits.argmax(1) == target).sum())
        print(f"epoch {epoch + 1}: loss {total / steps:.3f}, right {right / steps / batch:.3f}")
    return extractor.eval()


def _varied(tiles: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip, turn, and change light and stain a little."""
    if rng.random() < 0.5:
        tiles = tiles.flip(3)
    tiles = torch.rot90(tiles, int(rng.integers(4)), (2, 3))
    gain = 1.0 + 0.12 * torch.randn(len(tiles), 3, 1, 1)
    return tiles * gain + 0.12 * torch.randn(len(tiles), 3, 1, 1)


@torch.no_grad()
def features(extractor: nn.Module, tiles: npt.NDArray[np.uint8]) -> Tensor:
    """Return the features (n, 64) of tiles, in batches of 256."""
    parts = [extractor(normalised(tiles[i : i + 256])) for i in range(0, len(tiles), 256)]
    return torch.cat(parts)


def train_head(bags: list[Tensor], labels: list[bool], epochs: int = 30) -> DemoHead:
    """Train the head on slide labels alone; parts of a bag are left out at random."""
    torch.manual_seed(0)
    rng, head = np.random.default_rng(1), DemoHead()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for index in rng.permutation(len(bags)):
            bag = bags[index]
            # Negative slides of every size: a score must not rise with the number of tiles.
            keep = bag if labels[index] else bag[rng.random(len(bag)) < rng.uniform(0.3, 1.0)]
            logits, attention = head(keep)
            target = torch.tensor([int(labels[index])])
            loss = nn.functional.cross_entropy(logits[None], target, label_smoothing=0.02)
            # Kullback-Leibler divergence from the even attention 1 / n.
            uneven = (attention * (attention.clamp_min(1e-12) * len(keep)).log()).sum()
            loss = loss + SPREAD * uneven
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.eval()


@torch.no_grad()
def measure(head: DemoHead, embedded: list[Tensor], bags: list[PaintedBag]) -> dict[str, float]:
    """Return the slide-level AUROC and accuracy, and where the attention of positives lies."""
    scores, labels, on_foci, tops = [], [], [], []
    for bag, found in zip(bags, embedded, strict=True):
        logits, attention = head(found)
        scores.append(float(torch.softmax(logits, 0)[1]))
        labels.append(bag.positive)
        if bag.positive:
            inside = torch.from_numpy(bag.focus_share > 0)
            on_foci.append(float(attention[inside].sum()))
            tops.append(float(inside[attention.topk(5).indices].float().mean()))
    return {
        "slides": len(bags),
        "positive_slides": int(sum(labels)),
        "auroc": auroc(np.array(scores), np.array(labels, dtype=np.int64)),
        "accuracy_at_half": float(np.mean((np.array(scores) > 0.5) == np.array(labels))),
        "lowest_positive": float(min(s for s, y in zip(scores, labels, strict=True) if y)),
        "highest_negative": float(max(s for s, y in zip(scores, labels, strict=True) if not y)),
        "attention_on_foci_mean": float(np.mean(on_foci)),
        "top5_tiles_on_foci_mean": float(np.mean(tops)),
    }


def write_calibration(bags: list[PaintedBag], out: Path) -> None:
    """Write tiles of every kind as PNG, for the INT8 ranges."""
    out.mkdir(exist_ok=True)
    rng = np.random.default_rng(2)
    tiles = np.concatenate([bag.tiles for bag in bags])
    kinds = np.concatenate([bag.kinds for bag in bags])
    for kind in (*range(FOCUS + 1), UNSURE):
        pool = np.flatnonzero(kinds == kind)
        chosen = rng.choice(pool, min(len(pool), CALIBRATION_TILES // (KINDS + 1)), replace=False)
        for number, index in enumerate(chosen):
            picture = cv2.cvtColor(tiles[index], cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(out / f"kind{kind}_{number:03d}_{TILE_PX}px.png"), picture)


if __name__ == "__main__":
    main()
