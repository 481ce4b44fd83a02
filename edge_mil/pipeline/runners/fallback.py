"""Load variants in turn until one holds the bundle's bound: the one place that verifies runners."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge_mil.bundle import Bundle
from edge_mil.errors import BackendLostError, EngineError
from edge_mil.pipeline.runners.runner import Runner, extractor_graph, open_variant
from edge_mil.pipeline.runners.variants import (
    RunnerVariant,
    find_variant,
    list_variants,
    named_variants,
)
from edge_mil.pipeline.runners.verification import BundleModel, Check, check_runner
from edge_mil.protocols import Backend, Progress

FALLBACK_ORDER = ("int8", "fp16", "fp32")
"""Precisions of TensorRT, the fastest first; one that fails falls back to the next."""

OpenBackend: TypeAlias = Callable[[str], Backend]
"""Returns a backend by its name, as `edge_mil.backends.open_backend` does."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineSelection:
    """A runner that may serve.

    Attributes:
        runner: Loaded, and not in use yet.
        check: How near it comes to FP32; None for the model's first runner, which serves already.
        missed: Why no better variant was taken, in words; "" where the first of the list was.
    """

    runner: Runner
    check: Check | None
    missed: str


def list_candidates(bundle: Bundle, backend: str, precision: str) -> list[RunnerVariant]:
    """Return the variants to try where a backend and a precision are asked for, in order.

    TensorRT falls back to slower precisions, also where the bundle lacks the first one; every
    other backend runs what was asked for.

    Raises:
        UsageError: There is no such backend or precision, or the backend does not run it.
        BundleError: The bundle lacks the graph.
    """
    if backend != "tensorrt":
        return [find_variant(bundle, backend, precision)]
    named_variants(backend, precision)
    order = FALLBACK_ORDER[FALLBACK_ORDER.index(precision) :]
    return [named_variants(backend, slower)[0] for slower in order]


def open_verified(
    model: BundleModel,
    variant: RunnerVariant,
    backend: Backend,
    *,
    progress: Progress = lambda share: None,
    cancel: threading.Event | None = None,
) -> tuple[Runner, Check]:
    """Load a variant and compare it with FP32; the caller closes a runner that does not hold.

    Raises:
        EdgeMilError: It cannot be loaded (see `open_variant`), or not be compared.
    """
    runner = open_variant(model.bundle, variant, backend, progress=progress, cancel=cancel)
    try:
        return runner, check_runner(model, runner)
    except BaseException:
        runner.close()
        raise


def refuse(bundle: Bundle, runner: Runner, check: Check, backend: Backend) -> str:
    """Close a runner that does not hold the bound, and let its backend remember the reason.

    Returns:
        The reason, as a clause.
    """
    runner.close()
    reason = f"it is outside of the bundle's bound: {check.sentence()}"
    backend.reject(extractor_graph(bundle, runner.variant), runner.precision, reason)
    return reason


def select_engine(
    model: BundleModel,
    variants: Sequence[RunnerVariant],
    backends: OpenBackend,
    *,
    progress: Progress = lambda share: None,
    cancel: threading.Event | None = None,
) -> EngineSelection:
    """Return the first variant that loads here and holds the bundle's bound.

    A runner that does not hold is closed, and its backend remembers it.

    Args:
        model: A bundle with an extractor, which runs on its first runner meanwhile.
        variants: The best first, as `list_candidates` gives them.
        backends: Opens the backends of the variants.
        progress: Is told the share of each loading that is done, 0 to 1.
        cancel: Ends the loading when it is set.

    Raises:
        EngineError: No variant can serve here; the message has the reason of each.
        BundleError: A graph or the reference of the bundle cannot be read or run.
        DependencyError: A package is not installed.
    """
    available, missed = list_variants(model.bundle), list[str]()

    def selection(runner: Runner, check: Check | None) -> EngineSelection:
        reasons = "; ".join(missed)
        instead = f"{runner.precision} in place of {variants[0].precision} ({reasons})"
        return EngineSelection(runner, check, instead if missed else "")

    for variant in variants:
        if model.extractor is not None and model.extractor.first.variant == variant:
            return selection(model.extractor.first, None)
        if variant not in available:
            missed.append(f"{variant.precision}: the bundle has none")
            continue
        backend = backends(variant.backend)
        try:
            runner, check = open_verified(model, variant, backend, progress=progress, cancel=cancel)
        except (EngineError, BackendLostError) as error:
            missed.append(f"{variant.precision}: {str(error).rstrip('.')}")
            if backend.unavailable or (cancel is not None and cancel.is_set()):
                break  # no other precision would fare better
            continue
        if check.holds:
            return selection(runner, check)
        missed.append(f"{variant.precision}: {refuse(model.bundle, runner, check, backend)}")
    named = ", ".join(dict.fromkeys(variant.backend for variant in variants))
    raise EngineError(
        f"{model.bundle.manifest.name} cannot run on {named} here ({'; '.join(missed)})."
    )
