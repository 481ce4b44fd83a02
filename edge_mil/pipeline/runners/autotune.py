"""Measure every variant of an extractor on this device in turn, and keep the fastest in bound."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mil.bundle import Bundle
from edge_mil.errors import BackendLostError, BundleError, EdgeMilError, EngineError
from edge_mil.pipeline.runners.fallback import OpenBackend, open_verified
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.variants import RunnerVariant, list_variants
from edge_mil.pipeline.runners.verification import BundleModel, Check, generated_tiles
from edge_mil.types import UInt8Array

BATCHES = (1, 8, 32)
"""Tiles of one run: the last cell of a field, a few of them, a field of new ones."""
ROUNDS = 8
BUDGET_S = 60.0
"""Time for all rounds of one bundle: a slow extractor gets fewer rounds, at least two."""
FEWEST_ROUNDS = 2
WORTH = 1.02
"""A lower precision is kept when it is faster by more than the clock's own noise."""
SHORTEST_S = 1e-9
"""Least time of a run: a clock may not advance within a short one."""
CPU_TIME, WALL_TIME = "CPU time", "wall time"
CPU_BACKENDS = ("cpu", "openvino")

Run = Callable[[UInt8Array], object]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one variant.

    Attributes:
        name: The variant's, or the peer's.
        variant: None for a peer, which is measured and never kept.
        backend: What runs where; "" where the variant does not run.
        tile_ms: Milliseconds of a tile at each of `batches`; empty where it does not run.
        check: How near it comes to FP32; None for a peer, or where it does not run.
        reason: Why it does not run, or may not serve; "" otherwise.
        batches: Tiles of one run.
        transient: Whether it did not run for a reason that may pass, as a lack of memory.
    """

    name: str
    variant: RunnerVariant | None
    backend: str = ""
    tile_ms: tuple[float, ...] = ()
    check: Check | None = None
    reason: str = ""
    batches: tuple[int, ...] = BATCHES
    transient: bool = False

    @property
    def precision(self) -> str:
        """What it computes in: fp32, fp16 or int8; "" for a peer."""
        return "" if self.variant is None else self.variant.precision

    @property
    def may_serve(self) -> bool:
        """Whether it can be kept."""
        return self.variant is not None and bool(self.tile_ms) and not self.reason

    @property
    def cost_ms(self) -> float:
        """What variants are ranked by: milliseconds of a tile, over one run of each batch.

        A field of new cells is one large batch, so the largest batch weighs most.
        """
        if not self.tile_ms:
            return float("inf")
        return float(np.average(self.tile_ms, weights=self.batches))


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured on one device.

    Attributes:
        rows: Every variant that the bundle has a graph for, then the peers.
        kept: The fastest within the bound.
        batches: Tiles of one run.
        rounds: Runs of each.
        clock: CPU_TIME where every variant runs on one thread of the CPU, else WALL_TIME.
    """

    rows: tuple[Row, ...]
    kept: RunnerVariant
    batches: tuple[int, ...]
    rounds: int
    clock: str


def tune(
    model: BundleModel,
    backends: OpenBackend,
    *,
    variants: Sequence[RunnerVariant] | None = None,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    peers: Mapping[str, Run] | None = None,
    on_step: Callable[[str], None] = lambda name: None,
    cancel: threading.Event | None = None,
) -> Tuning:
    """Load, verify and time every variant; the model goes on with what it runs.

    The variants take turns, round by round, and the fastest round of each counts, so that another
    program on the device does not decide.

    Args:
        model: A bundle with an extractor, loaded on the CPU with the threads that `backends` has.
        backends: Opens a backend by its name.
        variants: What to measure; None takes all that the bundle has graphs for.
        batches: Tiles of one run.
        rounds: Runs of each variant and batch at most; one more warms up.
        peers: Further runs to time beside ours, by name; they are never kept.
        on_step: Is told what is loaded or measured next.
        cancel: Ends the measurement when it is set.

    Raises:
        BundleError: The bundle has no extractor, or no variant may serve.
        EngineError: `cancel` is set.
    """
    peers = peers or {}
    rows: dict[str, Row] = {}
    runners: dict[str, Runner] = {}
    try:
        for variant in list_variants(model.bundle) if variants is None else variants:
            name = str(variant)
            on_step(name)
            rows[name] = _load(model, variant, backends, runners, cancel)
            _check_wanted(model, cancel)
        rows |= {name: Row(name, None, "beside") for name in peers}
        if not runners:
            reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows.values())
            raise BundleError(
                f"No backend of this device can run {model.bundle.manifest.name} ({reasons})."
            )
        on_step("timing in turn")
        on_cpu = all(runner.variant.backend in CPU_BACKENDS for runner in runners.values())
        clock = CPU_TIME if model.threads == 1 and on_cpu else WALL_TIME
        runs = {name: runner.features for name, runner in runners.items()} | dict(peers)
        timed, taken = _time(
            model.bundle, runs, batches, rounds, clock, lambda: _check_wanted(model, cancel)
        )
    finally:
        for runner in runners.values():
            runner.close()
    measured = tuple(
        dataclasses.replace(row, tile_ms=timed[name], batches=tuple(batches))
        if name in timed
        else row
        for name, row in rows.items()
    )
    return Tuning(measured, _best(measured, model.bundle), tuple(batches), taken, clock)


def _load(
    model: BundleModel,
    variant: RunnerVariant,
    backends: OpenBackend,
    runners: dict[str, Runner],
    cancel: threading.Event | None,
) -> Row:
    """Return the row of a variant, not timed yet; its runner is added to `runners`."""
    name = str(variant)
    try:
        backend = backends(variant.backend)
        if backend.unavailable:
            return Row(name, variant, reason=backend.unavailable)
        runner, check = open_verified(model, variant, backend, cancel=cancel)
    except EdgeMilError as error:
        lost = isinstance(error, BackendLostError) or error.details.get("transient") == "True"
        return Row(name, variant, reason=str(error), transient=lost)
    runners[name] = runner
    reason = "" if check.holds else f"outside of the bound: {check.sentence()}"
    return Row(name, variant, runner.description, check=check, reason=reason)


def _check_wanted(model: BundleModel, cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise EngineError(f"The measurement of {model.bundle.manifest.name} was cancelled.")


def _time(
    bundle: Bundle,
    runs: Mapping[str, Run],
    batches: Sequence[int],
    rounds: int,
    clock: str,
    check_wanted: Callable[[], None],
) -> tuple[dict[str, tuple[float, ...]], int]:
    """Return milliseconds of a tile for each batch, and how many rounds counted."""
    now = time.process_time if clock == CPU_TIME else time.perf_counter
    few = generated_tiles(bundle)
    tiles = {batch: np.resize(few, (batch, *few.shape[1:])) for batch in batches}
    best = {name: dict.fromkeys(batches, float("inf")) for name in runs}
    started = time.perf_counter()
    taken = 0
    for number in range(rounds + 1):
        for name, run in runs.items():
            check_wanted()
            for batch in batches:
                began = now()
                run(tiles[batch])
                spent = now() - began
                if number:  # the first round warms up
                    best[name][batch] = min(best[name][batch], spent)
        taken = number
        if number >= FEWEST_ROUNDS and time.perf_counter() - started > BUDGET_S:
            break
    return {
        name: tuple(1000 * max(found[batch], SHORTEST_S) / batch for batch in batches)
        for name, found in best.items()
    }, taken


def _best(rows: Sequence[Row], bundle: Bundle) -> RunnerVariant:
    """Return the fastest variant that may serve; FP32 unless another is clearly faster."""
    fit = [row for row in rows if row.may_serve]
    if not fit:
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows if row.variant is not None)
        raise BundleError(
            f"No variant of {bundle.manifest.name} is within its bound here ({reasons}); export "
            "it again and compare the fidelity reports."
        )
    fastest = min(fit, key=lambda row: row.cost_ms)
    exact = min(
        (row for row in fit if row.precision == "fp32"), key=lambda row: row.cost_ms, default=None
    )
    kept = exact if exact and exact.cost_ms <= WORTH * fastest.cost_ms else fastest
    assert kept.variant is not None
    return kept.variant
