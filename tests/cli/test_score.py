"""`edge-mil score`: streams, operations, attention, and mistakes in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundle import FEATURES, write_small_bundle

from edge_mil.cli import main

CHANNELS = 3


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "bundle", channels=CHANNELS, tile_px=16).path


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    features = np.random.default_rng(0).standard_normal((40, FEATURES)).astype(np.float32)
    np.savez(tmp_path / "bag.npz", features=features)
    return tmp_path / "bag.npz"


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["score", *map(str, words), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that ends with exit code 2; returns the sentence."""

    def run(*words: object) -> str:
        capsys.readouterr()
        try:
            code = main(["score", *map(str, words)])
        except SystemExit as error:
            code = int(str(error.code))
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert said.err.strip().count("\n") == 0
        return said.err

    return run


def part(bag: Path, rows: Any, name: str = "part.npz") -> Path:
    path = bag.with_name(name)
    np.savez(path, features=np.load(bag)["features"][rows])
    return path


def logits(document: dict[str, Any]) -> Any:
    return pytest.approx(document["score"]["logits"], abs=1e-6)


@pytest.mark.parametrize(
    "words",
    [["--stream", 1], ["--stream", 7, "--shuffle", 3], ["--stream", 1000], ["--shuffle", 0]],
)
def test_any_arrival_gives_the_score_of_the_bag(
    words: list[object], bundle: Path, bag: Path, score: Any
) -> None:
    whole, streamed = score(bundle, bag), score(bundle, bag, *words)
    assert streamed["score"]["logits"] == logits(whole)
    assert streamed["instances"] == whole["instances"] == 40
    assert whole["bundle"].startswith("sha256:")
    assert sum(whole["score"]["probabilities"]) == pytest.approx(1)
    assert "attention" not in whole


def test_attention_is_in_the_order_of_the_file(bundle: Path, bag: Path, score: Any) -> None:
    plain = score(bundle, bag, "--attention")["attention"]
    shuffled = score(bundle, bag, "--attention", "--stream", 3, "--shuffle", 5)["attention"]
    assert np.asarray(plain).shape == (CHANNELS, 40)
    assert np.asarray(plain).sum(axis=1) == pytest.approx(np.ones(CHANNELS), abs=1e-5)
    assert np.asarray(shuffled) == pytest.approx(np.asarray(plain), abs=1e-6)


def test_operations_print_a_score_after_each(
    bundle: Path, bag: Path, score: Any, tmp_path: Path
) -> None:
    operations = [
        {"op": "add", "field": 4, "rows": [0, 1, 2], "expect": "anything"},
        {"op": "add", "field": 2, "rows": [3, 4]},
        {"op": "add", "field": 2, "rows": [3, 4]},
        {"op": "replace", "field": 4, "rows": [10, 11]},
        {"op": "remove", "field": 2},
        {"op": "remove", "field": 4},
    ]
    held = [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [10, 11, 3, 4], [10, 11], []]
    path = tmp_path / "operations.json"
    path.write_text(json.dumps(operations))
    document = score(bundle, bag, "--operations", path, "--attention", "--stream", 2)
    assert document["scores"][-1] is None
    assert document["score"] is None
    assert document["instances"] == 0
    for rows, found in zip(held[:-1], document["scores"], strict=False):
        assert found["logits"] == logits(score(bundle, part(bag, rows)))


def test_attention_after_operations_weighs_only_what_is_held(
    bundle: Path, bag: Path, score: Any, tmp_path: Path
) -> None:
    path = tmp_path / "operations.json"
    path.write_text(json.dumps([{"op": "add", "field": 0, "rows": [5, 7]}]))
    weights = np.asarray(score(bundle, bag, "--operations", path, "--attention")["attention"])
    assert weights.shape == (CHANNELS, 40)
    assert set(np.flatnonzero(weights.sum(axis=0))) == {5, 7}
    assert weights.sum(axis=1) == pytest.approx(np.ones(CHANNELS), abs=1e-5)


def test_a_row_that_two_fields_show_counts_once(
    bundle: Path, bag: Path, score: Any, tmp_path: Path
) -> None:
    path = tmp_path / "operations.json"
    first, second = {"op": "add", "field": 0, "rows": [0, 1, 1]}, {"op": "add", "field": 1}
    path.write_text(json.dumps([first, second | {"rows": [1, 2]}, {"op": "remove", "field": 0}]))
    document = score(bundle, bag, "--operations", path)
    assert document["scores"][0]["logits"] == logits(score(bundle, part(bag, [0, 1])))
    assert document["scores"][1]["logits"] == logits(score(bundle, part(bag, [0, 1, 2])))
    assert document["scores"][2]["logits"] == logits(score(bundle, part(bag, [1, 2])))


def test_an_empty_bag_prints_null(bundle: Path, bag: Path, score: Any) -> None:
    document = score(bundle, part(bag, slice(0)), "--attention", "--stream", 3)
    assert document["score"] is None
    assert document["instances"] == 0


def test_people_get_a_table_and_the_research_use_line(
    bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(bundle), str(bag), "--attention"]) == 0
    said = capsys.readouterr().out
    assert "negative" in said
    assert "40 instances" in said
    assert "Research use only" in said
    assert main(["score", str(bundle), str(part(bag, slice(0)))]) == 0
    assert "No score yet" in capsys.readouterr().out


def test_the_encoder_that_the_file_names_must_be_the_bundles(
    bundle: Path, bag: Path, score: Any, mistake: Any, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "bag.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.load(bag)["features"]
        file["features"].attrs["encoder"] = "Test"
    assert score(bundle, path) == score(bundle, bag)
    with h5py.File(path, "a") as file:
        file["features"].attrs["encoder"] = "uni_v1"
    assert "made by the encoder uni_v1" in mistake(bundle, path)
    alone = write_small_bundle(tmp_path / "alone", channels=1, extractor=False).path
    assert score(alone, path)["instances"] == 40


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (np.ones((3, FEATURES + 1), np.float32), f"wants (n, {FEATURES})"),
        (np.full((3, FEATURES), np.nan, np.float32), "Row 0 of the features holds NaN"),
        (np.diag(np.full(FEATURES, 1e300)), "Row 0 of the features holds NaN or infinity"),
        (np.ones(FEATURES, np.float32), "must be (n, d)"),
        (np.empty((0, FEATURES + 1), np.float32), f"wants (n, {FEATURES})"),
    ],
)
def test_features_that_do_not_fit_are_one_sentence(
    features: Any, sentence: str, bundle: Path, mistake: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "wrong.npz", features=features)
    assert sentence in mistake(bundle, tmp_path / "wrong.npz")


@pytest.mark.parametrize(
    ("operations", "sentence"),
    [
        ("{", "is not JSON"),
        ("3", "no JSON list"),
        ('[{"op": "paint", "field": 0}]', "Operation 0 has op 'paint'"),
        ('[{"op": "add", "field": "x", "rows": [1]}]', "no field by a number"),
        ('[{"op": "add", "field": 0, "rows": [40]}]', "row 40, and the file has 0 to 39"),
        ('[{"op": "add", "field": 0, "rows": "ab"}]', "no list of row numbers"),
        ('[{"op": "add", "field": 0, "rows": [-1]}]', "row -1"),
        ('[{"op": "remove", "field": 0}]', "remove field 0, which is not held"),
        ('[{"op": "replace", "field": 0, "rows": [1]}]', "replace field 0, which is not held"),
        (
            '[{"op": "add", "field": 0, "rows": [1]}, {"op": "add", "field": 0, "rows": [2]}]',
            "twice with different rows",
        ),
    ],
)
def test_operations_that_make_no_sense_are_one_sentence(
    operations: str, sentence: str, bundle: Path, bag: Path, mistake: Any, tmp_path: Path
) -> None:
    path = tmp_path / "operations.json"
    path.write_text(operations)
    assert sentence in mistake(bundle, bag, "--operations", path)


def test_other_mistakes_are_one_sentence(
    bundle: Path, bag: Path, mistake: Any, tmp_path: Path
) -> None:
    assert "There is no bundle" in mistake(tmp_path / "none", bag)
    assert "cannot be read" in mistake(bundle, tmp_path / "none.npz")
    assert "cannot be read" in mistake(bundle, bag, "--operations", tmp_path / "none.json")
    for words in (["--stream", "0"], ["--stream", "x"], ["--shuffle", "-1"]):
        assert words[0] in mistake(bundle, bag, *words)
    (bundle / "classify.onnx").write_bytes(b"changed")
    assert "was changed" in mistake(bundle, bag)
