"""From a bundle to an engine that may serve it: built, loaded, verified, or the next best."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_mil.backends.tensorrt.backend import TensorRtBackend
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.bundle import Bundle
from edge_mil.errors import EngineError, UsageError
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.verification import Check, check_runner

FALLBACK_ORDER = ("int8", "fp16", "fp32")
"""Fastest first; one that fails falls back to the next."""
GRAPHS = {"int8": "int8-trt", "fp16": "fp16", "fp32": "fp32"}
"""Precision -> key of `ExtractorSpec.graphs` that TensorRT builds from."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineSelection:
    """An engine that may serve.

    Attributes:
        runner: It.
        check: How near it comes to FP32.
        missed: Why a faster precision is not there; "" when nothing was missed.
    """

    runner: Runner
    check: Check
    missed: str


def recipe_of(bundle: Bundle, precision: str) -> Recipe | None:
    """Return what an engine of that precision is built from; None where the bundle lacks it.

    Raises:
        BundleError: The graph was changed, or did not travel with the bundle.
    """
    spec = bundle.manifest.extractor
    file = spec.graphs.get(GRAPHS[precision]) if spec is not None else None
    if file is None:
        return None
    return Recipe(bundle.read(file), f"{file} of {bundle.manifest.name}", precision)


def select_engine(
    model: Model,
    backend: TensorRtBackend,
    precision: str,
    *,
    on_progress: Callable[[str, float], None] = lambda precision, share: None,
    cancelled: threading.Event | None = None,
) -> EngineSelection:
    """Return an engine of a precision, or of the next that works: INT8, FP16, FP32.

    Args:
        model: The bundle, running on something else meanwhile.
        backend: Builds and loads.
        precision: fp32, fp16 or int8.
        on_progress: Is told the precision and the share of a build that is done.
        cancelled: Ends a build when it is set.

    Raises:
        EngineError: None works; the message says why, in one sentence.
        BackendLostError: The device does not answer.
        DependencyError: A package is missing.
        UsageError: There is no such precision.
    """
    if precision not in FALLBACK_ORDER:
        raise UsageError(f"There is no precision {precision!r}; name {', '.join(FALLBACK_ORDER)}.")
    name, missed = model.bundle.manifest.name, []
    for wanted in FALLBACK_ORDER[FALLBACK_ORDER.index(precision) :]:
        recipe = recipe_of(model.bundle, wanted)
        if recipe is None:
            missed.append(f"{wanted}: the bundle has none")
            continue
        try:
            told = functools.partial(on_progress, wanted)
            plan = backend.build(recipe, on_progress=told, cancelled=cancelled)
        except EngineError as error:
            missed.append(f"{wanted}: {_clause(error)}")
            if cancelled is not None and cancelled.is_set():
                break
            continue
        try:
            network = backend.open(plan, recipe.label)
        except EngineError as error:
            missed.append(f"{wanted}: {_clause(error)}")
            if backend.device is None:
                break  # no other precision would fare better
            continue
        runner = Runner(network, wanted, backend.describe(), backend.name)
        check = check_runner(model, runner)
        if check.holds:
            sentence = f"{wanted} in place of {precision} ({'; '.join(missed)})" if missed else ""
            return EngineSelection(runner, check, sentence)
        runner.network.close()
        why = f"it is outside of the bundle's bound: {check.sentence()}"
        key = recipe.key(backend.library, backend.device)
        backend.cache.remove(key)
        backend.cache.remember(key, recipe.label, why)
        missed.append(f"{wanted}: {why}")
    raise EngineError(f"No TensorRT engine of {name} can serve here ({'; '.join(missed)}).")


def _clause(error: EngineError) -> str:
    return str(error).rstrip(".")
