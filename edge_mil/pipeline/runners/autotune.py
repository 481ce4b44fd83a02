"""Measure every way to run an extractor on this device, in turn; keep the fastest that holds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mil.errors import BundleError, EdgeMilError
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.variants import RunnerVariant, list_variants, open_variant
from edge_mil.pipeline.runners.verification import Check, check_runner, generated_tiles
from edge_mil.types import UInt8Array

BATCHES = (1, 8, 32)
"""Tiles of one run: the last cell of a field, a few of them, a field of new ones."""
ROUNDS = 8
BUDGET_S = 60.0
"""Time for all rounds of one bundle: a slow extractor gets fewer, at least two."""
FEWEST_ROUNDS = 2
WORTH = 1.02
"""A lower precision is kept when it is faster by more than the clock's own noise."""

Peer = Callable[[UInt8Array], object]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one way.

    Attributes:
        name: The way, or the peer's name.
        way: None for a peer, which is measured and never kept.
        backend: What runs where, for people; "" where it does not run.
        precision: fp32, fp16 or int8; "" for a peer.
        tile_ms: Milliseconds of a tile at each of `batches`; empty where it does not run.
        check: How near it comes to FP32; None for a peer, or where it does not run.
        reason: Why it does not run, or may not serve; "" otherwise.
        batches: Tiles of one run.
    """

    name: str
    way: RunnerVariant | None
    backend: str = ""
    precision: str = ""
    tile_ms: tuple[float, ...] = ()
    check: Check | None = None
    reason: str = ""
    batches: tuple[int, ...] = BATCHES

    @property
    def may_serve(self) -> bool:
        """Whether it can be kept."""
        return self.way is not None and bool(self.tile_ms) and not self.reason

    @property
    def cost_ms(self) -> float:
        """What ways are ranked by: milliseconds of a tile, over one run of each batch.

        A field of new cells is one large batch, so that one decides.
        """
        if not self.tile_ms:
            return float("inf")
        return float(np.average(self.tile_ms, weights=self.batches))


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured.

    Attributes:
        rows: Every way that the bundle has a graph for, then the peers.
        kept: The fastest within the bound.
        batches: Tiles of one run.
        rounds: Runs of each.
        clock: "CPU time" where every way runs on one thread of the CPU, else "wall time".
    """

    rows: tuple[Row, ...]
    kept: RunnerVariant
    batches: tuple[int, ...]
    rounds: int
    clock: str


def tune(
    model: Model,
    *,
    threads: int | None = None,
    engines: Path | None = None,
    ways: Sequence[RunnerVariant] | None = None,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    peers: Mapping[str, Peer] | None = None,
    on_way: Callable[[str], None] = lambda name: None,
) -> Tuning:
    """Open, verify and time every way; the model goes on with what it runs.

    The ways take turns, round by round, and the fastest round of each counts, so that another
    program on the device does not decide.

    Args:
        model: A bundle with an extractor, loaded on the CPU.
        threads: Threads of one run on the CPU; None takes as many as there are cores.
        engines: Folder where engines are kept; None leaves TensorRT out.
        ways: What to measure; None takes all that the bundle has graphs for.
        batches: Tiles of one run.
        rounds: Runs of each way and batch at most; one more warms up.
        peers: Further ways to time beside ours, name -> run; they are never kept.
        on_way: Is told what is opened or measured next.

    Raises:
        BundleError: The bundle has no extractor, or not one way may serve.
    """
    rows: dict[str, Row] = {}
    runners: dict[str, Runner] = {}
    try:
        for way in list_variants(model.bundle) if ways is None else ways:
            name = str(way)
            on_way(name)
            rows[name] = _opened(model, way, threads, engines, runners)
        for name in peers or {}:
            rows[name] = Row(name, None, "beside", "")
        runs: dict[str, Peer] = {
            name: lambda tiles, network=runner.network: network.run({"tiles": tiles})  # type: ignore[misc]
            for name, runner in runners.items()
        }
        runs.update(peers or {})
        if not runners:
            reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows.values())
            raise BundleError(
                f"No backend of this device can run {model.bundle.manifest.name} ({reasons})."
            )
        on_way("timing in turn")
        on_gpu = any(rows[n].way.backend in ("cuda", "ort-tensorrt", "tensorrt") for n in runners)  # type: ignore[union-attr]
        clock = "CPU time" if threads == 1 and not on_gpu else "wall time"
        timed, taken = _time(model, runs, batches, rounds, clock)
    finally:
        for runner in runners.values():
            runner.network.close()
    done = tuple(
        dataclasses.replace(row, tile_ms=timed[name], batches=tuple(batches))
        if name in timed
        else row
        for name, row in rows.items()
    )
    return Tuning(done, _best(done, model), tuple(batches), taken, clock)


def _opened(
    model: Model,
    way: RunnerVariant,
    threads: int | None,
    engines: Path | None,
    runners: dict[str, Runner],
) -> Row:
    if way.backend == "tensorrt" and engines is None:
        return Row(str(way), way, "", way.precision, reason="no folder for engines was named")
    try:
        runner = open_variant(model.bundle, way, threads=threads, engines=engines)
    except EdgeMilError as error:
        return Row(str(way), way, "", way.precision, reason=str(error))
    try:
        check = check_runner(model, runner)
    except EdgeMilError as error:
        runner.network.close()
        return Row(str(way), way, runner.backend, way.precision, reason=str(error))
    runners[str(way)] = runner
    reason = "" if check.holds else f"outside of the bound: {check.sentence()}"
    return Row(str(way), way, runner.backend, way.precision, check=check, reason=reason)


def _time(
    model: Model, runs: Mapping[str, Peer], batches: Sequence[int], rounds: int, clock: str
) -> tuple[dict[str, tuple[float, ...]], int]:
    """Return milliseconds of a tile for each batch, and how many rounds counted."""
    now = time.process_time if clock == "CPU time" else time.perf_counter
    given = generated_tiles(model)
    tiles = {batch: np.resize(given, (batch, *given.shape[1:])) for batch in batches}
    best = {name: dict.fromkeys(batches, float("inf")) for name in runs}
    started = time.perf_counter()
    taken = 0
    for number in range(rounds + 1):
        for name, run in runs.items():
            for batch in batches:
                began = now()
                run(tiles[batch])
                spent = now() - began
                if number:  # the first is to warm up
                    best[name][batch] = min(best[name][batch], spent)
        taken = number
        if number >= FEWEST_ROUNDS and time.perf_counter() - started > BUDGET_S:
            break
    return {
        name: tuple(1000 * max(found[batch], 1e-9) / batch for batch in batches)
        for name, found in best.items()
    }, taken


def _best(rows: Sequence[Row], model: Model) -> RunnerVariant:
    """Return the fastest way that may serve; FP32 unless a lower precision is clearly faster."""
    fit = [row for row in rows if row.may_serve]
    if not fit:
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows if row.way is not None)
        raise BundleError(
            f"No way to run {model.bundle.manifest.name} is within its bound here ({reasons}); "
            "export it again and compare the fidelity reports."
        )
    fastest = min(fit, key=lambda row: row.cost_ms)
    exact = [row for row in fit if row.precision == "fp32"]
    if exact:
        best_exact = min(exact, key=lambda row: row.cost_ms)
        if best_exact.cost_ms <= WORTH * fastest.cost_ms:
            fastest = best_exact
    assert fastest.way is not None
    return fastest.way
