"""Write tests/data/golden: `python tests/data/make_golden.py ../shared/golden OFFICIAL`.

OFFICIAL is the folder that `run_official.py` wrote.

The README of tests/data/golden says what the files are.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

SMALL = Path(__file__).parent / "golden"
sys.path.insert(0, str(SMALL.parents[1] / "support"))

import slow_references  # noqa: E402
from golden_models import recipe_weights  # noqa: E402

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2}]
"""Literals in a context of four, since the exponent of a float32 number is every fourth byte: 84 %
of the size where the default settings leave 93 %."""
KEPT = ("repo", "commit", "file", "cls", "ctor", "licence", "note", "weights_recipe")
"""What a case tells of where its numbers come from."""

OFFICIAL = {
    "abmil_acmil": ("abmil_acmil", 7),
    "abmil_amlab": ("abmil_amlab", 7),
    "abmil_gated_amlab": ("abmil_gated_amlab", 7),
    "abmil_mambamil": ("abmil_mambamil", 7),
    "abmil_mhim_repo": ("abmil_mhim_repo", 7),
    "abmil_millab": ("abmil_millab", 7),
    "abmil_millab-clam": ("clam_millab_nogate", 7),
    "abmil_torchmil": ("torchmil_clam_sb", 7),
    "acmil_ga": ("acmil_ga", 7),
    "acmil_mha": ("acmil_mha_large_logits", 7),
    "addmil": ("addmil_baseline", 7),
    "aem_mha": ("aem_mha", 7),
    "amil_fc_surv": ("amil_fc_surv_porpoise", 7),
    "attrimil": ("attrimil_large_logits", 7),
    "chief": ("chief_logits", 7),
    "clam_mb": ("clam_mb_large_logits", 7),
    "clam_sb": ("clam_sb", 7),
    "cobra": ("cobra", 7),
    "dftd_millab": ("dftd_millab_maxs", 64),
    "dsmil": ("aem_dsmil", 7),
    "dsmil_millab": ("dsmil_millab", 7),
    "dsmil_torchmil": ("dsmil_torchmil", 7),
    "dtfd": ("dtfd_maxmins", 64),
    "dtfd_torchmil": ("torchmil_dtfd_afs", 64),
    "feather_millab": ("feather_millab", 7),
    "gabmil_baseline": ("gabmil_baseline", 7),
    "gabmil_mambamil": ("gabmil_mambamil", 7),
    "gigapath": ("gigapath_longnet", 64),
    "hopfield": ("hopfield_pooling", 7),
    "hopfield-3-update-steps": ("hopfield_pooling_iter3", 7),
    "ilra": ("ilra_millab", 7),
    "ins": ("ins_head", 7),
    "madeleine": ("madeleine", 7),
    "mambamil": ("mambamil_sr_surv", 64),
    "mambamil-bi": ("mambamil_bi", 64),
    "max_mil": ("max_mil", 7),
    "max_mil-baseline": ("maxmil_baseline", 7),
    "mean_mil": ("mean_mil", 7),
    "mhim_abmil": ("mhim_abmil_surv_merge_test", 7),
    "mhim_dsmil": ("mhim_dsmil_surv", 7),
    "mhim_transmil": ("mhim_transmil", 64),
    "mil_fc": ("mil_fc", 7),
    "mil_fc_mc": ("mil_fc_mc", 7),
    "otsurv": ("otsurv", 64),
    "porpoise_amil": ("porpoise_amil_large_logits", 7),
    "rrt_millab": ("rrt_millab", 64),
    "rrtmil": ("rrtmil", 64),
    "sc_mil_sparse": ("scmil_sparse_abmil", 7),
    "selfvit_dsmil": ("selfvit_dsmil", 7),
    "stamp_mlp": ("stamp_mlp", 7),
    "stamp_mlp-linear": ("stamp_linear", 7),
    "stamp_vit": ("stamp_vit", 7),
    "stamp_vit_alibi": ("stamp_vit_alibi", 7),
    "transformer_abmil_torchmil": ("torchmil_transformer_abmil", 7),
    "transformer_millab": ("transformer_millab", 7),
    "transmil": ("stamp_transmil", 64),
    "transmil_millab-nystrom-0.0.9": ("transmil_millab_nystrom009", 64),
    "transmil_torchmil": ("torchmil_transmil", 64),
    "wikg": ("wikg", 64),
    "wikg_millab": ("wikg_millab_gcn_mean", 64),
}
"""Folder -> model and size of the bag: the smallest weights of each head. What `run_official.py`
wrote comes before the large set."""

Shape = tuple[int, ...]
GATED = {
    "attention_V.0": (8, 12),
    "attention_U.0": (8, 12),
    "attention_weights": (1, 8),
}
OWN: dict[str, tuple[dict[str, str], str, dict[str, Shape], dict[str, Shape]]] = {
    "cluster_share": (
        {"assignment": "student_t", "alpha": "2"},
        "logits",
        {"encoder.0": (12, 16), "encoder.2": (6, 12), "classifier": (3, 5)},
        {"centroids": (5, 6)},
    ),
    "deep_sets": (
        {},
        "logits",
        {"phi.0": (12, 16), "rho.0": (8, 12), "classifier": (2, 8)},
        {},
    ),
    "max_margin": (
        {},
        "logits",
        {},
        {"coef": (2, 16), "intercept": (2,), "scaler.mean": (16,), "scaler.scale": (16,)},
    ),
    "mean_probability": (
        {},
        "logits",
        {"instance_classifier.0": (12, 16), "instance_classifier.2": (3, 12)},
        {},
    ),
    "sc_mil_contrastive": (
        {},
        "logits",
        {"embed.0": (12, 16), **GATED, "classifier": (2, 12), "projection.0": (4, 12)},
        {},
    ),
    "weakstil": (
        {"output": "percent"},
        "value",
        {"encoder.0": (12, 16), "regressor.0": (8, 12), "regressor.2": (1, 8), **GATED},
        {},
    ),
}
"""Heads of which no public output is known -> options, what is compared, shapes of the layers, and
of what is no layer."""
OWN_BAG, OWN_SEED = (40, 16), 7


def main(large: Path, official: Path) -> None:
    """Write every case anew, from the large set and from what `run_official.py` wrote."""
    for old in SMALL.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    known: dict[str, str] = {}
    for name, (source, count) in OFFICIAL.items():
        folder = official if (official / source).is_dir() else large
        write_official(name, folder / source, count, known)
    for name in OWN:
        write_own(name, known)
    total = sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file())
    print(f"{len(OFFICIAL) + len(OWN)} cases, {total} bytes")


def write_official(name: str, source: Path, count: int, known: dict[str, str]) -> None:
    """Write a case of the large set."""
    model = json.loads((source / "model.json").read_text(encoding="utf-8"))
    given = json.loads((source / "import.json").read_text(encoding="utf-8"))
    with np.load(source / f"case_N{count}.npz") as case:
        expected = {ours: case[official] for ours, official in given["expected"].items()}
        if "attention" in case:
            expected["attention"] = case["attention"]
        for stored, ours in given.get("inputs", {}).items():
            expected[ours] = case[stored]
        features = case["features"]
    document = {key: model[key] for key in KEPT if key in model}
    document |= {"official": True, "source": source.name, "options": given["options"]}
    if "task" in given:
        document["task"] = given["task"]
    checkpoint = source / "checkpoint.safetensors"
    if checkpoint.exists():
        document["checkpoint"] = _stored(name, "checkpoint.safetensors", checkpoint, known)
    else:
        document["weights_recipe"] = {
            k: v for k, v in model["weights_recipe"].items() if k != "see"
        }
        document["state_dict"] = model["state_dict"]
    _write(name, document, features, expected, known)


def write_own(name: str, known: dict[str, str]) -> None:
    """Write a case whose numbers are those of a slow reference."""
    options, compared, layers, others = OWN[name]
    shapes = {f"{layer}.weight": [shape, "float32"] for layer, shape in layers.items()}
    shapes |= {f"{layer}.bias": [shape[:1], "float32"] for layer, shape in layers.items()}
    shapes |= {key: [shape, "float32"] for key, shape in others.items()}
    document: dict[str, Any] = {
        "note": "no public output is known: the numbers are those of tests/support/"
        "slow_references.py, one instance at a time in float64",
        "official": False,
        "options": options,
        "weights_recipe": {"seed": OWN_SEED, "gains": {"attention_weights": 4.0}},
        "state_dict": shapes,
    }
    weights = {key: w.astype(np.float64) for key, w in recipe_weights(document).items()}
    noise = np.random.RandomState(OWN_SEED).standard_normal(OWN_BAG)
    features = noise.astype(np.float32)
    found = getattr(slow_references, name)(weights, features.astype(np.float64), **options)
    _write(name, document, features, {compared: np.asarray(found)}, known)


def _write(
    name: str,
    document: dict[str, Any],
    features: np.ndarray[Any, Any],
    expected: dict[str, np.ndarray[Any, Any]],
    known: dict[str, str],
) -> None:
    folder = SMALL / name
    folder.mkdir(exist_ok=True)
    plain = folder / "bag.npy"
    np.save(plain, features)
    document["bag"] = _stored(name, plain.name, plain, known)
    plain.unlink()
    apart = ("attention", "group", "coords")
    flat = {k: v if k in apart else v.ravel() for k, v in expected.items()}
    out = io.BytesIO()
    np.savez_compressed(out, **flat)
    (folder / "outputs.npz").write_bytes(out.getvalue())
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    (folder / "case.json").write_text(text + "\n", encoding="utf-8")


def _stored(name: str, label: str, source: Path, known: dict[str, str]) -> str:
    """Compress a file into a case, or name the case that holds the same bytes already."""
    data = source.read_bytes()
    key = hashlib.sha256(data).hexdigest()
    if key in known:
        return f"../{known[key]}"
    known[key] = f"{name}/{label}.xz"
    (SMALL / name).mkdir(exist_ok=True)
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, filters=FILTERS)
    (SMALL / name / f"{label}.xz").write_bytes(packed)
    return f"{label}.xz"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
