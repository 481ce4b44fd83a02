"""Every official case, through `edge-mil-export aggregator` and then `edge-mil score`.

One case of each head is in the repository; the large set needs ../shared and is skipped without.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_references
from edge_mil_export.cli import main as edge_mil_export
from golden_models import (
    SMALL,
    GoldenCase,
    GoldenModel,
    golden_streams,
    large_model,
    recipe_weights,
    small_model,
    small_names,
)

from edge_mil.aggregators.catalogue import CATALOGUE
from edge_mil.bundle import open_bundle
from edge_mil.cli import main as edge_mil

LARGE = (
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
    "addmil_baseline",
    "amil_fc_surv_porpoise",
    "attrimil",
    "attrimil_large_logits",
    "chief",
    "chief_logits",
    "clam_millab",
    "clam_millab_large_logits",
    "clam_millab_nogate",
    "cluster_share_hard",
    "cluster_share_student_t",
    "cobra",
    "dftd_millab_afs",
    "dftd_millab_maxmins",
    "dftd_millab_maxs",
    "dsmil_millab",
    "feather_millab",
    "gabmil_baseline",
    "gigapath_longnet",
    "ilra_millab",
    "madeleine",
    "madeleine_leaky_relu",
    "mambamil_bi",
    "mambamil_mamba",
    "mambamil_sr_surv",
    "max_margin_linear",
    "max_margin_linear_mc",
    "maxmil_baseline",
    "mean_probability",
    "mean_probability_large_logits",
    "mean_probability_one_output",
    "meanmil_baseline",
    "mhim_abmil_surv",
    "mhim_abmil_surv_merge_test",
    "mhim_dsmil_surv",
    "mhim_transmil_surv",
    "porpoise_amil",
    "porpoise_amil_large_logits",
    "rrt_millab",
    "scmil_abmil",
    "scmil_sparse_abmil",
    "stamp_linear",
    "stamp_mlp",
    "stamp_transmil",
    "stamp_vit",
    "stamp_vit_alibi",
    "torchmil_abmil",
    "torchmil_clam_sb",
    "torchmil_dtfd_afs",
    "torchmil_transformer_abmil",
    "torchmil_transmil",
    "transformer_millab",
    "transmil_millab",
    "transmil_millab_nystrom009",
    "wikg_millab",
    "wikg_millab_gcn_mean",
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
LAYOUTS = (
    "abmil_millab-clam",
    "addmil",
    "amil_fc_surv",
    "deep_sets",
    "dsmil_torchmil",
    "feather_millab",
    "gabmil_baseline",
    "mambamil-bi",
    "max_margin",
    "max_mil-baseline",
    "porpoise_amil",
    "rrt_millab",
    "sc_mil_contrastive",
    "stamp_mlp",
    "stamp_mlp-linear",
    "stamp_vit",
    "transformer_abmil_torchmil",
    "transformer_millab",
    "transmil_millab-nystrom-0.0.9",
)
"""Cases whose arithmetic another case has too: they differ by their keys, and are slow tests."""
SMALL_MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if name in LAYOUTS else name
    for name in small_names()
]
SLOW = "_full"
"""How the names of shared cases end whose bags have thousands of instances."""


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a case of the shared set."""
    return [pytest.mark.shared, *([pytest.mark.slow] if name.endswith(SLOW) else [])]


MODELS = [*SMALL_MODELS, *(pytest.param(f"large/{name}", marks=marks(name)) for name in LARGE)]
WITHOUT_ATTENTION = (
    "cluster_share",
    "deep_sets",
    "dftd_millab",
    "gigapath",
    "ilra",
    "madeleine_leaky_relu",
    "max",
    "mean",
    "mhim_transmil",
    "mil_fc",
    "otsurv",
    "stamp",
    "torchmil_transmil",
    "transformer_millab",
    "transmil",
    "wikg_millab_gcn_mean",
)
"""How the names of heads begin that have none."""
TOLERANCE = 1e-4
"""Of the range, max(1, the largest logit): what live and batch scores may differ by."""
SMALL_SET_BYTES = 3_000_000
"""What one case of every head may take in the repository."""
ATTENTION_TOLERANCE = 1e-5

Exported = tuple[GoldenModel, Path]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    folder = tmp_path_factory.mktemp("golden")

    def bundle(name: str) -> Exported:
        set_name, _, of_large = name.partition("/")
        golden = large_model(of_large) if of_large else small_model(set_name)
        out = folder / name.replace("/", "_")
        if not out.exists():
            checkpoint = str(golden.write_checkpoint(folder))
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


def assert_official(document: dict[str, Any], case: GoldenCase) -> None:
    assert case.outputs
    for name, want in case.outputs.items():
        got = np.asarray(document["score"][name]).ravel()
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= TOLERANCE * max(1, np.abs(want).max())


def test_every_head_has_a_case_in_the_repository() -> None:
    assert {name.partition("-")[0] for name in small_names()} == {h.name for h in CATALOGUE}


def test_the_cases_in_the_repository_stay_small() -> None:
    sizes = [path.stat().st_size for path in SMALL.rglob("*") if path.is_file()]
    assert sum(sizes) < SMALL_SET_BYTES


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_case_is_of_the_head_that_its_folder_names(
    name: str, bundles: Callable[[str], Exported]
) -> None:
    _, bundle = bundles(name)
    architecture = open_bundle(bundle).manifest.aggregator.architecture
    head = name.partition("-")[0]
    aliases = {"selfvit_dsmil": "dsmil"}
    assert architecture == aliases.get(head, head)


def test_numbers_without_an_official_output_are_those_of_the_slow_reference() -> None:
    own = [m for m in map(small_model, small_names()) if not m.model["official"]]
    assert own
    for model in own:
        case = model.cases["case"]
        weights = {k: w.astype(np.float64) for k, w in recipe_weights(model.model).items()}
        reference = getattr(slow_references, model.folder.name)
        want = reference(weights, case.features.astype(np.float64), **model.options)
        (stored,) = case.outputs.values()
        np.testing.assert_allclose(stored, np.ravel(want), rtol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_bag_scores_as_the_official_model(
    name: str, bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles(name)
    assert golden.cases
    for case in golden.cases.values():
        document = score(bundle, case.write_bag(tmp_path / "bag.npz"))
        assert document["instances"] == len(case.features)
        assert_official(document, case)


@pytest.mark.parametrize("name", MODELS)
def test_a_shuffled_stream_of_seven_scores_as_the_official_model(
    name: str, bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles(name)
    for case in golden.cases.values():
        bag = case.write_bag(tmp_path / "bag.npz")
        assert_official(score(bundle, bag, "--stream", 7, "--shuffle", 3), case)


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_the_official_one_in_the_order_of_the_file(
    name: str, bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles(name)
    for case in golden.cases.values():
        bag = case.write_bag(tmp_path / "bag.npz")
        document = score(bundle, bag, "--attention", "--shuffle", 1)
        if "attention" not in document:
            # A small case names the head; its source names the variant.
            source = str(golden.model.get("source", ""))
            names = (name.removeprefix("large/"), source)
            assert any(named.startswith(WITHOUT_ATTENTION) for named in names)
            continue
        weights = np.asarray(document["attention"])
        assert np.abs(weights.sum(axis=1) - 1).max() < ATTENTION_TOLERANCE
        if case.attention is not None:
            official = case.attention
            if official.shape == weights.T.shape:  # DSMIL's own is (n, c)
                official = official.T
            # Tokens that join the bag are no instances of the slide: shares are of the instances.
            official = official.reshape(len(weights), -1)[:, : weights.shape[1]]
            official = official / official.sum(axis=1, keepdims=True)
            assert np.abs(weights - official).max() < ATTENTION_TOLERANCE


@pytest.mark.shared
@pytest.mark.parametrize("name", STREAMED)
def test_operations_on_fields_give_the_score_of_what_is_held(
    name: str, bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles(f"large/{name}")
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
        expected = next(iter(golden.cases.values())).outputs
        kind = next(k for k in ("logits", "pooled", "probabilities") if k in expected)
        numbers = got[kind]
        assert np.abs(np.asarray(numbers) - want).max() <= TOLERANCE * max(1, np.abs(want).max())
        checked += 1
    assert checked
    assert document["instances"] == stream["operations"][-1]["instances"]


def test_one_instance_is_its_own_bag_where_the_official_class_fails(
    bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    golden, bundle = bundles("abmil_mambamil")
    features = golden.cases["case"].features[:1]
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
    np.savez(empty, features=np.empty((0, 32), dtype=np.float32))
    document = score(bundle, empty)
    assert document["score"] is None
    assert document["instances"] == 0


def test_npz_hdf5_and_torch_tensors_score_the_same(
    bundles: Callable[[str], Exported], score: Run, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    torch = pytest.importorskip("torch")
    golden, bundle = bundles("clam_sb")
    features = golden.cases["case"].features
    source = golden.cases["case"].write_bag(tmp_path / "bag.npz")
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        file["features"] = features[None]
        file["coords"] = np.zeros((1, len(features), 2), dtype=np.int64)
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = features
        file["coords"] = np.zeros((len(features), 2))
    torch.save(torch.from_numpy(features), tmp_path / "bag.pt")
    torch.save({"features": torch.from_numpy(features)}, tmp_path / "dict.pt")
    expected = score(bundle, source)
    for name in ("bag.h5", "stamp.h5", "bag.pt", "dict.pt"):
        assert score(bundle, tmp_path / name) == expected


def test_the_two_commands_work_as_processes(tmp_path: Path) -> None:
    golden = small_model("clam_sb")
    words = [str(golden.write_checkpoint(tmp_path)), "--out", str(tmp_path / "bundle"), "--json"]
    exported = _process("edge_mil_export.cli", "aggregator", *words)
    assert "licence" in exported.stderr
    made = json.loads(exported.stdout)
    assert made["architecture"] == "clam_sb"
    case = golden.cases["case"]
    bag = str(case.write_bag(tmp_path / "bag.npz"))
    scored = _process("edge_mil.cli", "score", str(tmp_path / "bundle"), bag, "--json")
    document = json.loads(scored.stdout)
    assert document["bundle"] == made["bundle"]
    assert_official(document, case)


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
