"""Runners of a bundle's extractor on the CPU, as stand-ins for those of an accelerator."""

from __future__ import annotations

from edge_mil.backends import open_backend
from edge_mil.backends.batching import BatchingNetwork
from edge_mil.bundle import Bundle
from edge_mil.pipeline.runners.runner import Runner, open_variant
from edge_mil.pipeline.runners.variants import find_variant, named_variants
from edge_mil.testing.backend import NetworkExecutor


def cpu_runner(bundle: Bundle, precision: str) -> Runner:
    """Return a new runner on one thread of the CPU; the caller closes it, or switches to it."""
    variant = find_variant(bundle, "cpu", precision)
    return open_variant(bundle, variant, open_backend("cpu", threads=1))


def engine_in_place(executor: NetworkExecutor, precision: str, **batching: float) -> Runner:
    """Return a runner that says it is a TensorRT engine, on an executor of a test."""
    network = BatchingNetwork(lambda: executor, label="engine", **batching)
    return Runner(network, named_variants("tensorrt", precision)[0], "an engine")
