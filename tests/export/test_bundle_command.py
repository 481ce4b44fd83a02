"""`edge-mil-export bundle` from end to end, on a small real network and painted images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_extractor import FEATURES, TILE_PX, tiny_net, write_head, write_images, write_module

pytest.importorskip("torch")

from edge_mil_export.bundle.licences import parse_licences
from edge_mil_export.cli import main
from edge_mil_export.commands.bundle import parse_tile
from edge_mil_export.fidelity.generated import paint_tiles

from edge_mil.bundle import open_bundle
from edge_mil.pipeline import load_model
from edge_mil.pipeline.ood.reference import Reference

HALF = "0.5,0.5,0.5/0.25,0.25,0.25"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: tiny_net.py, head.pt."""
    write_module(tmp_path)
    write_head(tmp_path / "head.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "tiny_net", raising=False)
    return tmp_path


def command(*more: str) -> list[str]:
    return [
        "bundle",
        *("--extractor", "python:tiny_net:make", "--aggregator", "head.pt"),
        *("--tile-px", str(TILE_PX), "--mpp", "0.5", "--normalise", HALF, "--out", "made"),
        *more,
    ]


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """Return standard error, which must be one line."""
    text = capsys.readouterr().err.strip()
    assert "\n" not in text, text
    return text


def test_int8_and_fp32_come_with_their_report(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(place / "fields", 12, 4 * TILE_PX)
    words = ("--precision", "fp32,fp16,int8", "--calibration", "fields", "--json")
    assert main(command(*words, "--classes", "normal,tumour", "--licence", "MIT")) == 0
    printed = json.loads(capsys.readouterr().out)
    bundle = open_bundle(place / "made")
    assert printed["bundle"] == bundle.digest
    spec = bundle.manifest.extractor
    assert spec is not None
    assert set(spec.graphs) == {"fp32", "fp16", "int8-cpu", "int8-trt"}
    assert bundle.manifest.task.classes == ("normal", "tumour")
    assert set(bundle.manifest.files) == {
        "extractor.onnx",
        "extractor.fp16.onnx",
        "extractor.int8.cpu.onnx",
        "extractor.int8.trt.onnx",
        "attend.onnx",
        "classify.onnx",
        "fidelity.json",
        "fidelity.html",
        "model_card.md",
        "reference.npz",
    }
    report = json.loads(bundle.read("fidelity.json"))
    assert report["measured_on"]["source"] == "calibration images held back"
    assert report["comparisons"]["fp16"]["score_difference_max"] <= 0.002
    for precision in ("int8-cpu", "int8-trt"):
        figures = report["comparisons"][precision]
        assert figures["score_difference_max"] <= 0.02
        assert figures["form"] in [step["form"] for step in figures["ladder"]]
        assert len(figures["score_difference_per_bag"]) == len(report["measured_on"]["bags"])
    page = bundle.read("fidelity.html").decode()
    assert "Research use only" in page
    assert "http" not in page

    tiles = paint_tiles(5, (TILE_PX, TILE_PX), 77)
    found = {}
    for precision in ("fp32", "int8"):
        model = load_model(bundle, precision=precision, threads=1)
        state = model.aggregator.update(
            model.aggregator.initial_state(), model.attend(model.extract(tiles))
        )
        found[precision] = model.aggregator.score(state).probabilities[1]
        model.close()
    assert abs(found["fp32"] - found["int8"]) < 0.02
    with np.load(place / "made" / "reference.npz", allow_pickle=False) as reference:
        model = load_model(bundle, threads=1)
        assert np.abs(model.extract(reference["tiles"]) - reference["features"]).max() < 1e-4
        model.close()
    judging = Reference.load(bundle)
    assert judging is not None
    assert judging.has_limit


def test_fp32_alone_needs_no_images_and_says_what_it_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--licence", "extractor=CC-BY-NC-ND-4.0")) == 0
    captured = capsys.readouterr()
    assert "generated tiles" in captured.out
    assert "aggregator is not known" in captured.err
    manifest = open_bundle(place / "made").manifest
    assert "reference.npz" not in manifest.files
    assert manifest.name == "made"
    assert not manifest.redistributable
    assert manifest.licences.extractor == "CC-BY-NC-ND-4.0"
    assert manifest.licences.aggregator == "unknown, not to be passed on"
    assert manifest.input is not None
    assert manifest.input.mean == (0.5, 0.5, 0.5)


def test_a_bound_that_no_form_holds_ends_with_the_layers_that_hurt(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(place / "fields", 12, 4 * TILE_PX)
    words = ("--precision", "fp32,int8", "--calibration", "fields")
    assert main(command(*words, "--max-score-difference", "1e-7")) == 2
    text = sentence(capsys)
    assert "layers that hurt most are" in text
    assert "onv" in text
    assert not (place / "made").exists()


def test_int8_without_calibration_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--precision", "int8")) == 2
    assert "--calibration DIR" in sentence(capsys)


def test_another_feature_width_is_refused_before_the_long_work(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(place / "head.pt", FEATURES + 3)
    assert main(command()) == 2
    assert "width 16" in (text := sentence(capsys))
    assert "takes 19" in text


def test_a_folder_in_use_is_not_written_over(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "made").mkdir()
    (place / "made" / "thesis.txt").write_text("precious")
    assert main(command()) == 2
    assert "is no bundle" in sentence(capsys)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--extractor", "keras:x"), "timm:NAME"),
        (("--extractor", "python:nothing:make"), "cannot be imported"),
        (("--extractor", "python:tiny_net:nothing"), "no function nothing"),
        (("--extractor", "python:tiny_net:broken"), "must return a torch.nn.Module"),
        (("--tile-px", "0"), "--tile-px"),
        (("--mpp", "-1"), "--mpp"),
        (("--precision", "int4"), "int4"),
        (("--fidelity-slide", "gone.svs"), "no slide gone.svs"),
        (("--max-score-difference", "0"), "--max-score-difference"),
        (("--classes", "a,b,c"), "--classes names 3"),
    ],
)
def test_mistakes_are_one_sentence_each(
    words: tuple[str, ...], part: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(*words)) == 2
    assert part in sentence(capsys)


def test_nan_in_the_factorys_weights_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    state = tiny_net(place).state_dict()
    state["flat.weight"][0] = float("nan")
    torch.save(state, place / "weights.pt")
    assert main(command("--extractor-weights", "weights.pt")) == 2
    assert "NaN" in sentence(capsys)


def test_tile_sizes_are_width_times_height() -> None:
    assert parse_tile("224") == (224, 224)
    assert parse_tile("320x240") == (240, 320)


@pytest.mark.parametrize(
    ("words", "card", "extractor", "aggregator", "passed_on"),
    [
        (["MIT"], "apache-2.0", "MIT", "MIT", True),
        ([], "apache-2.0", "apache-2.0", "unknown, not to be passed on", True),
        (["extractor=CC-BY-NC-ND-4.0", "aggregator=MIT"], "", "CC-BY-NC-ND-4.0", "MIT", False),
        (["aggregator=MIT"], "", "unknown, not to be passed on", "MIT", False),
    ],
)
def test_licences_are_kept_apart(
    words: list[str], card: str, extractor: str, aggregator: str, passed_on: bool
) -> None:
    terms = parse_licences(words, card=card)
    assert (terms.licences.extractor, terms.licences.aggregator) == (extractor, aggregator)
    assert terms.redistributable is passed_on


def test_a_stain_normalisation_gets_its_target_from_the_calibration_tiles(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(place / "fields", 12, 4 * TILE_PX)
    assert main(command("--calibration", "fields", "--stain", "reinhard", "--licence", "MIT")) == 0
    spec = open_bundle(place / "made").manifest.input
    assert spec is not None
    assert spec.stain is not None
    assert spec.stain.method == "reinhard"
    assert len(spec.stain.mean) == len(spec.stain.deviation) == 3


def test_a_stain_normalisation_without_real_tiles_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--stain", "macenko")) == 2
    assert "needs tiles stained as those" in sentence(capsys)
    assert not (place / "made").exists()
