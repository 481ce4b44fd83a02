"""`edge-mil bench aggregators`: a new field next to the whole bag again, for every head.

Both are taken in turn in one run and shown as a ratio, so that another program on the machine does
not decide. The whole bag is what a live score would cost without a state: `attend.onnx` in ONNX
Runtime over every instance, the pooling, the classifier.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_mil.aggregators.catalogue import FIELD
from edge_mil.bundle import Licences, Manifest, open_bundle, write_bundle
from edge_mil.errors import UsageError
from edge_mil.pipeline import Model
from edge_mil.pipeline.places import grid_places
from edge_mil.types import Float32Array
from edge_mil_export.aggregator import export_aggregator
from edge_mil_export.architectures.registry import Variant, variants

HELD = (100, 1_000, 10_000, 50_000)
WIDTH = 512
"""Width of a feature."""
CHUNK = 8192
"""Instances of one run of a graph: bounds memory."""
FOLDS, WHOLES = 9, 3
"""Times that a field, and a whole bag, are run; the median counts."""
LONG_S = 5.0
"""A run that takes longer is not repeated."""
OUTPUTS = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """What a head costs.

    Attributes:
        name: As bundles name it.
        incremental: mergeable, banked or whole-bag.
        field_ms: Held instances -> milliseconds to fold one new field and score.
        whole_ms: Held instances -> milliseconds to run the whole bag again.
        bytes_per_instance: Growth of the state, serialised, per instance held.
    """

    name: str
    incremental: str
    field_ms: Mapping[str, float]
    whole_ms: Mapping[str, float]
    bytes_per_instance: float


def add_parser(subparsers: Any) -> None:
    """Add `aggregators`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "aggregators",
        help="for each head, a new field next to the whole bag again",
        description="For each head, with fresh weights: milliseconds to fold one new field of "
        f"{FIELD} instances and score, next to running the whole bag again. One thread, in turn.",
    )
    parser.add_argument(
        "--heads", type=_words, metavar="A,B,...", help="only these (default: every head)"
    )
    parser.add_argument(
        "--held",
        type=_numbers,
        default=HELD,
        metavar="N,N,...",
        help="instances held (default: 100,1000,10000,50000)",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write JSON into a file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        UsageError: A head is unknown, or a size is below 1.
    """
    if min(arguments.held, default=0) < 1:
        raise UsageError("--held must name sizes of 1 or more.")
    known = {variant.name: variant for variant in variants()}
    chosen = arguments.heads or list(known)
    for name in chosen:
        if name not in known:
            raise UsageError(f"There is no head {name!r}; there are {', '.join(known)}.")
    costs: list[Cost] = []
    if not arguments.json:
        print("| head | class | held | field ms | whole bag ms | ratio |")
        print("| --- | --- | --- | --- | --- | --- |")
    for name in chosen:
        cost = measure(known[name], arguments.held)
        costs.append(cost)
        if arguments.write is not None:
            arguments.write.write_text(_document(costs, indent=1) + "\n", encoding="utf-8")
        if not arguments.json:
            print("\n".join(_lines(cost)), flush=True)
    if arguments.json:
        print(_document(costs))
    return 0


def measure(variant: Variant, held: tuple[int, ...]) -> Cost:
    """Export a head with fresh weights and measure it.

    Raises:
        EdgeMilError: It cannot be made or exported.
    """
    with tempfile.TemporaryDirectory(prefix="edge-mil-bench-") as folder:
        model = _model(variant, Path(folder))
        field, whole, grown = {}, {}, 0.0
        for count in sorted(held):
            field[str(count)], whole[str(count)], grown = _measure(model, count)
        model.close()
    return Cost(variant.name, model.aggregator.incremental, field, whole, grown)


def _model(variant: Variant, folder: Path) -> Model:
    torch.manual_seed(0)
    architecture = variant.architecture
    checkpoint = folder / "fresh.pt"
    torch.save(architecture.build.fresh(WIDTH, OUTPUTS), checkpoint)
    exported = export_aggregator(checkpoint, arch=architecture.name, options=variant.options)
    manifest = Manifest(
        name=variant.name,
        version="1",
        task=exported.task,
        input=None,
        extractor=None,
        aggregator=exported.spec,
        licences=Licences(extractor="", aggregator="fresh weights"),
        redistributable=True,
        created_by="edge-mil bench aggregators",
    )
    files = {**exported.graphs, "model_card.md": b"Fresh weights.\n"}
    write_bundle(manifest, files, folder / "bundle")
    return Model.load(open_bundle(folder / "bundle"), threads=1)


def _measure(model: Model, count: int) -> tuple[float, float, float]:
    """Return milliseconds of a field and of the whole bag, and bytes of an instance."""
    rng = np.random.default_rng(count)
    features = rng.standard_normal((count + FIELD, WIDTH)).astype(np.float32)
    state = _fold(model, features[:count])
    whole, folds = [], []
    for _ in range(WHOLES):
        start = time.perf_counter()
        model.aggregator.scores([_fold(model, features)])
        whole.append(time.perf_counter() - start)
        rounds = 1 if whole[-1] > LONG_S and model.aggregator.incremental == "whole-bag" else FOLDS
        for _ in range(rounds // WHOLES or 1):
            start = time.perf_counter()
            model.aggregator.scores([_fold(model, features[count:], state, count)])
            folds.append(time.perf_counter() - start)
        if whole[-1] > LONG_S:
            break
    empty = len(model.aggregator.to_bytes(model.aggregator.initial_state()))
    grown = (len(model.aggregator.to_bytes(state)) - empty) / count
    return 1e3 * statistics.median(folds), 1e3 * statistics.median(whole), grown


def _fold(model: Model, features: Float32Array, state: Any = None, first: int = 0) -> Any:
    """Return the state after also seeing features, the first of which is instance `first`."""
    state = model.aggregator.initial_state() if state is None else state
    for at in range(0, len(features), CHUNK):
        part = features[at : at + CHUNK]
        places = None
        if model.aggregator.needs_places:
            numbers = range(first + at, first + at + len(part))
            places = grid_places([(n % 250, n // 250) for n in numbers])
        state = model.aggregator.update(state, model.attend(part, places))
    return state


def _lines(cost: Cost) -> Iterator[str]:
    for held, field in cost.field_ms.items():
        whole = cost.whole_ms[held]
        yield (
            f"| {cost.name} | {cost.incremental} | {held} | {field:.3f} | {whole:.2f} "
            f"| {whole / field:.1f} |"
        )


def _document(costs: list[Cost], indent: int | None = None) -> str:
    source = (
        f"edge-mil bench aggregators: fresh heads, features of width {WIDTH}, fields of {FIELD}, "
        "one thread"
    )
    return json.dumps({"source": source, "heads": [asdict(c) for c in costs]}, indent=indent)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))
