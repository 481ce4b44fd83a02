"""WeakSTIL, of which no official output is at hand, against its formula, written out slowly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_references
from edge_mil_export.architectures.weakstil import WeakStil
from edge_mil_export.cli import main as edge_mil_export
from edge_mil_export.onnx_export.exported_aggregator import export_aggregator
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.backends import open_backend
from edge_mil.cli import main as edge_mil
from edge_mil.errors import EmptyBagError
from edge_mil.protocols import Graph
from edge_mil.types import InstanceBatch

torch = pytest.importorskip("torch")

FEATURES, TOLERANCE = 9, 1e-5
CASES = [("gated", "percent"), ("gated", "sigmoid"), ("plain", "fraction"), ("none", "sigmoid")]


def drawn(attention: str, *, encoder: bool, gain: float = 1.0) -> dict[str, Any]:
    """Return a state dict; `gain` widens the attention logits."""
    torch.manual_seed(len(attention))
    state = WeakStil.fresh(FEATURES, 1)
    state = {key: 2 * value for key, value in state.items()}
    width = 64
    if not encoder:
        state = {key: value for key, value in state.items() if not key.startswith("encoder")}
        state["regressor.0.weight"] = state["regressor.0.weight"][:, :FEATURES].clone()
        width = FEATURES
    if attention != "gated":
        state = {key: value for key, value in state.items() if not key.startswith("attention")}
    if attention == "plain":
        state["attention.0.weight"] = torch.randn(7, width)
        state["attention.0.bias"] = torch.randn(7)
        state["attention.2.weight"] = torch.randn(1, 7)
        state["attention.2.bias"] = torch.randn(1)
    last = "attention_weights.weight" if attention == "gated" else "attention.2.weight"
    if last in state:
        state[last] = gain * state[last]
    return state


def reference(state: dict[str, Any], bag: np.ndarray, output: str) -> float:
    """Return the percentage of a bag by the slow reference."""
    weights = {key: tensor.double().numpy() for key, tensor in state.items()}
    return slow_references.weakstil(weights, bag.astype(np.float64), output=output)


class Exported:
    """A head in a bundle's parts, and the state dict that it was made from."""

    def __init__(self, folder: Path, attention: str, output: str, **drawing: Any) -> None:
        self.state, self.output = drawn(attention, **drawing), output
        save_file(self.state, folder / "w.safetensors")
        head = export_aggregator(folder / "w.safetensors", options={"output": output})
        self.task, spec = head.task, head.spec
        self.spec = spec
        self.attend = open_backend("cpu", threads=1).open(Graph(head.graphs["attend.onnx"], "a"))
        classifier = Classifier(head.task.classes, head.task.probabilities, None, head.task.kind)
        sizes = (spec.feature_dim, spec.value_dim, spec.channels)
        parts = Parts(spec.architecture, spec.options, *sizes, classifier)
        self.aggregator = build_aggregator(spec.pooling, parts)

    def fold(self, features: np.ndarray) -> Any:
        """Return the state of a bag of features."""
        found = self.attend.run({"features": features})
        logits = found.get("attention_logits", np.empty((len(features), 0), dtype=np.float32))
        empty = self.aggregator.initial_state()
        return self.aggregator.update(empty, InstanceBatch(found["values"], logits))

    def check(self, state: Any, bag: np.ndarray) -> None:
        """Compare the score of a state with the reference over the same bag."""
        score, want = self.aggregator.score(state), reference(self.state, bag, self.output)
        assert score.value is not None
        assert abs(score.value - want) <= TOLERANCE * max(100, abs(want))
        assert score.logits == (score.value,)
        assert score.probabilities == ()


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    made = {
        f"{attention} {output}": Exported(
            tmp_path_factory.mktemp("head"), attention, output, encoder=attention != "plain"
        )
        for attention, output in CASES
    }
    folder = tmp_path_factory.mktemp("head")
    made["large logits"] = Exported(folder, "gated", "sigmoid", encoder=True, gain=400.0)
    return made


NAMES = [*(f"{attention} {output}" for attention, output in CASES), "large logits"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_percentage_is_that_of_the_slow_reference(
    heads: dict[str, Exported], name: str, count: int
) -> None:
    head = heads[name]
    assert (head.task.kind, head.task.classes) == ("regression", ("stil_percent",))
    assert head.spec.incremental == "mergeable"
    bag = np.random.default_rng(count).standard_normal((count, FEATURES)).astype(np.float32)
    if name == "large logits" and count == 50:
        logits = head.attend.run({"features": bag})["attention_logits"]
        assert np.ptp(logits) > 200
    head.check(head.fold(bag), bag)
    same = np.repeat(bag[:1], count, axis=0)
    head.check(head.fold(same), same)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_order_split_merge_tree_and_removal_is_the_batch(
    heads: dict[str, Exported], name: str, data: st.DataObject
) -> None:
    head, aggregator = heads[name], heads[name].aggregator
    count = data.draw(st.integers(1, 25))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    bag = rng.standard_normal((count, FEATURES)).astype(np.float32)
    order = np.asarray(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    parts = np.split(order, cuts)
    states = [head.fold(bag[part]) for part in parts]
    gone = data.draw(st.integers(0, len(parts) - 1))
    left = aggregator.initial_state()
    for at, state in enumerate(states):
        left = left if at == gone else aggregator.merge(left, state)
    others = np.setdiff1d(order, parts[gone])
    if len(others):
        head.check(left, bag[others])
    while len(states) > 1:
        at = data.draw(st.integers(0, len(states) - 2))
        states[at : at + 2] = [aggregator.merge(states[at], states[at + 1])]
    head.check(states[0], bag)
    stored = aggregator.to_bytes(states[0])
    assert aggregator.to_bytes(aggregator.from_bytes(stored)) == stored


def test_an_empty_bag_has_no_percentage_rather_than_none_of_them(
    heads: dict[str, Exported],
) -> None:
    for head in heads.values():
        state = head.fold(np.empty((0, FEATURES), dtype=np.float32))
        assert head.aggregator.scores([state]) == [None]
        with pytest.raises(EmptyBagError):
            head.aggregator.score(state)


def test_the_commands_ask_for_the_unit_and_print_the_percentage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = drawn("gated", encoder=True)
    torch.save(
        {"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "w.pt"
    )
    words = ["aggregator", str(tmp_path / "w.pt"), "--out", str(tmp_path / "bundle")]
    assert edge_mil_export(words) == 2
    assert "output=percent or output=fraction or output=sigmoid" in capsys.readouterr().err
    assert edge_mil_export([*words, "--arch-option", "output=sigmoid"]) == 0
    bag = np.random.default_rng(1).standard_normal((40, FEATURES)).astype(np.float32)
    np.savez(tmp_path / "bag.npz", features=bag)
    score = ["score", str(tmp_path / "bundle"), str(tmp_path / "bag.npz")]
    capsys.readouterr()
    want = reference(state, bag, "sigmoid")
    for more in ([], ["--stream", "7"], ["--stream", "7", "--shuffle", "3"]):
        assert edge_mil([*score, *more, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["score"]
        assert found["value"] == pytest.approx(want, abs=1e-3)
    assert edge_mil(score) == 0
    assert f"stil_percent  {want:.4f}"[:-2] in capsys.readouterr().out
    np.savez(tmp_path / "none.npz", features=bag[:0])
    assert edge_mil([*score[:2], str(tmp_path / "none.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] is None


def test_a_file_with_more_than_one_output_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from edge_mil_export.errors import ArchitectureError

    state = drawn("none", encoder=True)
    state["regressor.2.weight"] = torch.randn(2, 64)
    state["regressor.2.bias"] = torch.randn(2)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ArchitectureError, match="2 outputs"):
        export_aggregator(tmp_path / "w.safetensors", options={"output": "percent"})
