"""The real builder of TensorRT-RTX, which builds with no driver; skipped where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_recipes import demo

from edge_mil.backends.tensorrt.cache import EngineCache
from edge_mil.backends.tensorrt.library import Library, find_library
from edge_mil.backends.tensorrt.recipe import Recipe
from edge_mil.errors import DependencyError


@pytest.fixture(scope="session")
def library() -> Library:
    """The library, or a skip that says how to get it."""
    try:
        return find_library("tensorrt_rtx")
    except DependencyError as error:
        pytest.skip(f"needs TensorRT-RTX: {error}")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """An empty cache."""
    return EngineCache(tmp_path / "engines")


@pytest.fixture(scope="session")
def int8() -> Recipe:
    """The demo extractor as TensorRT wants INT8."""
    return demo("extractor.int8.trt.onnx", "int8")


@pytest.fixture(scope="session")
def fp32() -> Recipe:
    """The demo extractor in FP32."""
    return demo("extractor.onnx", "fp32")
