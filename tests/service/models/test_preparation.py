"""Another runner prepared beside the work; INT8 in ONNX Runtime in an engine's place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_mil.errors import DependencyError, EdgeMilError, SessionStateError
from edge_mil.pipeline import load_model
from edge_mil.pipeline.runners import fallback
from edge_mil.pipeline.runners.verification import Check
from edge_mil.service.models.preparation import Preparations, RunnerRequest, choose_backend
from edge_mil.service.models.registry import BundleRegistry, ServedBundle
from edge_mil.service.sessions.registry import SessionRegistry
from edge_mil.session import SessionFolder, SessionSettings

DEMO = Path(__file__).parents[3] / "edge_mil" / "demo" / "bundle"
INT8 = RunnerRequest("cpu", "int8")


class Served:
    """A bundle that is served, and what was told of it."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.registry = BundleRegistry([DEMO], lambda bundle: load_model(bundle, threads=1))
        self.preparations = Preparations(folder, self.told.append)
        self.bundle: ServedBundle = self.registry.bundles[0]
        self.folder = folder

    def run(self, work: Callable[[SessionRegistry], Coroutine[Any, Any, None]]) -> None:
        """Load the bundle, do the work, let everything go."""

        async def all_of_it() -> None:
            hosts = SessionRegistry(SessionFolder(self.folder), self.registry)
            await asyncio.to_thread(self.bundle.load)
            await work(hosts)
            await hosts.release_all()

        asyncio.run(all_of_it())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.preparations.close()
    made.registry.close()


def test_a_prepared_runner_takes_over_between_two_sessions(served: Served) -> None:
    async def work(hosts: SessionRegistry) -> None:
        first = await hosts.create(served.bundle, SessionSettings(mpp=0.5))
        writer = first.attach(takeover=False)
        await served.preparations.select_engine(served.bundle, INT8)
        assert served.bundle.ready().precision == "fp32"
        await hosts.create(served.bundle, SessionSettings(mpp=0.5))
        assert served.bundle.ready().precision == "fp32"
        first.detach(writer)
        await hosts.create(served.bundle, SessionSettings(mpp=0.5))
        assert served.bundle.ready().precision == "int8"

    served.run(work)
    assert "is ready, for the next session" in served.told[-1]


def test_precision_auto_measures_on_first_use_and_never_again(served: Served) -> None:
    async def work(hosts: SessionRegistry) -> None:
        await served.preparations.select_engine(served.bundle, RunnerRequest("auto", "auto"))
        await hosts.create(served.bundle, SessionSettings(mpp=0.5))

    served.run(work)
    (kept,) = (served.folder / "tuned").glob("*.json")
    written = kept.stat().st_mtime_ns
    document = json.loads(kept.read_text())
    assert any(row["tile_ms"] for row in document["rows"])
    assert served.bundle.ready().precision == document["kept"]["graph"].split("-")[0]

    async def again(hosts: SessionRegistry) -> None:
        await served.preparations.select_engine(served.bundle, RunnerRequest("auto", "auto"))

    served.run(again)
    assert kept.stat().st_mtime_ns == written


def test_precision_auto_stays_on_the_backend_that_was_named(served: Served) -> None:
    async def work(hosts: SessionRegistry) -> None:
        await served.preparations.select_engine(served.bundle, RunnerRequest("cpu", "auto"))

    served.run(work)
    (kept,) = (served.folder / "tuned").glob("*.json")
    assert {row["name"].split()[0] for row in json.loads(kept.read_text())["rows"]} == {"cpu"}


def test_one_that_is_outside_of_the_bound_never_serves_and_the_reason_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Check("tiles", 16, 0.5, 0.02, 0.99, 0.9)
    monkeypatch.setattr(fallback, "check_runner", lambda *_: far)

    async def work(hosts: SessionRegistry) -> None:
        await served.preparations.select_engine(served.bundle, INT8)
        await hosts.create(served.bundle, SessionSettings(mpp=0.5))
        assert served.bundle.ready().precision == "fp32"
        assert "outside of the bundle's bound" in served.bundle.info().detail
        assert served.bundle.info().state == "READY"

    served.run(work)
    assert "goes on with ONNX Runtime" in served.told[-1]


def test_a_second_preparation_of_a_bundle_is_told_to_wait(served: Served) -> None:
    async def work(_: SessionRegistry) -> None:
        first = asyncio.ensure_future(served.preparations.prepare(served.bundle, INT8))
        await asyncio.sleep(0)
        with pytest.raises(SessionStateError, match="being prepared"):
            await served.preparations.prepare(served.bundle, INT8)
        assert "int8 on cpu: VERIFYING" in served.bundle.info().detail
        (await first).close()
        assert "VERIFYING" not in served.bundle.info().detail

    served.run(work)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mil.backends.tensorrt.device.find_device", lambda: None)
    assert choose_backend("auto") == "cpu"
    assert choose_backend("cpu") == "cpu"


def test_tensorrt_asked_for_by_name_and_not_installed_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise DependencyError("TensorRT is not installed.")

    monkeypatch.setattr("edge_mil.backends.tensorrt.library.find_library", missing)
    with pytest.raises(EdgeMilError, match="not installed"):
        choose_backend("tensorrt")
