"""`edge-mil bench aggregators`: what it compares, and that the whole graph is the head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edge_mil_export.architectures.building import fresh_head
from edge_mil_export.architectures.registry import variants
from edge_mil_export.bench import aggregators as bench_aggregators
from edge_mil_export.onnx_export.whole_graph import NO_GRAPH, whole_graph

from edge_mil.cli import main
from edge_mil.errors import UsageError


def test_a_field_stands_next_to_the_official_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "costs.json"
    words = ["--heads", "dtfd maxmins", "--held", "80,2000", "--write", str(written), "--json"]
    assert main(["bench", "aggregators", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)["forms"]
    assert json.loads(written.read_text())["forms"] == [row]
    assert row["incremental"] == "mergeable"
    assert row["whole_by"] == {"80": "ONNX Runtime", "2000": "ONNX Runtime"}
    assert set(row["field_ms"]) == set(row["whole_ms"]) == {"80", "2000"}
    assert min(*row["field_ms"].values(), *row["whole_ms"].values()) > 0
    assert row["note"] == ""


def test_a_head_that_is_no_graph_says_why_and_runs_in_torch() -> None:
    known = {variant.name: variant for variant in variants()}
    form = bench_aggregators.Form("otsurv", {})
    cost = bench_aggregators.measure("otsurv", known["otsurv"], form, (40,))
    assert cost.whole_by == {"40": "torch"}
    assert cost.note == NO_GRAPH["otsurv"]


def test_an_unknown_row_is_refused_with_those_that_there_are() -> None:
    parser = bench_aggregators.argparse.ArgumentParser()
    bench_aggregators.add_parser(parser.add_subparsers())
    with pytest.raises(UsageError, match="dtfd maxs"):
        bench_aggregators.run(parser.parse_args(["aggregators", "--heads", "none"]))


@pytest.mark.parametrize("name", ["ilra", "acmil_mha"])
def test_the_whole_forward_is_one_graph_of_any_size(name: str) -> None:
    variant = next(v for v in variants() if v.name == name)
    _, head, _ = fresh_head(variant.architecture.name, variant.options, feature_dim=24, outputs=2)
    graph, reason = whole_graph(name, head)
    assert graph
    assert reason == ""


def test_update_steps_are_one_graph_of_any_size() -> None:
    options = {"heads": "4", "update_steps_max": "3"}
    _, head, _ = fresh_head("hopfield", options, feature_dim=24, outputs=2)
    graph, reason = whole_graph("hopfield", head)
    assert graph
    assert reason == ""


def test_a_graph_that_differs_from_its_head_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = next(v for v in variants() if v.name == "clam_sb")
    _, head, _ = fresh_head(variant.architecture.name, variant.options, feature_dim=24, outputs=2)
    monkeypatch.setattr("edge_mil_export.onnx_export.whole_graph.TOLERANCE", -1.0)
    assert whole_graph("clam_sb", head) == (b"", "the exported graph is wrong at 64 instances")
