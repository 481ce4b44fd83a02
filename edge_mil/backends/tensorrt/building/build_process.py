"""The builder's own process: reads one ONNX graph, writes one engine file, and ends.

`supervisor` starts it by its module name, with REPORTS and LIFE as arguments; a person never does.
Both are file descriptors: one JSON object a line goes out through the first, and when the second
ends the parent is gone. The job, one JSON line, and the graph come through the standard input. A
builder that crashes or takes all memory harms no other process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_mil.backends.tensorrt.building.progress import BuildProgress
from edge_mil.backends.tensorrt.building.timings import read_timings, write_timings
from edge_mil.backends.tensorrt.engines.engine_file import write_engine
from edge_mil.backends.tensorrt.engines.recipe import BatchProfile, EngineKey
from edge_mil.backends.tensorrt.library import Library, find_library
from edge_mil.errors import EdgeMilError, EngineError

Report = Callable[[dict[str, object]], None]

FAILED = 3
NICENESS = 10
"""Live fields go first: the service runs on the same cores."""
OOM_SCORE = "1000"
"""When memory runs out the system ends the builder, not the service."""
NO_DRIVER = "cudaError 35"
"""In messages of a machine without a driver, where it is harmless: nothing is run there."""
PARSED_SHARE = 0.05
"""Share of a build that parsing the graph counts for."""
STEP = 0.01
"""Smallest growth of the share that is reported."""
NAMED_ERRORS = 3
MAX_ERROR_CHARS = 300


def main() -> int:
    """Build what the standard input asks for; return the exit code."""
    reports, life = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()

    def report(message: dict[str, object]) -> None:
        os.write(reports, (json.dumps(message) + "\n").encode())

    job = json.loads(sys.stdin.buffer.readline())
    model = sys.stdin.buffer.read()
    _lower_priority()
    try:
        _build(job, model, report)
    except EdgeMilError as error:
        report({"failed": str(error).rstrip(".")})
        return FAILED
    except OSError as error:
        report({"passing": f"the engine cannot be written ({error.strerror})"})
        return FAILED
    return 0


def _build(job: dict[str, Any], model: bytes, report: Report) -> None:
    library = find_library(job["library"])
    _limit_allocation(job["allocation_bytes"])
    started = time.time()
    errors: list[str] = []
    logger = library.logger(errors.append)
    try:
        builder = library.module.Builder(logger)
    except TypeError as error:  # what its binding makes of a null pointer
        why = _last_error(errors) or str(error)
        report({"passing": f"{library.title} does not start on this device ({why})"})
        sys.exit(FAILED)
    network = builder.create_network(library.network_flags())
    _parse(library, network, logger, model)
    report({"share": PARSED_SHARE})
    config = builder.create_builder_config()
    _configure(library, network, builder, config, job)
    timings = Path(job["timings"])
    if library.has_timing_cache:
        _take_timings(timings, config)
    if library.has_progress:
        config.progress_monitor = _monitor(library.module, report)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(_last_error(errors) or "the builder gave no plan and no reason")
    if library.has_timing_cache:
        _keep_timings(timings, config)
    key = EngineKey(job["key"])
    with Path(job["part"]).open("wb") as file:
        seconds = time.time() - started
        write_engine(file, key, job["label"], memoryview(plan).cast("B"), time.time(), seconds)
    report({"share": 1.0})


def _parse(library: Library, network: Any, logger: Any, model: bytes) -> None:
    parser = library.module.OnnxParser(network, logger)
    if parser.parse(model):
        return
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    reasons = "; ".join(
        f"{e.node_name() or e.node_operator() or 'the graph'}: {_one_line(e.desc())}"
        for e in errors[:NAMED_ERRORS]
    )
    raise EngineError(f"{library.title} refuses the graph ({reasons or 'no reason given'})")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_ERROR_CHARS].rstrip(".")


def _configure(
    library: Library, network: Any, builder: Any, config: Any, job: dict[str, Any]
) -> None:
    config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, job["workspace_bytes"])
    config.builder_optimization_level = job["optimisation_level"]
    batches = BatchProfile(*job["profile"])
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        profile.set_shape(tensor.name, *batches.shapes(tuple(tensor.shape)))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{library.title} refuses the batch sizes {job['profile']}")


def _monitor(module: Any, report: Report) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc] # known when it runs
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._progress, self._reported = BuildProgress(), PARSED_SHARE

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._progress.start(name, parent, steps)

        def step_complete(self, name: str, number: int) -> bool:
            return self._report(self._progress.step(name, number))

        def phase_finish(self, name: str) -> None:
            self._report(self._progress.finish(name))

        def _report(self, share: float) -> bool:
            """Report the share; return False, which ends the build, when the parent is gone."""
            if share >= self._reported + STEP:
                self._reported = share
                with contextlib.suppress(BrokenPipeError):
                    report({"share": share})
                    return True
                return False
            return True

    return Monitor()


def _take_timings(path: Path, config: Any) -> None:
    """Let the builder use the timings of earlier builds; drop those that it does not take."""
    cache = config.create_timing_cache(read_timings(path))
    if cache is None or not config.set_timing_cache(cache, False):
        path.unlink(missing_ok=True)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(path: Path, config: Any) -> None:
    """Keep the timings of kernels; without them the next build is slower, and no less right."""
    cache = config.get_timing_cache()
    if cache is not None:
        with contextlib.suppress(OSError):
            write_timings(path, bytes(cache.serialize()))


def _last_error(errors: list[str]) -> str:
    lines = [error.strip().splitlines()[0] for error in errors if NO_DRIVER not in error]
    return lines[-1][:MAX_ERROR_CHARS] if lines else ""


def _lower_priority() -> None:
    """Let other processes go first on the CPU, and be ended first when memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def _limit_allocation(allocation_bytes: int | None) -> None:
    """Limit the memory that is allocated from now on; the library itself is loaded before."""
    if allocation_bytes is not None:
        with contextlib.suppress(ImportError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (allocation_bytes, allocation_bytes))


def _end_with_parent(life: int) -> None:
    """End at once when the parent ends, even by SIGKILL: nobody would take the engine."""
    os.read(life, 1)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
