"""The real builder of TensorRT-RTX, which builds with no driver; skipped where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_graphs import demo_graph

from edge_mil.backends.tensorrt.engines.cache import EngineCache
from edge_mil.backends.tensorrt.engines.recipe import Recipe
from edge_mil.backends.tensorrt.library import Library, find_library
from edge_mil.errors import DependencyError

BUILT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def library() -> Library:
    """The library, or a skip that says how to get it."""
    try:
        return find_library("tensorrt_rtx")
    except DependencyError as error:
        pytest.skip(f"needs TensorRT-RTX: {error}")


@pytest.fixture(scope="session")
def built(pytestconfig: pytest.Config) -> list[str]:
    """Lines on what was built; shown at the end."""
    return pytestconfig.stash.setdefault(BUILT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show what was built: the table of docs/engines.md comes from here."""
    lines = config.stash.get(BUILT, [])
    if lines:
        terminalreporter.section("engines built")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """An empty cache."""
    return EngineCache(tmp_path / "engines")


@pytest.fixture(scope="session")
def int8() -> Recipe:
    """The demo extractor as TensorRT wants INT8."""
    return Recipe(demo_graph("extractor.int8.trt.onnx"), "int8")


@pytest.fixture(scope="session")
def fp32() -> Recipe:
    """The demo extractor in FP32."""
    return Recipe(demo_graph("extractor.onnx"), "fp32")
