"""Reports of heads that give no probability: a pooling alone, a percentage, a risk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from painted_field import MPP, field, painted
from small_bundle import FEATURES, write_small_bundle

from edge_mil.bundle import open_bundle, write_bundle
from edge_mil.cli import main
from edge_mil.pipeline import load_model
from edge_mil.session import SessionFolder, SessionSettings

torch = pytest.importorskip("torch")
exporter = pytest.importorskip("edge_mil_export.onnx_export.exported_aggregator")
registry = pytest.importorskip("edge_mil_export.architectures.registry")
safetensors = pytest.importorskip("safetensors.torch")

SLIDE = painted()
HEADS: dict[str, dict[str, str]] = {
    "hopfield": {"heads": "2"},
    "weakstil": {"output": "sigmoid"},
    "otsurv": {"survival": "nll"},
}


def written(name: str, folder: Path) -> Path:
    """Write a bundle of a fresh head under the small extractor."""
    torch.manual_seed(0)
    chosen = registry.named_architecture(name)
    state = {key: value.contiguous() for key, value in chosen.build.fresh(FEATURES, 3).items()}
    safetensors.save_file(state, folder / f"{name}.safetensors")
    head: Any = exporter.export_aggregator(folder / f"{name}.safetensors", options=HEADS[name])
    plain = write_small_bundle(folder / "plain")
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = structs.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    write_bundle(manifest, files, folder / "whole")
    return folder / "whole"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("hopfield", ("Pooled numbers", "No classifier follows the pooling")),
        ("weakstil", ("stil_percent", "score of stil_percent")),
        ("otsurv", ("Risk", "of the survival curve", "<th>hazard</th><th>survival</th>")),
    ],
)
def test_a_report_says_what_the_head_gives(
    name: str, shown: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = written(name, tmp_path)
    model = load_model(open_bundle(bundle))
    folder = SessionFolder(tmp_path / "state")
    session = folder.create(model, SessionSettings(mpp=MPP))
    for x in (0, 150, 300):
        session.add(field(SLIDE, x, 0))
    score = session.score()
    session.close()
    model.close()
    assert score is not None
    words = [session.session_id, "--state", str(tmp_path / "state")]
    page = tmp_path / "page.html"
    report = ["session", "report", *words, "--bundle", str(bundle), "--out", str(page)]
    assert main(report) == 0
    text = page.read_text(encoding="utf-8")
    assert [part for part in shown if part not in text] == []
    assert "Probability" not in text
    assert "Logit of" not in text
    # Influence has one number to act on, and needs a head that folds field by field.
    for part in ("What the score rests on", "The fields that moved it most"):
        assert (part in text) == (name == "weakstil")
    assert ("What was seen" in text) == (name != "weakstil")
    capsys.readouterr()
    assert main(["session", "show", *words]) == 0
    printed = capsys.readouterr().out
    if score.value is None:
        assert "pooled numbers" in printed
    else:
        assert f"{score.value:.4f}" in printed
    assert main(["session", "export", *words, "--out", str(tmp_path / "files")]) == 0
    with (tmp_path / "files" / "fields.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if name == "weakstil":
        assert float(rows[-1]["score_value"]) == pytest.approx(score.value)
