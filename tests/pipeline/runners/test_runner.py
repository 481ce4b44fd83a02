"""Runners of the extractor: changed between two fields, lost in the middle of one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from cpu_runner import cpu_runner, engine_in_place

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.errors import BackendLostError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.verification import Check, check_runner, generated_tiles
from edge_mil.protocols import Arrays
from edge_mil.testing.backend import BreakingExecutor, NetworkExecutor
from edge_mil.types import Float32Array, UInt8Array

DEMO = Path(__file__).parents[3] / "edge_mil" / "demo" / "bundle"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle(DEMO)


@pytest.fixture
def model(demo: Bundle) -> Iterator[Model]:
    made = load_model(demo, threads=1)
    yield made
    made.close()


def tiles(count: int) -> UInt8Array:
    return np.random.default_rng(1).integers(60, 255, (count, 128, 128, 3), dtype=np.uint8)


def extracted(model: Model, count: int) -> tuple[Float32Array, str]:
    """Return the features of some tiles, and the name of what made them."""
    features, runner = model.extract_by(tiles(count))
    assert runner is not None
    return features, runner.name


def test_a_switch_takes_effect_with_the_next_field_and_says_who_made_it(model: Model) -> None:
    extractor = model.extractor
    assert extractor is not None
    before, by = extracted(model, 3)
    extractor.switch(cpu_runner(model.bundle, "int8"))
    after, then = extracted(model, 3)
    assert by.startswith("fp32, ONNX Runtime")
    assert then.startswith("int8, ONNX Runtime")
    assert model.precision == "int8"
    assert not np.array_equal(before, after)
    extractor.switch(extractor.first)
    assert np.array_equal(model.extract(tiles(3)), before)


def test_a_runner_lost_in_the_middle_of_a_field_costs_no_field(
    model: Model, demo: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    extractor = model.extractor
    assert extractor is not None
    wanted = model.extract(tiles(40))
    int8 = cpu_runner(model.bundle, "int8")
    extractor.switch(engine_in_place(BreakingExecutor(int8.network, 32, batches=1), "int8"))
    found, by = extracted(model, 40)  # the second of its two batches is lost
    assert np.array_equal(found, wanted)
    assert by.startswith("fp32")
    assert "fell off the bus; fields go on with fp32" in caplog.text
    assert np.array_equal(model.extract(tiles(40)), wanted)


def test_a_runner_is_closed_when_its_last_field_is_done(model: Model) -> None:
    extractor = model.extractor
    assert extractor is not None
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    int8 = cpu_runner(model.bundle, "int8")

    class Slow(NetworkExecutor):
        def finish(self, slot: int) -> dict[str, Float32Array]:
            inside.set()
            go_on.wait(10)
            return super().finish(slot)

        def close(self) -> None:
            closed.set()

    extractor.switch(engine_in_place(Slow(int8.network, 32), "int8"))
    found: list[str] = []
    field = threading.Thread(target=lambda: found.append(extracted(model, 2)[1]))
    field.start()
    assert inside.wait(10)
    extractor.switch(extractor.first)
    assert extracted(model, 2)[1].startswith("fp32")
    assert not closed.is_set()
    go_on.set()
    field.join(10)
    assert closed.wait(10)
    assert found == ["int8, an engine"]


def test_a_runner_that_never_served_is_closed_and_the_first_one_is_not(model: Model) -> None:
    extractor = model.extractor
    assert extractor is not None
    waiting = cpu_runner(model.bundle, "int8")
    extractor.discard(waiting)
    with pytest.raises(BackendLostError, match="is closed"):
        waiting.features(tiles(1))
    extractor.discard(extractor.first)
    assert model.extract(tiles(1)).shape[0] == 1


def test_sessions_side_by_side_share_the_batches_of_an_accelerator(model: Model) -> None:
    extractor = model.extractor
    assert extractor is not None
    wanted = model.extract(tiles(4))
    other = cpu_runner(model.bundle, "fp32")
    batches: list[int] = []

    class Counting(NetworkExecutor):
        def start(self, slot: int, parts: Sequence[Arrays]) -> None:
            batches.append(sum(len(part["tiles"]) for part in parts))
            super().start(slot, parts)

    extractor.switch(engine_in_place(Counting(other.network, 32), "fp32", deadline_s=0.5))
    together = threading.Barrier(4)

    def session(found: list[Float32Array]) -> None:
        for _ in range(3):
            together.wait(30)
            found.append(model.extract(tiles(4)))

    sessions: list[list[Float32Array]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=session, args=(found,)) for found in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(batches) == 48
    assert len(batches) < 12
    for found in sessions:
        assert all(np.allclose(features, wanted, atol=1e-5) for features in found)


def test_the_last_runner_lost_is_an_error(demo: Bundle) -> None:
    cpu = load_model(demo, threads=1)
    runner = cpu_runner(demo, "fp32")
    broken = engine_in_place(BreakingExecutor(runner.network, 32, batches=0), "fp32")
    alone = Model(demo, broken, None, cpu.aggregator)
    with pytest.raises(BackendLostError, match="fell off the bus"):
        alone.extract(tiles(1))
    alone.close()
    cpu.close()


def test_int8_of_the_demo_holds_its_bound_and_the_fp32_graph_is_itself(model: Model) -> None:
    int8 = check_runner(model, cpu_runner(model.bundle, "int8"))
    assert int8.holds, int8.sentence()
    assert int8.score_difference is not None
    fp32 = check_runner(model, cpu_runner(model.bundle, "fp32"))
    assert fp32.holds
    assert fp32.cosine > 0.999999


def test_a_runner_that_gives_other_features_is_refused(model: Model) -> None:
    other = cpu_runner(model.bundle, "fp32")

    class Wrong(NetworkExecutor):
        def finish(self, slot: int) -> dict[str, Float32Array]:
            return {n: np.flip(a, axis=1).copy() for n, a in super().finish(slot).items()}

    wrong = engine_in_place(Wrong(other.network, 32), "fp32")
    check = check_runner(model, wrong)
    wrong.close()
    assert not check.holds


@pytest.mark.parametrize("numbers", [(float("nan"), 0.999), (0.001, float("nan")), (0.03, 0.999)])
def test_a_check_that_is_not_a_number_or_over_the_bound_never_holds(
    numbers: tuple[float, float],
) -> None:
    assert not Check("tiles", 16, numbers[0], 0.02, numbers[1], 0.9).holds


def test_generated_tiles_are_the_same_at_each_call(model: Model) -> None:
    assert np.array_equal(generated_tiles(model.bundle), generated_tiles(model.bundle))
    assert generated_tiles(model.bundle).shape == (16, 128, 128, 3)
