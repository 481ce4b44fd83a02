"""Measure one head of `edge-mil bench aggregators` in a process of its own, with one thread.

Reads the folder that `bench.aggregators` has written, and prints one line of JSON for each size of
the bag. torch is loaded only where the whole bag has no ONNX graph, and after the memory of the
device's part was measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.aggregators.catalogue import FIELD
from edge_mil.backends import open_backend
from edge_mil.bundle import open_bundle
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.protocols import Graph
from edge_mil.types import Float32Array

CHUNK = 4096
"""Instances of one run of a graph: bounds memory."""
COLUMNS = 250
"""Of the grid on which the instances lie."""
ROUNDS, FOLDS = 3, 5
"""Rounds of one whole bag and then so many fields, in turn."""
LONG_S = 2.0
"""A run that takes longer is not repeated."""
CHANGES = 3
"""Fields of ever larger features, which bring new critical instances."""
PLAN, BUNDLE, GRAPH, CHECKPOINT = "plan.json", "bundle", "whole.onnx", "fresh.pt"
ONNX, TORCH, NUMPY = "ONNX Runtime", "torch", "NumPy"
"""Libraries that run the whole bag."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(folder: Path) -> None:
    """Measure the head in a folder."""
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    model = load_model(open_bundle(folder / BUNDLE), threads=1)
    sizes = sorted(plan["held"])
    rng = np.random.default_rng(0)
    _reset_peak()
    _scored(model, _grown(model, rng, sizes[-1] + FIELD))
    field_peak = _peak_mb()
    for held in sizes:
        by = plan["by"] if held <= plan["up_to"] else NUMPY
        found = _measured(model, _whole(by, folder, plan, model), held)
        if held == sizes[-1]:
            found["field_peak_mb"] = field_peak
        short = {k: None if v is None else round(v, 3) for k, v in found.items()}
        print(json.dumps({"held": held, "by": by} | short), flush=True)


def _measured(model: Model, whole: Callable[[Float32Array], Any], held: int) -> dict[str, Any]:
    """Return what a field and the whole bag cost with so many instances held.

    Of several runs the least counts, of both: a busy machine only ever adds to CPU time too.
    """
    rng = np.random.default_rng(held)
    features = _features(model, rng, held + FIELD)
    _reset_peak()
    wholes, folds = [_seconds(lambda: whole(features))], []
    whole_peak = _peak_mb()
    state = _grown(model, rng, held)
    at_once = model.aggregator.incremental == "whole-bag"
    for number in range(ROUNDS):
        if number:
            wholes.append(_seconds(lambda: whole(features)))
        for _ in range(1 if at_once else FOLDS):
            state, seconds = _field(model, rng, state)
            folds.append(seconds)
        if max(wholes[-1], folds[-1]) > LONG_S:
            break
    changed = None
    if hasattr(state, "critical"):
        later = []
        for number in range(CHANGES):
            state, seconds = _field(model, rng, state, 2.0 ** (number + 1))
            later.append(seconds)
        changed = 1e3 * max(later)
    empty = len(model.aggregator.to_bytes(model.aggregator.initial_state()))
    grown = len(model.aggregator.to_bytes(state)) - empty
    return {
        "field_ms": 1e3 * min(folds),
        "whole_ms": 1e3 * min(wholes),
        "changed_ms": changed,
        "whole_peak_mb": whole_peak,
        "bytes_per_instance": grown / model.aggregator.instances(state),
    }


def _whole(
    by: str, folder: Path, plan: dict[str, Any], model: Model
) -> Callable[[Float32Array], Any]:
    """Return a function that runs the official formula over a whole bag."""
    if by == NUMPY:
        return lambda features: _scored(model, _folded(model, None, features))
    if by == ONNX:
        network = open_backend("cpu", threads=1).open(Graph((folder / GRAPH).read_bytes(), GRAPH))
        return lambda features: network.run({"features": features})
    import torch

    from edge_mil_export.architectures import build_head

    torch.set_num_threads(1)
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    _, head, _ = build_head(state, plan["architecture"], plan["options"], file=CHECKPOINT)

    def run(features: Float32Array) -> Any:
        with torch.no_grad():
            return head(torch.from_numpy(features))

    return run


def _field(
    model: Model, rng: np.random.Generator, state: Any, scale: float = 1.0
) -> tuple[Any, float]:
    """Return the state after one more field, and the seconds of folding and scoring it."""
    features = _features(model, rng, FIELD) * np.float32(scale)
    start = time.process_time()
    state = _folded(model, state, features)
    _scored(model, state)
    return state, time.process_time() - start


def _grown(model: Model, rng: np.random.Generator, count: int) -> Any:
    """Return the state of a bag that comes a part at a time."""
    state = model.aggregator.initial_state()
    for at in range(0, count, CHUNK):
        state = _folded(model, state, _features(model, rng, min(CHUNK, count - at)))
    return state


def _folded(model: Model, state: Any, features: Float32Array) -> Any:
    """Return the state with features added, on the next cells of the grid."""
    state = model.aggregator.initial_state() if state is None else state
    first = model.aggregator.instances(state)
    for at in range(0, len(features), CHUNK):
        part, instance_order = features[at : at + CHUNK], None
        if model.aggregator.needs_instance_order:
            numbers = range(first + at, first + at + len(part))
            instance_order = grid_order([(n % COLUMNS, n // COLUMNS) for n in numbers])
        state = model.aggregator.update(state, model.attend(part, instance_order))
    return state


def _scored(model: Model, state: Any) -> Any:
    return model.aggregator.scores([state])


def _features(model: Model, rng: np.random.Generator, count: int) -> Float32Array:
    width = model.bundle.manifest.aggregator.feature_dim
    return rng.standard_normal((count, width), dtype=np.float32)


def _seconds(action: Callable[[], Any]) -> float:
    """Return the CPU time of this process for an action: other programs do not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def _reset_peak() -> None:
    """Forget the largest memory so far, where the system can (Linux)."""
    if RESET.exists():
        RESET.write_text("5", encoding="ascii")


def _peak_mb() -> float | None:
    """Return the largest resident memory since, 10^6 bytes; None where the system has none."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text(encoding="ascii").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kib * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]))
