"""What INT8 and FP16 do to slide scores on bags that the exporter never saw, stain shifted too.

EfficientNet-Lite0 (ImageNet weights), a ResNet-18 and a ViT-Tiny distilled from it, and the demo's
extractor go through the exporter's ladder with a part of the bags; its graphs are then compared
with FP32 on the others, by heads that saw neither. The trt dialect is run in ONNX Runtime.

usage: python tests/benchmarks/evaluate_quantization.py DATA
           [--students DIR] [--only NAME,...] [--json]
       DATA is ../shared/data; DIR keeps the distilled weights, which are made where it lacks them
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from distil_extractors import STUDENTS, TEACHER, TEACHER_WEIGHTS, distil_missing
from edge_mil_export.agreement import compare
from edge_mil_export.audit.training import auroc
from edge_mil_export.fidelity.measuring import measure
from edge_mil_export.fidelity.stain_shift import SHIFTS, shift_stain
from edge_mil_export.onnx_export.extractor_graph import open_graph
from evaluation_subjects import FIELDS, Subject, demo, real_tissue

from edge_mil.types import Float32Array

MAX_DIFFERENCE = 0.02
"""What the exporter is asked to hold, as by default."""
GOAL, SHIFTED_GOAL = 0.02, 0.03
PRECISIONS = ("fp32", "fp16", "int8-cpu", "int8-trt")
SUBJECTS = ("lite0", "resnet18", "vit_tiny", "demo")
PAINTED_SLIDES = 20


@dataclass(frozen=True, slots=True)
class Moved:
    """How far scores moved from FP32's on the same tiles.

    Attributes:
        mean: Of the difference of a probability.
        largest: Its maximum.
        flips: Scores on the other side of 0.5.
    """

    mean: float
    largest: float
    flips: int


@dataclass(frozen=True, slots=True)
class Row:
    """One graph of one extractor.

    Attributes:
        extractor: Its name.
        graph: fp32, fp16, int8-cpu or int8-trt.
        recipe: The INT8 recipe that was taken; "" for the others.
        tried: How many recipes were tried.
        centred_median: Centred cosine of a tile's features.
        centred_min: Its minimum.
        plain: On the bags as they are.
        shifted: For each shift of the stain, against FP32 with the same shift.
        auroc: Mean over tasks and seeds.
        scores: How many scores a column has.
    """

    extractor: str
    graph: str
    recipe: str
    tried: int
    centred_median: float
    centred_min: float
    plain: Moved
    shifted: tuple[Moved, ...]
    auroc: float
    scores: int

    @property
    def shifted_mean(self) -> float:
        """Over all shifts."""
        return float(np.mean([moved.mean for moved in self.shifted]))

    @property
    def shifted_max(self) -> float:
        """Over all shifts."""
        return max(moved.largest for moved in self.shifted)

    def holds(self) -> bool:
        """Say whether both goals are held."""
        return self.plain.largest <= GOAL and self.shifted_max <= SHIFTED_GOAL


def main() -> None:
    """Make the subjects, export, ask, print."""
    parser = argparse.ArgumentParser(description="INT8 and FP16 against FP32 on unseen bags.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--students", type=Path, help="where distilled weights are kept")
    parser.add_argument("--only", default=",".join(SUBJECTS), metavar="NAME,...")
    parser.add_argument("--seeds", type=int, default=3, help="of the heads on real tissue")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # bags of 16: more threads only wait for each other
    names = arguments.only.split(",")
    if unknown := set(names) - set(SUBJECTS):
        parser.error(f"--only knows {', '.join(SUBJECTS)}, got {', '.join(sorted(unknown))}")
    start, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        students = arguments.students or Path(folder)
        for name in names:
            subject = _subject(name, arguments.data, students, arguments.seeds)
            _say(f"{subject.name}: ready", start)
            rows += evaluate(subject)
            _say(f"{subject.name}: measured", start)
    if arguments.json:
        print(json.dumps({"results": [{**asdict(row), "holds": row.holds()} for row in rows]}))
        return
    print(table(rows))


def evaluate(subject: Subject) -> list[Row]:
    """Export one extractor and compare its graphs with FP32 on the bags that are reported."""
    made = measure(
        subject.source,
        subject.graph,
        subject.scorer,
        subject.on,
        int8=True,
        fp16=True,
        max_difference=MAX_DIFFERENCE,
    )
    assert made.fp16 is not None
    graphs = {"fp32": subject.graph.data, "fp16": made.fp16.data} | {
        f"int8-{dialect}": search.data for dialect, search in made.int8.items()
    }
    networks = {precision: open_graph(data) for precision, data in graphs.items()}
    # One stain after the other, so that memory holds the features of one.
    plain: dict[str, dict[int, Float32Array]] = {}
    moved: dict[str, list[Moved]] = {precision: [] for precision in PRECISIONS}
    for stain in ((1.0, 1.0), *SHIFTS):
        found: dict[str, dict[int, Float32Array]] = {precision: {} for precision in PRECISIONS}
        for number in subject.reported:
            tiles = subject.bags[number].tiles
            seen = tiles if stain == (1.0, 1.0) else shift_stain(tiles, *stain)
            for precision, network in networks.items():
                found[precision][number] = network.features(seen)
        base = _scores(subject, found["fp32"])
        for precision in PRECISIONS:
            moved[precision].append(_moved(base, _scores(subject, found[precision])))
        plain = plain or found
    rows = []
    for precision in PRECISIONS:
        search = made.int8.get(precision.removeprefix("int8-"))
        near = compare(list(plain["fp32"].values()), list(plain[precision].values()), _NoHead())
        scores = _scores(subject, plain[precision])
        row = Row(
            subject.name,
            precision,
            search.chosen.recipe.name if search else "",
            len(search.candidates) if search else 0,
            near.centred_cosine_median,
            near.centred_cosine_min,
            moved[precision][0],
            tuple(moved[precision][1:]),
            float(np.mean(list(_areas(subject, scores)))),
            len(scores),
        )
        rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| extractor | graph | recipe (tried) | centred cosine median / min | shift mean / max | "
        "stain shifted: mean / max | flips | AUROC | goal |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        recipe = f"{row.recipe} ({row.tried})" if row.recipe else ""
        flips = row.plain.flips + sum(moved.flips for moved in row.shifted)
        lines.append(
            f"| {row.extractor} | {row.graph} | {recipe} | {row.centred_median:.4f} / "
            f"{row.centred_min:.4f} | {row.plain.mean:.4f} / {row.plain.largest:.4f} | "
            f"{row.shifted_mean:.4f} / {row.shifted_max:.4f} | "
            f"{flips} of {row.scores * (1 + len(row.shifted))} | {row.auroc:.3f} | "
            f"{'held' if row.holds() else 'missed'} |"
        )
    return "\n".join(lines)


class _NoHead:
    """Lets features be compared where scores are compared apart."""

    def score(self, features: Float32Array) -> np.ndarray:
        return np.zeros(1)

    def attention_logits(self, features: Float32Array) -> None:
        return None


def _scores(subject: Subject, features: dict[int, Float32Array]) -> dict[tuple[str, int], float]:
    """Return a score for each group of heads and each reported bag, by the head that is blind."""
    return {
        (head.group, number): head.score(features[number])
        for head in subject.heads
        for number in head.unseen
        if number in features
    }


def _moved(base: dict[tuple[str, int], float], own: dict[tuple[str, int], float]) -> Moved:
    first, second = (np.array([scores[key] for key in base]) for scores in (base, own))
    moved = np.abs(second - first)
    flips = int(((first >= 0.5) != (second >= 0.5)).sum())
    return Moved(float(moved.mean()), float(moved.max()), flips)


def _areas(subject: Subject, scores: dict[tuple[str, int], float]) -> Iterator[float]:
    """Yield the AUROC of each group of heads."""
    labels = {head.group: head.labels for head in subject.heads}
    for group, known in labels.items():
        own = {number: score for (name, number), score in scores.items() if name == group}
        yield auroc(np.array(list(own.values())), np.array([known[number] for number in own]))


def _subject(name: str, data: Path, students: Path, seeds: int) -> Subject:
    fields = data / FIELDS
    if name == "demo":
        return demo(PAINTED_SLIDES)
    if name == "lite0":
        weights = data / TEACHER_WEIGHTS
        return real_tissue("EfficientNet-Lite0, 224 px", TEACHER, weights, 224, fields, seeds)
    student = next(student for student in STUDENTS if student.name.startswith(name))
    distil_missing(data, students, (student,))
    title = {"resnet18": "ResNet-18, 128 px", "vit_tiny": "ViT-Tiny, 128 px"}[name]
    weights = students / f"{student.name}.pt"
    return real_tissue(title, f"timm:{student.name}", weights, 128, fields, seeds)


def _say(text: str, start: float) -> None:
    print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
