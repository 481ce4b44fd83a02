"""Fixtures of tests over the wire: one bundle, one real service, one channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from running_service import RunningService
from small_bundle import write_small_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small").path


@pytest.fixture(scope="module", params=["unix", "tcp"])
def service(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    listen = "127.0.0.1:0" if request.param == "tcp" else ""
    running = RunningService(bundle, tmp_path_factory.mktemp("service"), listen)
    yield running
    assert running.stop() == 0


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with service.channel as opened:
        yield opened
