"""The engine of a recipe: from the cache, or built in a process of its own and kept there."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

from edge_mil.backends.tensorrt.building.ladder import describe, list_recipes
from edge_mil.backends.tensorrt.building.supervisor import (
    BuildInterruptedError,
    BuildLimitError,
    BuildLimits,
    run_build,
)
from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.drivers.driver import check_driver
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.engine_file import EngineHeader
from edge_mil.backends.tensorrt.engines.recipe import EngineKey, Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Progress

LOG = logging.getLogger("edge_mil.engines")


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """An engine that may be run, and whether it was in the cache already."""

    header: EngineHeader
    plan: bytes
    from_cache: bool


def build_engine(
    recipe: Recipe,
    library: Library,
    device: Device | None,
    cache: EngineCache,
    *,
    limits: BuildLimits | None = None,
    progress: Progress = lambda share: None,
    cancel: threading.Event | None = None,
) -> Engine:
    """Return the engine of a recipe, built if it must be.

    Without a device it is built ahead of time. Where a build runs out of memory or time, one that
    asks for less follows (`ladder`). `progress` is told the share of a build that is done, and
    nothing of an engine in the cache.

    Raises:
        EngineError: The engine cannot be built, or could not be before; the message says why. The
            reason is kept, so that the next start does not try for minutes again: for
            `cache.TRANSIENT_S` where memory or time ran out, else until `engine clear`. Nothing is
            kept where `cancel` was set, the disk was full, or the device did not answer.
        BackendLostError: The GPU does not answer.
        DependencyError: No package that talks to the GPU is installed.
    """
    key, label = recipe.key(library, device), recipe.graph.label
    recipes = list_recipes(recipe)
    try:
        found = _find(recipes, library, device, cache)
        if found is not None:
            return found
        _check_can_build(key, label, library, device, cache)
        with cache.lock(key):
            found = _find(recipes, library, device, cache)  # another process may have built it
            if found is not None:
                return found
            built = _build_first(
                recipes, library, device, cache, limits or BuildLimits(), progress, cancel
            )
            plan = cache.find(built.key(library, device))
    except OSError as error:
        raise EngineError(
            f"{label} was not built: {error.strerror or error} ({cache.root}); free some space, "
            "or name another folder with --state.",
            transient=True,
        ) from error
    if plan is None:
        raise EngineError(f"The engine of {label} was removed as soon as it was built.")
    return Engine(*plan, from_cache=False)


def _find(
    recipes: list[tuple[Recipe, float]],
    library: Library,
    device: Device | None,
    cache: EngineCache,
) -> Engine | None:
    """Return the engine of the first recipe that the cache holds."""
    for recipe, _ in recipes:
        found = cache.find(recipe.key(library, device))
        if found is not None:
            return Engine(*found, from_cache=True)
    return None


def _check_can_build(
    key: EngineKey, label: str, library: Library, device: Device | None, cache: EngineCache
) -> None:
    """Say in seconds what a build would meet at its end."""
    failure = cache.failure(key)
    if failure is not None:
        when = time.strftime("%Y-%m-%d at %H:%M", time.localtime(failure.time))
        again = "it is tried again after an hour" if failure.transient else "the next start tries"
        raise EngineError(
            f"{label} was not built: {failure.reason} (on {when}; edge-mil engine clear forgets "
            f"it, and {again}).",
            transient=failure.transient,
        )
    if device is not None:
        check_driver()
    elif not library.builds_ahead:
        raise EngineError(
            f"{library.title} builds on the GPU that it will run on, and this machine shows none; "
            "check its driver (nvidia-smi)."
        )


def _build_first(
    recipes: list[tuple[Recipe, float]],
    library: Library,
    device: Device | None,
    cache: EngineCache,
    limits: BuildLimits,
    progress: Progress,
    cancel: threading.Event | None,
) -> Recipe:
    """Build the recipes in turn until one succeeds, and return that one."""
    key, label = recipes[0][0].key(library, device), recipes[0][0].graph.label
    reason = ""
    for recipe, time_share in recipes:
        part = cache.new_part()
        try:
            run_build(
                recipe,
                library,
                device,
                part,
                cache.timings_path(key),
                limits=replace(limits, seconds=limits.seconds * time_share),
                progress=progress,
                cancel=cancel or threading.Event(),
            )
            cache.keep(recipe.key(library, device), part)
            if reason:
                LOG.warning("%s was built with %s: %s", label, describe(recipe), reason)
        except BuildLimitError as error:
            reason = reason or str(error)
            LOG.warning("%s was not built with %s: %s", label, describe(recipe), error)
        except BuildInterruptedError as error:
            raise EngineError(f"{label} was not built: {error}.", transient=True) from error
        except EngineError as error:
            cache.remember_failure(key, label, str(error))
            raise EngineError(f"{label} was not built: {error}.") from error
        else:
            return recipe
        finally:
            part.unlink(missing_ok=True)
    cache.remember_failure(key, label, reason, transient=True)
    raise EngineError(
        f"{label} was not built: {reason}; close other programs, and it is tried again at the "
        "next start after an hour (edge-mil engine clear: at once).",
        transient=True,
    )
