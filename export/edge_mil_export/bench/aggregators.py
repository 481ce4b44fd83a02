"""`edge-mil bench aggregators`: the cost of a new field against that of the whole bag, by head.

The whole bag is the official forward as one ONNX graph in ONNX Runtime: from features to logits,
every instance. Where one graph is the wrong tool (`whole_graph.NO_GRAPH`) it is the head in torch.
Both run in turn in one process with one thread, and CPU time counts, so that another program on the
machine does not decide.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge_mil.aggregators.catalogue import FIELD
from edge_mil.bundle import Licences, Manifest, write_bundle
from edge_mil.errors import UsageError
from edge_mil_export.architectures import build_head
from edge_mil_export.architectures.registry import Variant, variants
from edge_mil_export.bench.worker import BUNDLE, CHECKPOINT, GRAPH, ONNX, PLAN, TORCH
from edge_mil_export.onnx_export.exported_aggregator import export_aggregator
from edge_mil_export.onnx_export.whole_graph import whole_graph

HELD = (100, 1_000, 10_000, 50_000)
WIDTH, OUTPUTS = 512, 2
"""Width of a feature, and logits."""
QUADRATIC = {"wikg": 20_000}
"""Head whose graph holds an N x N matrix -> largest bag for it; NumPy takes more, in tiles."""
TIMEOUT_S = 240
"""Time limit of one head; the sizes measured until then count."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Form:
    """A head with options, or with more classes, that change how it is folded."""

    name: str
    options: Mapping[str, str]
    outputs: int = OUTPUTS


FORMS = {
    "dtfd maxs": Form("dtfd", {"distill": "maxs"}),
    "dtfd maxmins": Form("dtfd", {"distill": "maxmins"}),
    "dtfd maxmins 3 classes": Form("dtfd", {"distill": "maxmins"}, 3),
    "hopfield 3 update steps": Form("hopfield", {"update_steps_max": "3"}),
}
"""Further rows of the table, beside each head as it is."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of a head; a size that was not measured is missing, or None.

    Attributes:
        name: As bundles name it, or a row of FORMS.
        incremental: mergeable, banked or whole-bag.
        field_ms: Held instances -> CPU milliseconds to fold one new field and score, the least
            of several fields, each on top of the last.
        whole_ms: Held instances -> CPU milliseconds of the whole bag, the least of up to three
            runs.
        whole_by: Held instances -> what ran the whole bag.
        changed_ms: Held instances -> the same of a field that brings critical instances, the
            largest of three; DSMIL forms only.
        bytes_per_instance: Growth of the state, serialised, per instance held.
        field_peak_mb: Largest memory of a process that folded the largest bag, 10^6 bytes.
        whole_peak_mb: Largest memory of one that ran it as a whole.
        note: Why the whole bag is no ONNX graph; "" where it is.
    """

    name: str
    incremental: str
    field_ms: dict[str, float] = field(default_factory=dict)
    whole_ms: dict[str, float] = field(default_factory=dict)
    whole_by: dict[str, str] = field(default_factory=dict)
    changed_ms: dict[str, float] = field(default_factory=dict)
    bytes_per_instance: float = 0.0
    field_peak_mb: float | None = None
    whole_peak_mb: float | None = None
    note: str = ""


def add_parser(subparsers: Any) -> None:
    """Add `aggregators`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "aggregators",
        help="for each head, a new field next to the whole bag again",
        description="For each head, with fresh weights: CPU milliseconds to fold one new field of "
        f"{FIELD} instances and score, next to the official formula over the whole bag in ONNX "
        "Runtime, and the memory of both. One thread, in turn. Some ten minutes for all.",
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
    known = {v.name: v for v in variants()}
    rows = {name: Form(name, {}) for name in known} | FORMS
    chosen = arguments.heads or sorted(rows)
    for name in chosen:
        if name not in rows:
            raise UsageError(f"There is no head {name!r}; there are {', '.join(sorted(rows))}.")
    costs: list[Cost] = []
    if not arguments.json:
        print("| head | class | held | field ms | whole bag ms | by | ratio | peak MB |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in chosen:
        form = rows[name]
        cost = measure(name, known[form.name], form, arguments.held)
        costs.append(cost)
        if arguments.write is not None:
            arguments.write.write_text(_document(costs, indent=1) + "\n", encoding="utf-8")
        if not arguments.json:
            print("\n".join(_lines(cost)), flush=True)
    if arguments.json:
        print(_document(costs))
    return 0


def measure(label: str, variant: Variant, form: Form, held: tuple[int, ...]) -> Cost:
    """Export a head with fresh weights, and measure it in a process of its own.

    Raises:
        EdgeMilError: It cannot be made or exported.
    """
    with tempfile.TemporaryDirectory(prefix="edge-mil-bench-") as name:
        folder = Path(name)
        incremental, note = _prepare(variant, form, held, folder)
        cost = Cost(label, incremental, note=note)
        found: dict[str, Any] = {}
        for line in _measurements(folder):
            found = json.loads(line)
            size = str(found["held"])
            cost.field_ms[size], cost.whole_ms[size] = found["field_ms"], found["whole_ms"]
            cost.whole_by[size] = found["by"]
            if found["changed_ms"] is not None:
                cost.changed_ms[size] = found["changed_ms"]
    last = ("bytes_per_instance", "field_peak_mb", "whole_peak_mb")
    return Cost(**{**asdict(cost), **{key: found[key] for key in last if key in found}})


def _measurements(folder: Path) -> list[str]:
    """Return the lines that the worker printed within its time."""
    command = [sys.executable, "-m", "edge_mil_export.bench.worker", str(folder)]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    out = folder / "measured.jsonl"
    with out.open("wb") as lines:
        try:
            subprocess.run(command, env=environment, stdout=lines, check=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{folder.name}: stopped after {TIMEOUT_S} s.", file=sys.stderr)
    return out.read_text(encoding="utf-8").splitlines()


def _prepare(variant: Variant, form: Form, held: tuple[int, ...], folder: Path) -> tuple[str, str]:
    """Write the bundle, the whole graph and the plan; return the class, and why no graph."""
    torch.manual_seed(0)
    architecture, options = variant.architecture, {**variant.options, **form.options}
    state = architecture.build.fresh(WIDTH, form.outputs)
    torch.save(state, folder / CHECKPOINT)
    exported = export_aggregator(folder / CHECKPOINT, arch=architecture.name, options=options)
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
    write_bundle(manifest, files, folder / BUNDLE)
    _, head, complete = build_head(state, architecture.name, options, file=CHECKPOINT)
    graph, note = whole_graph(variant.name, head)
    (folder / GRAPH).write_bytes(graph)
    up_to = QUADRATIC.get(variant.name, max(held))
    plan = {
        "held": held,
        "by": ONNX if graph else TORCH,
        "up_to": up_to,
        "architecture": architecture.name,
        "options": complete,
    }
    (folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")
    if max(held) > up_to:
        note = "the graph would hold an N x N matrix; larger bags by NumPy in tiles"
    return exported.spec.incremental, note


def _lines(cost: Cost) -> Iterator[str]:
    largest = max(map(int, cost.field_ms), default=0)
    for held, milliseconds in cost.field_ms.items():
        whole, memory = cost.whole_ms[held], ""
        if int(held) == largest and cost.field_peak_mb and cost.whole_peak_mb:
            memory = f"{cost.field_peak_mb:.0f}, whole {cost.whole_peak_mb:.0f}"
        yield (
            f"| {cost.name} | {cost.incremental} | {held} | {milliseconds:.3f} | {whole:.2f} "
            f"| {cost.whole_by[held]} | {whole / milliseconds:.1f} | {memory} |"
        )
        if held in cost.changed_ms:
            changed = cost.changed_ms[held]
            yield (
                f"| {cost.name}, a new critical instance | {cost.incremental} | {held} "
                f"| {changed:.3f} | {whole:.2f} | {cost.whole_by[held]} | {whole / changed:.1f} | |"
            )
    if cost.note:
        yield f"| {cost.name}: {cost.note} | | | | | | | |"


def _document(costs: list[Cost], indent: int | None = None) -> str:
    source = (
        f"edge-mil bench aggregators: fresh heads, features of width {WIDTH}, fields of {FIELD}, "
        "CPU time of one thread, the whole bag by the official formula"
    )
    found = {
        "source": source,
        "heads": [asdict(c) for c in costs if c.name not in FORMS],
        "forms": [asdict(c) for c in costs if c.name in FORMS],
    }
    return json.dumps(found, indent=indent)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))
