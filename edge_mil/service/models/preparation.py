"""Another way to run a bundle's extractor, prepared beside its work: built, loaded, verified."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edge_mil.errors import EdgeMilError, EngineError, SessionStateError
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.autotune import tune
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.tuned_choice import TunedStore
from edge_mil.pipeline.runners.variants import (
    RunnerVariant,
    find_variant,
    list_variants,
    open_variant,
)
from edge_mil.pipeline.runners.verification import check_runner
from edge_mil.service.models.registry import ServedBundle

LOG = logging.getLogger("edge_mil.service")

CPU, TENSORRT, AUTO = "cpu", "tensorrt", "auto"
VERIFYING, TUNING = "VERIFYING", "TUNING"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to run the extractor.

    Attributes:
        backend: As users name it; auto only with the precision auto.
        precision: fp32, fp16 or int8; auto: what `tune` kept on this device, measured now where it
            has not been.
    """

    backend: str
    precision: str


def engines_of(state: Path) -> Path:
    """Return where TensorRT's engines are kept under a state directory."""
    return state / "engines"


class Preparation:
    """One runner on its way; `run` in a thread of its own.

    Attributes:
        wanted: What it is to be.
        state: "VERIFYING", or "BUILDING 40 %".
        share: Of the build, 0 to 1.
        missed: Why it is not what was wanted but the next best; "" where it is.
    """

    def __init__(self, model: Model, wanted: Wanted, state: Path) -> None:
        self.wanted, self.state, self.share, self.missed = wanted, VERIFYING, 0.0, ""
        self._model, self._folder, self._engines = model, state, engines_of(state)
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Give it up; `run` ends soon."""
        self._cancelled.set()

    def run(self) -> Runner:
        """Return the runner, verified.

        Raises:
            EngineError: It cannot be made here, or is outside of the bundle's bound.
            EdgeMilError: The bundle lacks the graph, or a package is missing.
        """
        if self.wanted.precision == AUTO:
            return self._runner(self._tuned())
        if self.wanted.backend == TENSORRT:  # which falls back to a precision that the bundle has
            return self._engine(self.wanted.precision)
        bundle = self._model.bundle
        return self._runner(find_variant(bundle, self.wanted.backend, self.wanted.precision))

    def _tuned(self) -> RunnerVariant:
        """Return the way that is fastest here within the bound; measured where it is not known."""
        model, choices = self._model, TunedStore(self._folder)
        choice = choices.load(model.bundle)
        if choice is None:
            self.state = TUNING
            tuning = tune(model, threads=model.threads, engines=self._engines, ways=self._ways())
            choice = choices.save(model.bundle, tuning, model.threads)
            self.state = VERIFYING
        return choice.way

    def _runner(self, way: RunnerVariant) -> Runner:
        """Return a way's runner, verified; the first one where that is it already."""
        if way.backend == TENSORRT:
            return self._engine(way.precision)
        model = self._model
        if way.backend == CPU and model.extractor is not None:
            first = model.extractor.first
            if first.precision == way.precision:
                return first
        return self._checked(
            open_variant(model.bundle, way, threads=model.threads, engines=self._engines)
        )

    def _ways(self) -> list[RunnerVariant]:
        ways = list_variants(self._model.bundle)
        if self.wanted.backend == AUTO:
            return ways
        return [way for way in ways if way.backend == self.wanted.backend]

    def _checked(self, runner: Runner) -> Runner:
        check = check_runner(self._model, runner)
        if not check.holds:
            runner.network.close()
            raise EngineError(
                f"{runner.name} is outside of the bundle's bound ({check.sentence()}); what ran "
                "before goes on."
            )
        return runner

    def _engine(self, precision: str) -> Runner:
        from edge_mil.backends.tensorrt.backend import TensorRtBackend
        from edge_mil.backends.tensorrt.engines.cache import EngineCache
        from edge_mil.pipeline.runners.fallback import select_engine

        backend = TensorRtBackend(EngineCache(self._engines))
        made = select_engine(
            self._model,
            backend,
            precision,
            on_progress=self._hear,
            cancelled=self._cancelled,
        )
        self.missed = made.missed
        return made.runner

    def _hear(self, precision: str, share: float) -> None:
        self.share = share
        self.state = f"BUILDING {share:.0%}".replace("%", " %") if share < 1 else VERIFYING


class Preparations:
    """Prepares runners for the bundles of this server, one at a time for each."""

    def __init__(self, state: Path, tell: Callable[[str], None]) -> None:
        self._state, self._tell = state, tell
        self._threads = ThreadPoolExecutor(thread_name_prefix="prepare")
        self._under_way: dict[ServedBundle, Preparation] = {}

    async def prepare(self, hosted: ServedBundle, wanted: Wanted) -> Runner:
        """Return a verified runner that is not at work yet.

        Raises:
            SessionStateError: Another is being prepared for the bundle.
            EdgeMilError: It cannot be; what runs goes on.
        """
        model = hosted.ready()
        if hosted in self._under_way:
            raise SessionStateError(
                f"Another runner of {hosted.name} is being prepared; wait for it.",
                reason="BUNDLE_PREPARING",
            )
        one = self._under_way[hosted] = Preparation(model, wanted, self._state)
        hosted.preparing = lambda: f"{wanted.precision} on {wanted.backend}: {one.state}"
        try:
            runner = await asyncio.get_running_loop().run_in_executor(self._threads, one.run)
        except EdgeMilError as error:
            hosted.remark = str(error)
            raise
        finally:
            one.cancel()  # where this call was: the thread ends soon
            hosted.preparing = None
            del self._under_way[hosted]
        hosted.remark = one.missed
        if one.missed:
            self._tell(f"{hosted.name}: {one.missed}")
        return runner

    def under_way(self, hosted: ServedBundle) -> Preparation | None:
        """Return what is being prepared for a bundle."""
        return self._under_way.get(hosted)

    async def select_engine(self, hosted: ServedBundle, wanted: Wanted) -> None:
        """Prepare a runner that takes over between two sessions; say how it went."""
        try:
            runner = await self.prepare(hosted, wanted)
        except EdgeMilError as error:
            self._tell(f"{hosted.name} goes on with {hosted.ready().backend}: {error}")
            return
        hosted.next_runner = runner
        self._tell(f"{hosted.name}: {runner.name} is ready, for the next session")

    def close(self) -> None:
        """Give up what is under way, and wait for it."""
        for one in self._under_way.values():
            one.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)


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
