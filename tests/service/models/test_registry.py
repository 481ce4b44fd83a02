"""Bundles while they load, and those that cannot."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_bundle import write_small_bundle

from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, BundleNotReadyError, UnknownBundleError
from edge_mil.pipeline import Model, load_model
from edge_mil.rpc.status import retry_after_s
from edge_mil.service.models.registry import BundleRegistry, ServedBundle


class Gate:
    """A loader that waits until the test lets it go."""

    def __init__(self) -> None:
        self.open, self.reached = threading.Event(), threading.Event()

    def load(self, bundle: Bundle) -> Model:
        """Load when the gate is open."""
        self.reached.set()
        self.open.wait(30)
        return load_model(bundle)


async def ignore(_: ServedBundle) -> None:
    """Nobody is told."""


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def registry(bundle: Path, gate: Gate) -> Iterator[BundleRegistry]:
    made = BundleRegistry([bundle], gate.load)
    yield made
    gate.open.set()
    made.close()


def test_a_session_for_a_loading_bundle_is_told_when_to_come_back(
    registry: BundleRegistry, gate: Gate
) -> None:
    async def check() -> None:
        loading = asyncio.ensure_future(registry.load_all(ignore, ignore))
        await asyncio.to_thread(gate.reached.wait, 30)
        hosted = registry.pick("small", "")
        assert hosted.info().state == "STARTING"
        with pytest.raises(BundleNotReadyError) as caught:
            hosted.ready()
        assert retry_after_s(caught.value) == 1.0
        gate.open.set()
        await loading
        assert hosted.info().state == "READY"
        assert hosted.ready().precision == "fp32"

    asyncio.run(check())


def test_a_name_is_unknown_only_when_all_are_known(registry: BundleRegistry, gate: Gate) -> None:
    async def check() -> None:
        with pytest.raises(BundleNotReadyError):
            registry.pick("other", "")
        with pytest.raises(BundleNotReadyError):
            registry.by_digest("sha256:0")
        gate.open.set()
        await registry.load_all(ignore, ignore)
        with pytest.raises(UnknownBundleError, match="it has small"):
            registry.pick("other", "")
        with pytest.raises(UnknownBundleError, match="start it with that --bundle"):
            registry.by_digest("sha256:0")

    asyncio.run(check())


def test_a_bundle_that_cannot_run_says_why(tmp_path: Path) -> None:
    path = write_small_bundle(tmp_path / "small").path
    (path / "attend.onnx").write_bytes(b"nonsense")
    registry = BundleRegistry([path], load_model)

    async def check() -> None:
        with pytest.raises(BundleError, match="was changed"):
            await registry.load_all(ignore, ignore)

    asyncio.run(check())
    registry.close()
