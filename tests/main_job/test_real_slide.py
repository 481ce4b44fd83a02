"""A real slide with the real extractor: every way to read it ends on the same score."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_service import RunningService
from shared_data import shared

pytestmark = [pytest.mark.shared, pytest.mark.slow]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def slide() -> Path:
    return shared("data/slides/cmu1_small_region.svs")


@pytest.fixture(scope="module")
def service(
    tile_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    running = RunningService(tile_bundle, tmp_path_factory.mktemp("service"))
    yield running
    assert running.stop() == 0


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    assert found["instances"] == wanted["instances"]
    assert found["bundle"] == wanted["bundle"]
    logits = np.array(wanted["score"]["logits"])
    limit = 1e-4 * max(1.0, float(np.abs(logits).max()))
    return bool(np.abs(np.array(found["score"]["logits"]) - logits).max() <= limit)


PASSES = {
    "serpentine, a tenth of overlap": ["--overlap", "0.1"],
    "serpentine, no overlap": ["--overlap", "0"],
    "random order": ["--path", "random", "--seed", "4"],
    "small fields": ["--fov", "640x480", "--overlap", "0"],
    "the whole slide twice": ["--passes", "2"],
}


@pytest.mark.parametrize("options", PASSES.values(), ids=PASSES.keys())
def test_every_pass_ends_on_the_score_of_the_whole_slide(
    options: list[str], edge_mil: Run, tile_bundle: Path, slide: Path, service: RunningService
) -> None:
    wanted = edge_mil("slide", tile_bundle, slide)
    assert wanted["instances"] > 150
    live = edge_mil("stream", slide, "--server", service.address, *options)
    assert same(live, wanted)
    assert live["coverage"] == 1.0


def test_staring_for_three_hundred_frames_changes_nothing(
    edge_mil: Run, tile_bundle: Path, slide: Path, service: RunningService
) -> None:
    wanted = edge_mil("slide", tile_bundle, slide)
    hover = ["--path", "hover", "--frames", "300"]
    live = edge_mil("stream", slide, "--server", service.address, *hover)
    assert same(live, wanted)
    assert live["fields"]["DUPLICATE"] == 300


def test_a_killed_service_costs_nothing(
    edge_mil: Run, tile_bundle: Path, slide: Path, tmp_path: Path
) -> None:
    wanted = edge_mil("slide", tile_bundle, slide)
    running = RunningService(tile_bundle, tmp_path)
    try:

        def kill_half_way() -> None:
            folder = tmp_path / "state" / "sessions"
            while not list(folder.glob("*/session.db")):
                time.sleep(0.01)
            time.sleep(1.0)
            running.kill()
            time.sleep(0.5)
            running.start()

        killer = threading.Thread(target=kill_half_way)
        killer.start()
        options = ["--fov", "400x400", "--overlap", "0", "--fps", "20"]
        live = edge_mil("stream", slide, "--server", running.address, *options)
        killer.join()
        assert same(live, wanted)
        assert live["coverage"] == 1.0
    finally:
        running.stop()
