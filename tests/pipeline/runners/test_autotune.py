from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_bundle import write_small_bundle

from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle, open_bundle
from edge_mil.errors import BundleError, FrameError, UsageError
from edge_mil.pipeline import Model
from edge_mil.pipeline.runners.autotune import Row, Tuning, _best, tune
from edge_mil.pipeline.runners.runner import Runner
from edge_mil.pipeline.runners.tuned_choice import TunedStore
from edge_mil.pipeline.runners.variants import (
    GRAPHS,
    RunnerVariant,
    find_variant,
    list_variants,
    open_variant,
)
from edge_mil.pipeline.runners.verification import Check

DEMO = Path(__file__).resolve().parents[3] / "edge_mil" / "demo" / "bundle"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle(DEMO)


@pytest.fixture
def model(demo: Bundle) -> Iterator[Model]:
    loaded = Model.load(demo, threads=1)
    yield loaded
    loaded.close()


def row(backend: str, graph: str, cost: float, reason: str = "") -> Row:
    way = RunnerVariant(backend, graph)
    check = Check("tiles", 4, 0.0, 0.02, 1.0, 0.9)
    return Row(str(way), way, backend, way.precision, (cost, cost), check, reason, (1, 8))


def test_every_graph_of_the_bundle_has_its_ways(demo: Bundle) -> None:
    ways = list_variants(demo)
    assert RunnerVariant("cpu", "int8-cpu") in ways
    assert RunnerVariant("tensorrt", "int8-trt") in ways
    assert RunnerVariant("cpu", "int8-trt") not in ways  # slower than FP32 there
    assert {way.backend for way in ways} == set(GRAPHS)


def test_tuning_measures_what_the_device_has_and_says_why_the_rest_is_not_there(
    model: Model,
) -> None:
    seen: list[str] = []
    tuning = tune(model, threads=1, rounds=2, batches=(1, 2), on_way=seen.append)
    found = {r.name: r for r in tuning.rows}
    here = found["cpu fp32"]
    assert here.tile_ms
    assert here.check is not None
    assert here.check.holds
    assert len(here.tile_ms) == 2
    missing = found["tensorrt fp32"]
    assert not missing.tile_ms
    assert missing.reason
    assert tuning.clock == "CPU time"
    assert seen[-1] == "timing in turn"
    assert found[str(tuning.kept)].cost_ms <= 1.02 * min(r.cost_ms for r in found.values())


def test_a_peer_is_timed_and_never_kept(model: Model) -> None:
    tuning = tune(model, threads=1, rounds=2, batches=(1,), peers={"nothing": lambda tiles: None})
    peer = next(r for r in tuning.rows if r.name == "nothing")
    assert peer.cost_ms < min(r.cost_ms for r in tuning.rows if r.way is not None)
    assert not peer.may_serve
    assert str(tuning.kept) != "nothing"


def test_the_fastest_within_the_bound_is_kept_and_fp32_when_nothing_is_clearly_faster(
    model: Model,
) -> None:
    exact = row("cpu", "fp32", 10.0)
    assert _best([exact, row("cpu", "int8-cpu", 3.0)], model) == RunnerVariant("cpu", "int8-cpu")
    assert _best([exact, row("cpu", "int8-cpu", 9.9)], model) == RunnerVariant("cpu", "fp32")
    outside = row("cpu", "int8-cpu", 3.0, "outside of the bound")
    assert _best([exact, outside, row("openvino", "int8-cpu", 4.0)], model) == RunnerVariant(
        "openvino", "int8-cpu"
    )
    with pytest.raises(BundleError, match="within its bound"):
        _best([outside], model)


def test_the_batch_of_a_whole_field_decides() -> None:
    way = RunnerVariant("cpu", "fp32")
    quick_alone = Row("a", way, tile_ms=(1.0, 4.0, 4.0), batches=(1, 8, 32))
    quick_together = Row("b", way, tile_ms=(6.0, 3.9, 3.8), batches=(1, 8, 32))
    assert quick_together.cost_ms < quick_alone.cost_ms


def test_a_way_whose_features_are_wrong_is_measured_and_not_kept(
    tmp_path: Path, demo: Bundle
) -> None:
    other = write_small_bundle(tmp_path / "small", seed=1)
    wrong = write_small_bundle(tmp_path / "wrong", seed=2)
    # The graph of another extractor under the name of this one's INT8 form.
    folder = tmp_path / "small"
    (folder / "extractor.int8.cpu.onnx").write_bytes(wrong.read("extractor.onnx"))
    described = json.loads((folder / "bundle.json").read_text())
    described["extractor"]["graphs"]["int8-cpu"] = "extractor.int8.cpu.onnx"
    described["files"]["extractor.int8.cpu.onnx"] = wrong.manifest.files["extractor.onnx"]
    (folder / "bundle.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    del other
    loaded = Model.load(open_bundle(folder), threads=1)
    try:
        tuning = tune(loaded, threads=1, rounds=1, batches=(1,))
    finally:
        loaded.close()
    bad = next(r for r in tuning.rows if r.name == "cpu int8-cpu")
    assert bad.tile_ms
    assert bad.reason.startswith("outside of the bound")
    assert tuning.kept.graph == "fp32"


def test_openvino_gives_the_features_of_onnx_runtime_at_true_fp32(demo: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    data = demo.read("extractor.onnx")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    exact = open_backend("cpu", threads=1).load(data, label="x").run({"tiles": tiles})["features"]
    network = open_backend("openvino", threads=1).load(data, label="x")
    found = network.run({"tiles": tiles})["features"]
    # BF16, its silent default on some CPUs, is 100 times further away.
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    before = found.copy()
    network.run({"tiles": tiles[:1]})
    assert np.array_equal(found, before)
    strided = network.run({"tiles": np.ascontiguousarray(tiles[:, :, ::-1])[:, :, ::-1]})
    assert np.array_equal(strided["features"], found)
    with pytest.raises(FrameError, match="wants tiles"):
        network.run({"tiles": tiles.astype(np.float32)})


def test_what_a_backend_does_not_run_is_said(demo: Bundle, tmp_path: Path) -> None:
    assert find_variant(demo, "openvino", "int8") == RunnerVariant("openvino", "int8-cpu")
    with pytest.raises(UsageError, match="cpu does not run fp16; it runs fp32, int8"):
        find_variant(demo, "cpu", "fp16")
    with pytest.raises(UsageError, match="no backend 'gpu'"):
        find_variant(demo, "gpu", "fp32")
    with pytest.raises(UsageError, match="no precision 'int4'"):
        find_variant(demo, "cpu", "int4")
    with pytest.raises(BundleError, match="no int8 extractor"):
        find_variant(write_small_bundle(tmp_path / "small"), "cpu", "int8")


def test_a_choice_is_read_back_and_dropped_when_the_device_changes(
    tmp_path: Path, demo: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning((row("cpu", "fp32", 1.0),), RunnerVariant("cpu", "fp32"), (1, 8), 3, "CPU time")
    folder = TunedStore(tmp_path)
    assert folder.load(demo) is None
    folder.save(demo, tuning, 1)
    found = folder.load(demo)
    assert found is not None
    assert found.way == tuning.kept
    assert folder.all() == [found.document]
    monkeypatch.setattr("edge_mil.pipeline.runners.tuned_choice.processor", lambda: "another board")
    assert folder.load(demo) is None
    monkeypatch.undo()
    folder.path(demo).write_text("{")
    assert folder.load(demo) is None
    assert folder.all() == []


def test_a_way_runs_what_its_name_says(demo: Bundle) -> None:
    runner: Runner = open_variant(demo, RunnerVariant("cpu", "int8-cpu"), threads=1)
    assert runner.precision == "int8"
    assert "ONNX Runtime" in runner.backend
    runner.network.close()
