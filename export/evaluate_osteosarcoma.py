"""What INT8 does to slide scores of a trained head on real fields: shift, flips, AUROC beside FP32.

A gated ABMIL is trained on 39 H&E fields (bag = field) for two tasks, cross-validated by field;
every held-out score is computed from FP32 features and from those of both INT8 dialects. Fields
whose tiles calibrated the graphs are trained on, never reported. The graphs are those of
`edge-mil-export bundle` with a head trained on all fields, as a user would make them.

usage: python export/evaluate_osteosarcoma.py FIELDS WEIGHTS [--seeds 3] [--json]
       FIELDS holds non_tumor/, non_viable_tumor/ and viable/ (../shared/data/osteosarcoma_he),
       WEIGHTS are those of tf_efficientnet_lite0 (../shared/data/extractor/...safetensors)
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edge_mil_export.bundle_making import Made, Wanted, make_bundle
from edge_mil_export.calibration_images import FileTiles, TileMaker
from edge_mil_export.graphs import open_graph
from torch import nn

from edge_mil.bundle import Bundle

TILE_PX, MPP = 224, 1.0
"""10x scans; their files name no pixel size."""
NORMALISE = "0.485,0.456,0.406/0.229,0.224,0.225"
TASKS = {
    "tumour": ("non_viable_tumor", "viable"),
    "viable": ("viable",),
}
"""Task -> the folders that are positive."""
FOLDS, EPOCHS, RATE, DECAY = 5, 10, 1e-4, 1e-3
"""Gentle on purpose: at five times the rate the scores saturate at 0 and 1 with no gain in AUROC,
and the few between move by up to 0.05."""
PRECISIONS = ("fp32", "int8-cpu", "int8-trt")


class GatedAbmil(nn.Module):
    """Gated attention pooling, Ilse et al. 2018, with the key names of MIL-Lab."""

    def __init__(self, width: int, embedding: int = 64, hidden: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Linear(width, embedding), nn.ReLU())
        self.global_attn = nn.ModuleDict(
            {
                "attention_a": nn.Sequential(nn.Linear(embedding, hidden), nn.Tanh()),
                "attention_b": nn.Sequential(nn.Linear(embedding, hidden), nn.Sigmoid()),
                "attention_c": nn.Linear(hidden, 1),
            }
        )
        self.classifier = nn.Linear(embedding, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (2,) of a bag (n, d)."""
        h = self.patch_embed(features)
        attention = self.global_attn
        logits = attention["attention_c"](attention["attention_a"](h) * attention["attention_b"](h))
        pooled = torch.softmax(logits, dim=0).T @ h
        result: torch.Tensor = self.classifier(pooled)[0]
        return result


@dataclass(frozen=True, slots=True)
class Result:
    """One precision over all held-out scores of all tasks and seeds.

    Attributes:
        precision: fp32, int8-cpu or int8-trt.
        shift_mean: Mean difference of a probability from FP32's.
        shift_max: Its maximum.
        flips: Scores on the other side of 0.5.
        scores: How many scores.
        auroc: Mean over tasks and seeds.
        form: Rung of the ladder.
    """

    precision: str
    shift_mean: float
    shift_max: float
    flips: int
    scores: int
    auroc: float
    form: str


def main() -> None:
    """Train, export, score, print."""
    parser = argparse.ArgumentParser(description="INT8 against FP32 on real fields.")
    parser.add_argument("fields", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=RATE, help="of Adam, for the heads")
    parser.add_argument("--bundle", type=Path, help="keep the bundle here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # bags of 16: more threads only wait for each other
    files = TileMaker((TILE_PX, TILE_PX), MPP, "grid").folder(arguments.fields)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made = _make(arguments, files, work)
        results = evaluate(made, files, arguments.seeds, arguments.rate)
    if arguments.json:
        rows = [{name: getattr(r, name) for name in Result.__slots__} for r in results]
        print(json.dumps({"results": rows}))
        return
    held = len(files) - len(set(made.fidelity["calibration"]["files"]))
    print(
        f"{len(files)} fields, {held} of them reported; tasks {', '.join(TASKS)}; {FOLDS} folds by "
        f"field; {arguments.seeds} seeds; {results[0].scores} held-out scores a row"
    )
    print("| graph | form | shift mean | shift max | flips | AUROC |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in results:
        print(
            f"| {r.precision} | {r.form} | {r.shift_mean:.4f} | {r.shift_max:.4f} | {r.flips} "
            f"| {r.auroc:.3f} |"
        )


def evaluate(made: Made, files: list[FileTiles], seeds: int, rate: float) -> list[Result]:
    """Return one result for each precision.

    Args:
        made: The bundle, and which fields calibrated it.
        files: All fields.
        seeds: Of the heads' first weights and of the folds.
        rate: Of Adam.
    """
    calibrated = set(made.fidelity["calibration"]["files"])
    reported = [k for k, file in enumerate(files) if file.name not in calibrated]
    features = {precision: _features(made.bundle, precision, files) for precision in PRECISIONS}
    scores: dict[str, list[np.ndarray]] = {precision: [] for precision in PRECISIONS}
    areas: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for folders in TASKS.values():
        labels = np.array([int(file.name.split("/")[0] in folders) for file in files])
        for seed in range(seeds):
            found = _cross_validate(features, labels, seed, rate)
            for precision in PRECISIONS:
                kept = found[precision][reported]
                scores[precision].append(kept)
                areas[precision].append(auroc(kept, labels[reported]))
    base = np.concatenate(scores["fp32"])
    results = []
    for precision in PRECISIONS:
        own = np.concatenate(scores[precision])
        moved = np.abs(own - base)
        form = made.fidelity["comparisons"][precision].get("form", {}).get("name", "")
        flips = int(((own >= 0.5) != (base >= 0.5)).sum())
        area = float(np.mean(areas[precision]))
        result = Result(
            precision, float(moved.mean()), float(moved.max()), flips, len(own), area, form
        )
        results.append(result)
    return results


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of pairs (positive, negative) in the right order; ties count half."""
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def train(bags: list[torch.Tensor], labels: np.ndarray, seed: int, rate: float) -> GatedAbmil:
    """Train a head on some bags, one bag a step."""
    torch.manual_seed(seed)
    head = GatedAbmil(bags[0].shape[1])
    optimiser = torch.optim.Adam(head.parameters(), lr=rate, weight_decay=DECAY)
    rng = np.random.default_rng(seed)
    targets = torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for k in rng.permutation(len(bags)):
            loss = nn.functional.cross_entropy(head(bags[k])[None], targets[k][None])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return head.eval()


def _cross_validate(
    features: dict[str, list[torch.Tensor]], labels: np.ndarray, seed: int, rate: float
) -> dict[str, np.ndarray]:
    """Return each field's probability by the head that did not see it, for each precision."""
    folds = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    found = {precision: np.zeros(len(labels)) for precision in features}
    for fold in range(FOLDS):
        seen = np.flatnonzero(folds != fold)
        head = train([features["fp32"][k] for k in seen], labels[seen], seed, rate)
        with torch.no_grad():
            for precision, bags in features.items():
                for k in np.flatnonzero(folds == fold):
                    found[precision][k] = torch.softmax(head(bags[k]).double(), 0)[1]
    return found


def _features(bundle: Bundle, precision: str, files: list[FileTiles]) -> list[torch.Tensor]:
    spec = bundle.manifest.extractor
    assert spec is not None
    graph = open_graph(bundle.read(spec.graphs[precision]))
    return [torch.from_numpy(graph.features(file.tiles)) for file in files]


def _make(arguments: argparse.Namespace, files: list[FileTiles], work: Path) -> Made:
    """Train a head on all fields and make the bundle, as a user would."""
    from edge_mil_export.extractors import open_extractor

    source = open_extractor(
        "timm:tf_efficientnet_lite0",
        weights=arguments.weights,
        tile_px=(TILE_PX, TILE_PX),
        normalise=NORMALISE,
    )
    bags = [torch.from_numpy(source.features(file.tiles)) for file in files]
    labels = np.array([int(file.name.startswith(TASKS["viable"])) for file in files])
    checkpoint = work / "abmil.pt"
    torch.save(train(bags, labels, 0, arguments.rate).state_dict(), checkpoint)
    wanted: dict[str, Any] = {
        "extractor": "timm:tf_efficientnet_lite0",
        "extractor_weights": arguments.weights,
        "aggregator": checkpoint,
        "arch": None,
        "arch_options": (),
        "classes": "other,viable",
        "instances": "grid",
        "tile_px": (TILE_PX, TILE_PX),
        "mpp": MPP,
        "int8": True,
        "calibration": arguments.fields,
        "fidelity_slides": (),
        "max_difference": 0.02,
        "normalise": NORMALISE,
        "name": "osteosarcoma",
        "licences": ("aggregator=Apache-2.0",),
    }
    return make_bundle(Wanted(**wanted), arguments.bundle or work / "bundle")


if __name__ == "__main__":
    main()
