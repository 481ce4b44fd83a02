"""Engines built in a process of their own by the real builder, and builds that go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from demo_graphs import DEMO, demo_graph

from edge_mil.backends.tensorrt.building.engine_builder import build_engine
from edge_mil.backends.tensorrt.building.supervisor import PROCESS, BuildLimits
from edge_mil.backends.tensorrt.device import Device
from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.library import Library
from edge_mil.errors import EngineError
from edge_mil.protocols import Graph

pytestmark = pytest.mark.trt_build
MIB = 1 << 20


def builders() -> set[int]:
    """Return the processes on this machine that build an engine for this process."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if PROCESS.encode() in command and parent == os.getpid():
            found.add(int(path.name))
    return found


def test_an_engine_is_built_with_progress_and_a_second_start_builds_nothing(
    library: Library, cache: EngineCache, int8: Recipe
) -> None:
    shares: list[float] = []
    built = build_engine(int8, library, None, cache, progress=shares.append)
    assert not built.from_cache
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 5
    changed = cache.path(int8.key(library, None)).stat().st_mtime_ns
    again: list[float] = []
    started = time.monotonic()
    found = build_engine(int8, library, None, EngineCache(cache.root), progress=again.append)
    assert time.monotonic() - started < 0.5
    assert (found.header, found.plan, found.from_cache) == (built.header, built.plan, True)
    assert again == []
    assert cache.path(int8.key(library, None)).stat().st_mtime_ns == changed
    assert {path.stat().st_mode & 0o777 for path in cache.root.iterdir()} == {0o600}


def test_a_damaged_engine_is_built_again(
    library: Library, cache: EngineCache, int8: Recipe
) -> None:
    build_engine(int8, library, None, cache)
    path = cache.path(int8.key(library, None))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    shares: list[float] = []
    build_engine(int8, library, None, cache, progress=shares.append)
    assert shares[-1] == 1
    assert path.read_bytes() != bytes(data)


def test_a_graph_in_the_uint8_dialect_is_refused_and_the_refusal_remembered(
    library: Library, cache: EngineCache
) -> None:
    wrong = Recipe(demo_graph("extractor.int8.cpu.onnx"), "int8")
    with pytest.raises(EngineError, match="Non-zero zero point is not supported"):
        build_engine(wrong, library, None, cache)
    shares: list[float] = []
    with pytest.raises(EngineError, match="engine clear forgets it"):
        build_engine(wrong, library, None, cache, progress=shares.append)
    assert shares == []
    assert list(cache.engines()) == []


def test_a_file_that_is_no_graph_is_refused(library: Library, cache: EngineCache) -> None:
    with pytest.raises(EngineError, match="refuses the graph"):
        build_engine(Recipe(Graph(b"not a graph", "x"), "fp32"), library, None, cache)


def test_a_build_over_its_time_is_stopped(
    library: Library, cache: EngineCache, fp32: Recipe
) -> None:
    with pytest.raises(EngineError, match=r"took more than 0.2 s"):
        build_engine(fp32, library, None, cache, limits=BuildLimits(seconds=0.2))
    assert_nothing_is_left(cache)
    assert cache.failure(fp32.key(library, None)) is not None


@pytest.mark.parametrize("mib", [30, 210], ids=["while loading", "while building"])
def test_a_build_over_its_memory_is_stopped(
    library: Library, cache: EngineCache, fp32: Recipe, mib: int
) -> None:
    with pytest.raises(EngineError, match=f"more than {mib} MiB of memory"):
        build_engine(fp32, library, None, cache, limits=BuildLimits(memory_bytes=mib * MIB))
    assert_nothing_is_left(cache)


def test_a_builder_killed_in_the_middle_is_a_failed_build(
    library: Library, cache: EngineCache, fp32: Recipe
) -> None:
    def kill(share: float) -> None:
        for process in builders():
            os.kill(process, signal.SIGKILL)

    with pytest.raises(EngineError, match="the builder was killed"):
        build_engine(fp32, library, None, cache, progress=kill)
    assert_nothing_is_left(cache)
    failure = cache.failure(fp32.key(library, None))
    assert failure is not None
    cache.clear({fp32.key(library, None).parts["graph"]})
    build_engine(fp32, library, None, cache)


def test_a_build_that_is_cancelled_is_not_remembered(
    library: Library, cache: EngineCache, fp32: Recipe
) -> None:
    cancel = threading.Event()
    with pytest.raises(EngineError, match="cancelled"):
        build_engine(fp32, library, None, cache, progress=lambda _: cancel.set(), cancel=cancel)
    assert_nothing_is_left(cache)
    assert cache.failure(fp32.key(library, None)) is None


def test_the_builder_ends_when_its_parent_is_killed(
    library: Library, cache: EngineCache, tmp_path: Path
) -> None:
    """A service that is killed leaves no builder behind to take the memory of the next one."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_mil.backends.tensorrt.building.engine_builder import build_engine\n"
        "from edge_mil.backends.tensorrt.engines.cache import EngineCache\n"
        "from edge_mil.backends.tensorrt.engines.recipe import Recipe\n"
        "from edge_mil.backends.tensorrt.library import find_library\n"
        "from edge_mil.protocols import Graph\n"
        "recipe = Recipe(Graph(Path(sys.argv[1]).read_bytes(), 'x'), 'fp32')\n"
        "build_engine(recipe, find_library('tensorrt_rtx'), None, EngineCache(Path(sys.argv[2])),\n"
        "    progress=lambda share: print('share', share, flush=True))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(DEMO / "extractor.onnx"), str(cache.root)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(DEMO.parents[2])},
    )
    assert parent.stdout is not None
    with parent.stdout:
        parent.stdout.readline()
        child = next(
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if (path / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(parent.pid)
        )
        parent.kill()
        parent.wait()
        ends = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and time.monotonic() < ends:
            time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
    assert list(cache.engines()) == []


def test_two_that_want_one_engine_build_it_once(
    library: Library, cache: EngineCache, int8: Recipe
) -> None:
    told: list[list[float]] = [[], []]
    threads = [
        threading.Thread(
            target=build_engine,
            args=(int8, library, None, EngineCache(cache.root)),
            kwargs={"progress": shares.append},
        )
        for shares in told
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(shares) for shares in told) == [False, True]


def test_an_engine_of_another_device_is_not_this_ones(
    library: Library, cache: EngineCache, int8: Recipe
) -> None:
    build_engine(int8, library, None, cache)
    orin = Device("Orin", "8.7", 8, 12060, 8 << 30)
    assert cache.find(int8.key(library, orin)) is None


def test_tensorrt_without_a_device_says_so_and_remembers_nothing(
    library: Library, cache: EngineCache, int8: Recipe
) -> None:
    plain = replace(library, name="tensorrt")
    with pytest.raises(EngineError, match="this machine shows none"):
        build_engine(int8, plain, None, cache)
    assert cache.failure(int8.key(plain, None)) is None


def assert_nothing_is_left(cache: EngineCache) -> None:
    """No process, no engine, no half of one."""
    assert builders() == set()
    assert list(cache.engines()) == []
    assert list(cache.root.glob("*.part")) == []
