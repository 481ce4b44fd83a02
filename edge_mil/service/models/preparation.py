"""Runners that are loaded and verified in the background, while another one serves."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edge_mil.backends import ENGINES_FOLDER, open_backend
from edge_mil.bundle import Bundle
from edge_mil.errors import EdgeMilError, EngineError, SessionStateError
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.autotune import tune
from edge_mil.pipeline.runners.fallback import list_candidates, select_engine
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.tuned_choice import TunedStore
from edge_mil.pipeline.runners.variants import RunnerVariant, list_variants
from edge_mil.pipeline.runners.verification import stated_bound
from edge_mil.service.models.registry import ServedBundle

LOG = logging.getLogger("edge_mil.service")

CPU, TENSORRT, AUTO, FITTING = "cpu", "tensorrt", "auto", "fitting"
VERIFYING, TUNING = "VERIFYING", "TUNING"


@dataclass(frozen=True, slots=True)
class RunnerRequest:
    """What is to run an extractor.

    Attributes:
        backend: As users name it; auto only with the precisions auto and fitting.
        precision: fp32, fp16 or int8; auto: the variant that `tune` kept on this device, measured
            now where none is kept; fitting: that too where the bundle brings INT8, but nothing is
            measured on the CPU, which would take it from the first fields; else fp32.
    """

    backend: str
    precision: str


CPU_FP32 = RunnerRequest(CPU, "fp32")
"""What runs from the start."""
ADVICE = (
    "fp32, because nothing was measured here yet; edge-mil tune BUNDLE says whether int8 is faster "
    "on this device, and the next start takes what it keeps"
)


def fitting_request(
    bundle: Bundle, request: RunnerRequest, state: Path
) -> tuple[RunnerRequest, str]:
    """Return what the precision `fitting` stands for here, and what the operator should know.

    Where the bundle brings INT8 it is what `tune` keeps. Nothing is measured where only the CPU
    would be: that takes it from the first fields.

    Raises:
        DependencyError: TensorRT is asked for by name, and not installed.
    """
    backend = choose_backend(request.backend)
    if all(variant.precision != "int8" for variant in list_variants(bundle)):
        return RunnerRequest(backend, "fp32"), ""
    kept = TunedStore(state).load(bundle)
    if backend == CPU and (kept is None or request.backend not in (AUTO, kept.variant.backend)):
        return CPU_FP32, "" if kept is not None else ADVICE
    return RunnerRequest(request.backend, AUTO), ""


def engines_of(state: Path) -> Path:
    """Return the folder of TensorRT's engines under a state directory."""
    return state / ENGINES_FOLDER


class Preparation:
    """One runner that is being loaded and verified; `run` has a thread of its own.

    Attributes:
        request: What was asked for.
        state: VERIFYING, TUNING, or "BUILDING 40 %".
        share: Of the build, 0 to 1.
        missed: Why the runner is another than the one asked for; "" where it is that one.
        moves: What the runner may move a score by, in words; "" for FP32.
    """

    def __init__(self, model: Model, request: RunnerRequest, state: Path) -> None:
        self.request, self.state, self.share = request, VERIFYING, 0.0
        self.missed = self.moves = ""
        self._model, self._state_folder = model, state
        self._backends = functools.cache(
            functools.partial(open_backend, threads=model.threads, engines=engines_of(state))
        )
        self._cancel = threading.Event()

    def cancel(self) -> None:
        """End the preparation; `run` raises soon."""
        self._cancel.set()

    def run(self) -> Runner:
        """Return the runner, verified.

        Raises:
            EngineError: It cannot be loaded here, or is outside of the bundle's bound.
            EdgeMilError: The bundle lacks the graph, or a package is missing.
        """
        selection = select_engine(
            self._model,
            self._candidates(),
            self._backends,
            progress=self._show_progress,
            cancel=self._cancel,
        )
        self.missed = selection.missed
        runner, check = selection.runner, selection.check
        if runner.precision != "fp32" and check is not None:
            bound = stated_bound(self._model.bundle, runner.variant.graph)
            self.moves = (
                f"{runner.precision} may move a score by {bound:g} (the bundle's report); here "
                f"{check.sentence()}"
            )
        return runner

    def _candidates(self) -> list[RunnerVariant]:
        bundle, request = self._model.bundle, self.request
        if request.precision != AUTO:
            return list_candidates(bundle, request.backend, request.precision)
        tuned = self._tuned()
        if tuned.backend == TENSORRT:
            return list_candidates(bundle, TENSORRT, tuned.precision)
        return [tuned]

    def _tuned(self) -> RunnerVariant:
        """Return the fastest variant within the bound here; measure where none is kept."""
        model, store = self._model, TunedStore(self._state_folder)
        backend, kept = self.request.backend, store.load(model.bundle)
        if kept is not None and backend in (AUTO, kept.variant.backend):
            return kept.variant
        self.state = TUNING
        variants = [
            variant for variant in list_variants(model.bundle) if backend in (AUTO, variant.backend)
        ]
        tuning = tune(model, self._backends, variants=variants, cancel=self._cancel)
        # What failed for a reason that may pass is measured again at the next start.
        if not any(row.transient for row in tuning.rows):
            store.save(model.bundle, tuning, model.threads)
        self.state = VERIFYING
        return tuning.kept

    def _show_progress(self, share: float) -> None:
        self.share = share
        self.state = f"BUILDING {share:.0%}".replace("%", " %") if share < 1 else VERIFYING


class Preparations:
    """Prepares runners for the bundles of this server, one at a time for each."""

    def __init__(self, state: Path, announce: Callable[[str], None]) -> None:
        self._state, self._announce = state, announce
        self._threads = ThreadPoolExecutor(thread_name_prefix="prepare")
        self._under_way: dict[ServedBundle, Preparation] = {}

    async def prepare(self, served: ServedBundle, request: RunnerRequest) -> Runner:
        """Return a verified runner that is not in use yet.

        Raises:
            SessionStateError: Another runner of the bundle is being prepared.
            EdgeMilError: The runner cannot be prepared; the current one stays.
        """
        model = served.ready()
        if served in self._under_way:
            raise SessionStateError(
                f"Another runner of {served.name} is being prepared; wait for it.",
                reason="BUNDLE_PREPARING",
            )
        preparation = self._under_way[served] = Preparation(model, request, self._state)
        served.preparing = lambda: f"{request.precision} on {request.backend}: {preparation.state}"
        try:
            runner = await asyncio.get_running_loop().run_in_executor(
                self._threads, preparation.run
            )
        except EdgeMilError as error:
            served.remark = str(error)
            raise
        except Exception as error:  # the edge of a worker: what runs now goes on, whatever failed
            LOG.exception("another runner of %s cannot be prepared", served.name)
            served.remark = _unforeseen(error)
            raise EngineError(served.remark) from error
        finally:
            preparation.cancel()  # where this call itself was cancelled, its thread ends soon
            served.preparing = None
            del self._under_way[served]
        served.remark = "; ".join(filter(None, [preparation.missed, preparation.moves]))
        if served.remark:
            self._announce(f"{served.name}: {served.remark}")
        return runner

    def under_way(self, served: ServedBundle) -> Preparation | None:
        """Return the preparation of a bundle; None where there is none."""
        return self._under_way.get(served)

    async def select_engine(
        self, served: ServedBundle, request: RunnerRequest, idle: Callable[[], bool]
    ) -> None:
        """Prepare a runner and announce it; it takes over between two sessions.

        Args:
            served: Goes on with what it runs until then, and also when the preparation fails.
            request: What is to run.
            idle: Whether no session of the bundle is in use: the runner then takes over at once.
        """
        model = served.ready()
        try:
            if request.precision == FITTING:
                fits = functools.partial(fitting_request, model.bundle, request, self._state)
                request, advice = await asyncio.get_running_loop().run_in_executor(None, fits)
                if advice:
                    served.remark = advice
                    self._announce(f"{served.name}: {advice}")
                if request == CPU_FP32:
                    return
            runner = await self.prepare(served, request)
        except EdgeMilError as error:
            self._announce(f"{served.name} goes on with {model.backend}: {error}")
            return
        if model.extractor is not None and runner is model.extractor.current:
            return
        served.next_runner = runner
        if idle():
            served.take_next()
            self._announce(f"{served.name}: {runner.name} runs from now on")
        else:
            self._announce(f"{served.name}: {runner.name} is ready, for the next session")

    def close(self) -> None:
        """Cancel every preparation, and wait for its end."""
        for preparation in self._under_way.values():
            preparation.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)


def _unforeseen(error: Exception) -> str:
    """Return one sentence on an error that no part of the preparation expects."""
    if isinstance(error, OSError) and error.strerror:
        return f"The runner was not prepared: {error.strerror} ({error.filename or 'no file'})."
    return f"The runner was not prepared: {type(error).__name__}: {error}; the log has the rest."


def choose_backend(name: str) -> str:
    """Return cpu or tensorrt; "auto" takes TensorRT where a GPU and the library are there.

    Raises:
        DependencyError: TensorRT is asked for by name, and not installed.
    """
    if name == CPU:
        return CPU
    from edge_mil.backends.tensorrt.device import find_device
    from edge_mil.backends.tensorrt.library import find_library

    if name == AUTO and find_device() is None:
        return CPU
    try:
        find_library()
    except EdgeMilError as error:
        if name != AUTO:
            raise
        LOG.warning("%s", error)
        return CPU
    return TENSORRT
