"""Run authors' classes with weights from a recipe: `run_official.py SOURCES OUT`.

SOURCES holds checkouts of the repositories by the names of CASES; OUT gets a folder for each case,
in the layout of the large golden set, which `make_golden.py` then takes. Only numbers are written.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from golden_models import recipe_weights

BAG, SEED = (7, 48), 11


@dataclass(frozen=True)
class Case:
    """A class to run.

    Attributes:
        repo: Its repository, and the name of the folder in SOURCES after the slash.
        commit: Of the repository.
        licence: Of the repository.
        file: Where the class is.
        cls: The class.
        ctor: Its constructor's arguments.
        options: For `--arch-option`.
        gains: Of the recipe.
        outputs: From the module and the bag to the official arrays.
        feat_ext: Whether torchmil's class gets a feature network.
    """

    repo: str
    commit: str
    licence: str
    file: str
    cls: str
    ctor: dict[str, Any]
    outputs: Callable[[nn.Module, torch.Tensor], dict[str, torch.Tensor]]
    options: dict[str, str] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    feat_ext: bool = False


def first_and_attention(module: nn.Module, bag: torch.Tensor) -> dict[str, torch.Tensor]:
    found = module(bag)
    logits, raw = found[0], found[3]
    arrays = {"logits": logits}
    return arrays if raw is None else arrays | {"attention": torch.softmax(raw, dim=1)}


def first(module: nn.Module, bag: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logits": module(bag)[0]}


def predicted(module: Any, bag: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logits": module.predict(bag[None])}


CLAM = ("mahmoodlab/CLAM", "53e2409", "GPL-3.0 (numbers only)")
MAMBAMIL = ("isyangshu/MambaMIL", "9aea39e", "MIT badge (numbers only)")
TORCHMIL = ("Franblueee/torchmil", "a49f95d", "Apache-2.0 (numbers only)")
SHARP = {"attention": 3.0}
CASES = {
    "clam_sb": Case(
        *CLAM,
        "models/model_clam.py",
        "CLAM_SB",
        {"gate": False, "dropout": 0.25, "n_classes": 2, "embed_dim": BAG[1]},
        first_and_attention,
        gains=SHARP,
    ),
    "mil_fc": Case(
        *CLAM, "models/model_mil.py", "MIL_fc", {"dropout": 0.25, "embed_dim": BAG[1]}, first
    ),
    "mil_fc_mc": Case(
        *CLAM,
        "models/model_mil.py",
        "MIL_fc_mc",
        {"dropout": 0.25, "n_classes": 4, "embed_dim": BAG[1]},
        first,
    ),
    "abmil_mambamil": Case(
        *MAMBAMIL,
        "models/ABMIL.py",
        "DAttention",
        {"in_dim": BAG[1], "n_classes": 2, "dropout": 0.25, "act": "gelu"},
        first_and_attention,
        {"activation": "gelu"},
        SHARP,
    ),
    "gabmil_mambamil": Case(
        *MAMBAMIL,
        "models/ABMIL.py",
        "GatedAttention",
        {"in_dim": BAG[1], "n_classes": 3, "dropout": 0.25, "act": "relu"},
        first,
        {"activation": "relu"},
        SHARP,
    ),
    "mean_mil": Case(
        *MAMBAMIL,
        "models/Mean_Max_MIL.py",
        "MeanMIL",
        {"in_dim": BAG[1], "n_classes": 2, "act": "relu"},
        first,
        {"activation": "relu", "pooling": "mean"},
    ),
    "max_mil": Case(
        *MAMBAMIL,
        "models/Mean_Max_MIL.py",
        "MaxMIL",
        {"in_dim": BAG[1], "n_classes": 2, "act": "gelu"},
        first,
        {"activation": "gelu", "pooling": "max"},
    ),
    "dsmil_torchmil": Case(
        *TORCHMIL,
        "torchmil/models/dsmil.py",
        "DSMIL",
        {"in_shape": (BAG[1],), "att_dim": 24, "nonlinear_q": True, "nonlinear_v": True},
        predicted,
        {"feature_activation": "relu"},
        feat_ext=True,
    ),
}


def main(sources: Path, out: Path) -> None:
    """Run every case."""
    for name, case in CASES.items():
        run(case, sources / case.repo.split("/")[1], out / name)


def run(case: Case, checkout: Path, folder: Path) -> None:
    """Run one case and write its folder."""
    made = getattr(_module(checkout, case.file), case.cls)
    extra = {"feat_ext": nn.Sequential(nn.Linear(BAG[1], 32), nn.ReLU())} if case.feat_ext else {}
    module: nn.Module = made(**case.ctor, **extra).eval()
    state = {key: [list(w.shape), "float32"] for key, w in module.state_dict().items()}
    recipe = {"seed": SEED, "gains": case.gains}
    weights = recipe_weights({"weights_recipe": recipe, "state_dict": state})
    module.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    features = np.random.RandomState(SEED).standard_normal(BAG).astype(np.float32)
    with torch.no_grad():
        outputs = case.outputs(module, torch.from_numpy(features))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / f"case_N{BAG[0]}.npz",
        features=features,
        **{key: value.numpy() for key, value in outputs.items()},  # type: ignore[arg-type] # its stub takes every name for an option
    )
    about = {"repo": case.repo, "commit": case.commit, "licence": case.licence}
    about |= {"file": case.file, "cls": case.cls, "official": True}
    document = {**about, "ctor": case.ctor, "weights_recipe": recipe, "state_dict": state}
    (folder / "model.json").write_text(json.dumps(document), encoding="utf-8")
    given = {"options": case.options, "expected": {"logits": "logits"}, "official_fails": []}
    (folder / "import.json").write_text(json.dumps(given), encoding="utf-8")


def _module(checkout: Path, file: str) -> Any:
    """Return a file of a checkout as a module, without the package around it.

    torchmil's base class only gathers arguments' names, and its package needs more than its models
    do: a plain module stands for it.
    """
    for package in ("torchmil", "torchmil.models", "torchmil.nn"):
        sys.modules[package] = types.ModuleType(package)
    base = types.ModuleType("torchmil.models.mil_model")
    base.MILModel = nn.Module  # type: ignore[attr-defined] # as the file names it
    sys.modules[base.__name__] = base
    if file.startswith("torchmil/"):
        sys.modules["torchmil.nn.utils"] = _read(checkout / "torchmil" / "nn" / "utils.py")
    return _read(checkout / file)


def _read(path: Path) -> types.ModuleType:
    found = types.ModuleType(path.stem)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), found.__dict__)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
