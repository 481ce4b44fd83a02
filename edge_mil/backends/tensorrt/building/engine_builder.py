"""The engine of a recipe: from the cache, or built in a process of its own and kept there."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from edge_mil.backends.tensorrt.building.supervisor import (
    BuildInterruptedError,
    BuildLimits,
    run_build,
)
from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.engine_file import EngineHeader
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Progress


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

    Without a device it is built ahead of time. `progress` is told the share of a build that is
    done, and nothing of an engine in the cache.

    Raises:
        EngineError: The engine cannot be built, or could not be before; the message says why. The
            reason is kept, so that the next start does not try for minutes again. Nothing is kept
            where `cancel` was set or the disk was full.
    """
    key, label = recipe.key(library, device), recipe.graph.label
    found = cache.find(key)
    if found is not None:
        return Engine(*found, from_cache=True)
    failure = cache.failure(key)
    if failure is not None:
        raise EngineError(
            f"{label} was not built: {failure.reason} (on "
            f"{time.strftime('%Y-%m-%d at %H:%M', time.localtime(failure.time))}; edge-mil engine "
            "clear forgets it, and the next start tries again)."
        )
    if device is None and not library.builds_ahead:
        raise EngineError(
            f"{library.title} builds on the GPU that it will run on, and this machine shows none; "
            "check its driver (nvidia-smi)."
        )
    with cache.lock(key):
        found = cache.find(key)  # another process may have built it meanwhile
        if found is not None:
            return Engine(*found, from_cache=True)
        part = cache.new_part()
        try:
            run_build(
                recipe,
                library,
                device,
                part,
                cache.timings_path(key),
                limits=limits or BuildLimits(),
                progress=progress,
                cancel=cancel or threading.Event(),
            )
            cache.keep(key, part)
        except BuildInterruptedError as error:
            raise EngineError(f"{label} was not built: {error}.") from error
        except EngineError as error:
            cache.remember_failure(key, label, str(error))
            raise EngineError(f"{label} was not built: {error}.") from error
        finally:
            part.unlink(missing_ok=True)
    found = cache.find(key)
    if found is None:
        raise EngineError(f"The engine of {label} was removed as soon as it was built.")
    return Engine(*found, from_cache=False)
