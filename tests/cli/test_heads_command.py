"""`edge-mil heads` and the figures that it shows."""

from __future__ import annotations

import json

import pytest

from edge_mil import cli
from edge_mil.aggregators.catalogue import CATALOGUE, audit_results, costs


def test_heads_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["heads"]) == 0
    out = capsys.readouterr().out
    for entry in CATALOGUE:
        assert f"{entry.name} " in out
        assert entry.paper in out
    assert "Source of audit: edge-mil-export audit" in out
    assert "Source of costs: edge-mil bench aggregators" in out


def test_heads_as_json_hold_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["heads", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["heads"]}
    assert list(rows) == [entry.name for entry in CATALOGUE]
    assert [test["test"] for test in rows["clam_sb"]["audit"]] == [1, 2, 3]
    assert rows["clam_sb"]["field_ms"] > 0


def test_the_measured_figures_are_of_heads_that_are_listed() -> None:
    listed = {entry.name for entry in CATALOGUE} | {"embedding_mean", "instance_max"}
    assert set(audit_results()) <= listed
    assert set(costs()) <= listed
