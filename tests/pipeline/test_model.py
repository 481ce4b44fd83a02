"""A bundle that runs: its graphs, its errors, the same answers from every thread count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_bundle import FEATURES, VALUES, write_small_bundle

from edge_mil.backends import open_backend
from edge_mil.bundle import open_bundle
from edge_mil.demo.run import BUNDLE
from edge_mil.errors import (
    BundleError,
    FrameError,
    InvalidFeaturesError,
    UsageError,
)
from edge_mil.pipeline import Model, load_model
from edge_mil.protocols import Graph


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_small_bundle(tmp_path_factory.mktemp("m") / "b", channels=2))


def tiles(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 255, (n, 64, 64, 3), dtype=np.uint8)


def test_features_do_not_depend_on_the_batch(model: Model) -> None:
    many = model.extract(tiles(70))
    assert (many.dtype, many.shape) == (np.float32, (70, FEATURES))
    one_by_one = np.concatenate([model.extract(tile[None]) for tile in tiles(70)])
    np.testing.assert_allclose(many, one_by_one, atol=1e-5)


def test_no_tiles_and_no_features_are_legal(model: Model) -> None:
    features = model.extract(tiles(0))
    batch = model.attend(features)
    assert (batch.embeddings.shape, batch.attention_logits.shape) == ((0, VALUES), (0, 2))


def test_features_of_another_width_are_refused(model: Model) -> None:
    with pytest.raises(InvalidFeaturesError, match=r"\(3, 7\).*\(n, 16\)"):
        model.attend(np.zeros((3, 7), np.float32))


def test_a_feature_that_is_not_finite_is_refused_with_its_row(model: Model) -> None:
    features = np.zeros((5, FEATURES), np.float32)
    features[3, 2] = np.nan
    with pytest.raises(InvalidFeaturesError, match="Row 3"):
        model.attend(features)


def test_tiles_of_another_size_or_type_are_refused(model: Model) -> None:
    with pytest.raises(FrameError, match="wants tiles as uint8"):
        model.extract(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(FrameError, match="got float32"):
        model.extract(np.zeros((1, 64, 64, 3), np.float32))  # type: ignore[arg-type]


def test_what_a_bundle_lacks_is_said(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="no int8 extractor"):
        load_model(bundle, precision="int8")
    with pytest.raises(UsageError, match="no precision 'int4'"):
        load_model(bundle, precision="int4")
    alone = load_model(write_small_bundle(tmp_path / "a", extractor=False))
    with pytest.raises(BundleError, match="no extractor"):
        alone.extract(tiles(1))


def test_another_backend_is_verified_and_has_the_cpu_behind_it() -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    loaded = load_model(open_bundle(BUNDLE), backend="openvino", precision="int8", threads=1)
    assert loaded.extractor is not None
    assert str(loaded.extractor.current.variant) == "openvino int8-cpu"
    assert str(loaded.extractor.first.variant) == "cpu fp32"
    assert (loaded.precision, loaded.backend.split()[0]) == ("int8", "OpenVINO")
    loaded.close()


def test_backends_are_asked_for_by_name() -> None:
    assert "ONNX Runtime" in open_backend("cpu", threads=1).describe()
    with pytest.raises(UsageError, match="keeps its engines in a folder"):
        open_backend("tensorrt")
    with pytest.raises(UsageError, match="no backend 'abacus'"):
        open_backend("abacus")


def test_a_graph_that_is_no_graph_is_refused_in_a_sentence() -> None:
    with pytest.raises(BundleError, match="cannot load x"):
        open_backend("cpu").open(Graph(b"not a graph", "x"))
