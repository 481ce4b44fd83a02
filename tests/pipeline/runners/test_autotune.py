from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_bundle import write_small_bundle

from edge_mil.backends import BACKENDS, open_backend
from edge_mil.bundle import Bundle, open_bundle
from edge_mil.errors import BundleError, UsageError
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.runners.autotune import Row, Tuning, _best, tune
from edge_mil.pipeline.runners.fallback import list_candidates
from edge_mil.pipeline.runners.runner import open_variant
from edge_mil.pipeline.runners.tuned_choice import TunedStore
from edge_mil.pipeline.runners.variants import (
    VARIANTS,
    RunnerVariant,
    find_variant,
    list_variants,
)
from edge_mil.pipeline.runners.verification import Check
from edge_mil.protocols import Backend

DEMO = Path(__file__).resolve().parents[3] / "edge_mil" / "demo" / "bundle"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle(DEMO)


@pytest.fixture
def model(demo: Bundle) -> Iterator[Model]:
    loaded = load_model(demo, threads=1)
    yield loaded
    loaded.close()


def backends(name: str) -> Backend:
    """Open a backend as a device with one thread and no folder for engines."""
    return open_backend(name, threads=1)


def variant(name: str) -> RunnerVariant:
    """Return a variant by its name, as "cpu int8-cpu"."""
    return next(one for one in VARIANTS if str(one) == name)


def row(name: str, cost: float, reason: str = "") -> Row:
    check = Check("tiles", 4, 0.0, 0.02, 1.0, 0.9)
    return Row(name, variant(name), "", (cost, cost), check, reason, (1, 8))


def test_every_graph_of_the_bundle_has_its_variants(demo: Bundle) -> None:
    found = list_variants(demo)
    assert RunnerVariant("cpu", "int8", "int8-cpu") in found
    assert RunnerVariant("tensorrt", "int8", "int8-trt") in found
    assert "cpu int8-trt" not in map(str, found)  # slower than FP32 there
    assert {one.backend for one in found} == set(BACKENDS)


def test_tensorrt_falls_back_to_slower_precisions_and_other_backends_run_what_was_asked_for(
    demo: Bundle,
) -> None:
    wanted = [str(one) for one in list_candidates(demo, "tensorrt", "int8")]
    assert wanted == ["tensorrt int8-trt", "tensorrt fp16", "tensorrt fp32"]
    assert list_candidates(demo, "tensorrt", "fp32") == [variant("tensorrt fp32")]
    assert list_candidates(demo, "openvino", "int8") == [variant("openvino int8-cpu")]
    with pytest.raises(UsageError, match="no precision 'int4'"):
        list_candidates(demo, "tensorrt", "int4")


def test_tuning_measures_what_the_device_has_and_says_why_the_rest_is_not_there(
    model: Model,
) -> None:
    seen: list[str] = []
    tuning = tune(model, backends, rounds=2, batches=(1, 2), on_step=seen.append)
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
    tuning = tune(model, backends, rounds=2, batches=(1,), peers={"nothing": lambda tiles: None})
    peer = next(r for r in tuning.rows if r.name == "nothing")
    assert peer.cost_ms < min(r.cost_ms for r in tuning.rows if r.variant is not None)
    assert not peer.may_serve
    assert str(tuning.kept) != "nothing"


def test_the_fastest_within_the_bound_is_kept_and_fp32_when_nothing_is_clearly_faster(
    model: Model,
) -> None:
    exact = row("cpu fp32", 10.0)
    demo = model.bundle
    assert str(_best([exact, row("cpu int8-cpu", 3.0)], demo)) == "cpu int8-cpu"
    assert str(_best([exact, row("cpu int8-cpu", 9.9)], demo)) == "cpu fp32"
    outside = row("cpu int8-cpu", 3.0, "outside of the bound")
    best = _best([exact, outside, row("openvino int8-cpu", 4.0)], demo)
    assert str(best) == "openvino int8-cpu"
    with pytest.raises(BundleError, match="within its bound"):
        _best([outside], demo)


def test_the_batch_of_a_whole_field_decides() -> None:
    exact = variant("cpu fp32")
    quick_alone = Row("a", exact, tile_ms=(1.0, 4.0, 4.0), batches=(1, 8, 32))
    quick_together = Row("b", exact, tile_ms=(6.0, 3.9, 3.8), batches=(1, 8, 32))
    assert quick_together.cost_ms < quick_alone.cost_ms


def test_a_variant_whose_features_are_wrong_is_measured_and_not_kept(
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
    loaded = load_model(open_bundle(folder), threads=1)
    try:
        tuning = tune(loaded, backends, rounds=1, batches=(1,))
    finally:
        loaded.close()
    bad = next(r for r in tuning.rows if r.name == "cpu int8-cpu")
    assert bad.tile_ms
    assert bad.reason.startswith("outside of the bound")
    assert tuning.kept.graph == "fp32"


def test_what_a_backend_does_not_run_is_said(demo: Bundle, tmp_path: Path) -> None:
    assert find_variant(demo, "openvino", "int8") == variant("openvino int8-cpu")
    with pytest.raises(UsageError, match="cpu does not run fp16; it runs fp32, int8"):
        find_variant(demo, "cpu", "fp16")
    with pytest.raises(UsageError, match="no backend 'gpu'"):
        find_variant(demo, "gpu", "fp32")
    with pytest.raises(UsageError, match="no precision 'int4'"):
        find_variant(demo, "cpu", "int4")
    with pytest.raises(BundleError, match="no int8 extractor"):
        find_variant(write_small_bundle(tmp_path / "small"), "cpu", "int8")


def test_a_tuned_variant_is_read_back_and_dropped_when_the_device_changes(
    tmp_path: Path, demo: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning((row("cpu fp32", 1.0),), variant("cpu fp32"), (1, 8), 3, "CPU time")
    store = TunedStore(tmp_path)
    assert store.load(demo) is None
    store.save(demo, tuning, 1)
    found = store.load(demo)
    assert found is not None
    assert found.variant == tuning.kept
    assert store.all() == [found.document]
    monkeypatch.setattr("edge_mil.pipeline.runners.tuned_choice.processor", lambda: "another board")
    assert store.load(demo) is None
    monkeypatch.undo()
    store.path(demo).write_text("{")
    assert store.load(demo) is None
    assert store.all() == []


def test_a_variant_runs_what_its_name_says(demo: Bundle) -> None:
    runner = open_variant(demo, variant("cpu int8-cpu"), backends("cpu"))
    assert runner.precision == "int8"
    assert "ONNX Runtime" in runner.description
    runner.close()
