"""SC-MIL against its formulas, written out slowly: other sizes and rounds than the golden case."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from edge_mil_export.architectures.sc_mil import ScMil
from edge_mil_export.onnx_export.exported_aggregator import export_aggregator
from safetensors.torch import save_file

from edge_mil.aggregators import AttentionAggregator, Classifier
from edge_mil.backends import open_backend
from edge_mil.protocols import Graph
from edge_mil.types import InstanceBatch

FEATURES = 7


def dense(weights: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    y = weights[f"{prefix}.weight"] @ x
    return y + weights.get(f"{prefix}.bias", 0)


def norm(weights: dict[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return scaled * weights[f"{prefix}.weight"] + weights[f"{prefix}.bias"]


def code(weights: dict[str, np.ndarray], x: np.ndarray, rounds: int) -> np.ndarray:
    """Minimise |x - D z|^2 / 2 + t |z| by proximal gradient steps, one atom at a time."""
    atoms, scale, at = weights["sc.Dict"], float(weights["sc.c"]), "sc.lam_layer.mlp"
    hidden = x
    for linear, after in ((0, 1), (3, 4)):
        hidden = norm(weights, f"{at}.{after}", dense(weights, f"{at}.{linear}", hidden))
        hidden = np.log1p(np.exp(hidden))
    limit = float(dense(weights, f"{at}.6", hidden)[0]) / scale

    def shrink(values: np.ndarray) -> np.ndarray:
        return np.array([math.copysign(max(abs(v) - limit, 0), v) for v in values])

    z = shrink(np.array([atom @ x for atom in atoms.T]))
    for _ in range(rounds):
        left = sum((value * atom for value, atom in zip(z, atoms.T, strict=True)), -x)
        z = shrink(z - np.array([atom @ left for atom in atoms.T]) / scale)
    return z


def reference(weights: dict[str, np.ndarray], bag: np.ndarray, rounds: int) -> np.ndarray:
    codes, unnormalised = [], []
    for x in bag:
        z = code(weights, np.maximum(dense(weights, "dimReduction.fc1", x), 0), rounds)
        gate = 1 / (1 + np.exp(-dense(weights, "attn.attention_U.0", z)))
        hidden = np.tanh(dense(weights, "attn.attention_V.0", z)) * gate
        codes.append(z)
        unnormalised.append(math.exp(float(dense(weights, "attn.attention_weights", hidden)[0])))
    pooled = sum(r * z for r, z in zip(unnormalised, codes, strict=True)) / sum(unnormalised)
    return dense(weights, "classifier.fc", pooled)


def test_the_exported_head_is_the_slow_reference_however_the_bag_is_split(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = ScMil.fresh(FEATURES, 3)
    weights = {key: tensor.double().numpy() for key, tensor in state.items()}
    # As the authors write them: constants that no score needs.
    atoms = state["sc.Dict"].shape[1]
    state |= {"sc.soft_comp": torch.zeros(atoms), "sc.Identity": torch.eye(atoms)}
    save_file(state, tmp_path / "sc.safetensors")
    rng = np.random.default_rng(0)
    for rounds in (5, 2):
        options = {"rounds": str(rounds)} if rounds != 5 else {}
        head = export_aggregator(tmp_path / "sc.safetensors", options=options)
        assert (head.spec.architecture, head.spec.incremental) == ("sc_mil", "mergeable")
        backend = open_backend("cpu", threads=1)
        attend = backend.open(Graph(head.graphs["attend.onnx"], "attend"))
        classify = backend.open(Graph(head.graphs["classify.onnx"], "classify"))
        classifier = Classifier(head.task.classes, "softmax", classify)
        aggregator = AttentionAggregator(1, head.spec.value_dim, classifier)
        for count in (1, 4, 23):
            bag = rng.standard_normal((count, FEATURES)).astype(np.float32)
            state_ = aggregator.initial_state()
            for part in np.array_split(bag[rng.permutation(count)], min(count, 3)):
                found = attend.run({"features": part})
                batch = InstanceBatch(found["values"], found["attention_logits"])
                state_ = aggregator.merge(
                    state_, aggregator.update(aggregator.initial_state(), batch)
                )
            want = reference(weights, bag.astype(np.float64), rounds)
            got = np.asarray(aggregator.score(state_).logits)
            assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())
