"""Every official case, through `edge-mil-export aggregator` and then `edge-mil score`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_mil_export.cli import main as edge_mil_export
from golden_models import GoldenModel, golden_model, golden_streams

from edge_mil.cli import main as edge_mil

pytestmark = pytest.mark.shared

MODELS = (
    "dtfd_afs",
    "dtfd_maxmins",
    "dtfd_maxs",
    "dtfd_trained",
    "mil_fc",
    "aem_dsmil",
    "dsmil",
    "dsmil_large_logits",
    "dsmil_linear_q",
    "dsmil_passing_v",
    "dsmil_trained_c16",
    "dsmil_trained_tcga",
    "mhim_dsmil",
    "selfvit_dsmil",
    "abmil_acmil",
    "abmil_amlab",
    "abmil_gated_amlab",
    "abmil_mambamil",
    "abmil_mhim_repo",
    "abmil_millab",
    "abmil_millab_nogate",
    "acmil_ga",
    "acmil_ga_large_logits",
    "acmil_mha",
    "acmil_mha_large_logits",
    "aem_abmil",
    "aem_mha",
    "clam_mb",
    "clam_mb_large_logits",
    "clam_sb",
    "clam_sb_nogate",
    "hopfield_pooling",
    "hopfield_pooling_iter3",
    "ilra",
    "ins_head",
    "mambamil_sr",
    "mambamil_sr_full",
    "max_mil",
    "mean_mil",
    "mhim_abmil",
    "mhim_abmil_merge_test",
    "mhim_transmil",
    "otsurv",
    "rrtmil",
    "rrtmil_full",
    "transmil_full",
    "transmil_nystrom009",
    "transmil_nystrom014",
    "wikg",
)
STREAMED = (
    "mil_fc",
    "aem_dsmil",
    "dsmil",
    "dsmil_large_logits",
    "dsmil_passing_v",
    "mhim_dsmil",
    "abmil_acmil",
    "acmil_ga",
    "acmil_ga_large_logits",
    "acmil_mha",
    "acmil_mha_large_logits",
    "aem_mha",
    "clam_mb",
    "clam_mb_large_logits",
    "clam_sb",
    "hopfield_pooling",
    "hopfield_pooling_iter3",
    "ilra",
    "mambamil_sr",
    "max_mil",
    "mean_mil",
    "mhim_abmil",
    "mhim_abmil_merge_test",
    "mhim_transmil",
    "otsurv",
    "rrtmil",
    "transmil_nystrom009",
    "transmil_nystrom014",
    "wikg",
)
WITHOUT_ATTENTION = (
    "ilra",
    "mil_fc",
    "max_mil",
    "mean_mil",
    "mhim_transmil",
    "otsurv",
    "transmil_full",
    "transmil_nystrom009",
    "transmil_nystrom014",
)
TOLERANCE = 1e-4
"""Of the range, max(1, the largest logit): `design.md`, section 1."""
ATTENTION_TOLERANCE = 1e-5

Exported = tuple[GoldenModel, Path]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    folder = tmp_path_factory.mktemp("golden")

    def bundle(name: str) -> Exported:
        golden = golden_model(name)
        out = folder / name
        if not out.exists():
            checkpoint = str(golden.checkpoint(folder))
            words = ["aggregator", checkpoint, "--out", str(out), "--licence", "test"]
            assert edge_mil_export([*words, *golden.option_words()]) == 0
        return golden, out

    return bundle


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        assert edge_mil(["score", *map(str, words), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def assert_official(document: dict[str, Any], golden: GoldenModel, case: Any) -> None:
    for ours, official in golden.expected.items():
        if ours == "group":
            continue
        got, want = np.asarray(document["score"][ours]), case[official].ravel()
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= TOLERANCE * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_bag_scores_as_the_official_model(
    name: str, bundles: Callable[[str], Exported], score: Run
) -> None:
    golden, bundle = bundles(name)
    assert golden.cases
    for file in golden.cases:
        case = np.load(golden.folder / file)
        document = score(bundle, golden.bag(file, bundle.parent))
        assert document["instances"] == len(case["features"])
        assert_official(document, golden, case)


@pytest.mark.parametrize("name", MODELS)
def test_a_shuffled_stream_of_seven_scores_as_the_official_model(
    name: str, bundles: Callable[[str], Exported], score: Run
) -> None:
    golden, bundle = bundles(name)
    for file in golden.cases:
        document = score(bundle, golden.bag(file, bundle.parent), "--stream", 7, "--shuffle", 3)
        assert_official(document, golden, np.load(golden.folder / file))


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_the_official_one_in_the_order_of_the_file(
    name: str, bundles: Callable[[str], Exported], score: Run
) -> None:
    golden, bundle = bundles(name)
    for file in golden.cases:
        case = np.load(golden.folder / file)
        document = score(bundle, golden.bag(file, bundle.parent), "--attention", "--shuffle", 1)
        if "attention" not in document:
            assert name in WITHOUT_ATTENTION
            continue
        weights = np.asarray(document["attention"])
        assert np.abs(weights.sum(axis=1) - 1).max() < ATTENTION_TOLERANCE
        if "attention" in case:
            official = case["attention"]
            if official.shape == weights.T.shape:  # DSMIL's own is (n, c)
                official = official.T
            # Merged tokens are no places of the slide: shares are among the places.
            official = official.reshape(len(weights), -1)[:, : weights.shape[1]]
            official = official / official.sum(axis=1, keepdims=True)
            assert np.abs(weights - official).max() < ATTENTION_TOLERANCE


@pytest.mark.parametrize("name", STREAMED)
def test_operations_on_fields_give_the_score_of_what_is_held(
    name: str, bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles(name)
    stream = golden_streams(name)
    operations = tmp_path / "operations.json"
    operations.write_text(json.dumps(stream["operations"]))
    document = score(bundle, golden.folder / stream["case"], "--operations", operations)
    assert len(document["scores"]) == len(stream["operations"])
    checked = 0
    for operation, got in zip(stream["operations"], document["scores"], strict=True):
        if "value" not in operation:
            continue
        want = np.asarray(operation["value"])
        kind = next(k for k in ("logits", "pooled", "probabilities") if k in golden.expected)
        numbers = got[kind]
        assert np.abs(np.asarray(numbers) - want).max() <= TOLERANCE * max(1, np.abs(want).max())
        checked += 1
    assert checked
    assert document["instances"] == stream["operations"][-1]["instances"]


def test_one_instance_is_its_own_bag_where_the_official_class_fails(
    bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles("abmil_mambamil")
    features = np.load(golden.folder / "case_N7.npz")["features"][:1]
    once, twice = tmp_path / "once.npz", tmp_path / "twice.npz"
    np.savez(once, features=features)
    np.savez(twice, features=np.repeat(features, 2, axis=0))
    one, two = score(bundle, once), score(bundle, twice)
    assert one["score"]["logits"] == pytest.approx(two["score"]["logits"], abs=1e-6)


def test_an_empty_bag_has_no_score(
    bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    _, bundle = bundles("clam_mb")
    empty = tmp_path / "empty.npz"
    np.savez(empty, features=np.empty((0, 64), dtype=np.float32))
    document = score(bundle, empty)
    assert document["score"] is None
    assert document["instances"] == 0


def test_npz_hdf5_and_torch_tensors_score_the_same(
    bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    torch = pytest.importorskip("torch")
    golden, bundle = bundles("clam_sb")
    source = golden.folder / "case_N64.npz"
    features = np.load(source)["features"]
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        file["features"] = features[None]
        file["coords"] = np.zeros((1, len(features), 2), dtype=np.int64)
    torch.save(torch.from_numpy(features), tmp_path / "bag.pt")
    torch.save({"features": torch.from_numpy(features)}, tmp_path / "dict.pt")
    expected = score(bundle, source)
    for name in ("bag.h5", "bag.pt", "dict.pt"):
        assert score(bundle, tmp_path / name) == expected


def test_the_two_commands_work_as_processes(tmp_path: Path) -> None:
    golden = golden_model("clam_sb")
    words = [str(golden.checkpoint(tmp_path)), "--out", str(tmp_path / "bundle"), "--json"]
    exported = _process("edge_mil_export.cli", "aggregator", *words)
    assert "licence" in exported.stderr
    made = json.loads(exported.stdout)
    assert made["architecture"] == "clam_sb"
    case = golden.folder / "case_N7.npz"
    scored = _process("edge_mil.cli", "score", str(tmp_path / "bundle"), str(case), "--json")
    document = json.loads(scored.stdout)
    assert document["bundle"] == made["bundle"]
    assert_official(document, golden, np.load(case))


def _process(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'export'}", "PATH": "/usr/bin:/bin"},
        timeout=120,
    )
