from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_samples import sample_bundle

from edge_mil.cli import main


def test_show_says_in_a_sentence_what_the_bundle_wants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    assert main(["bundle", "show", str(bundle.path)]) == 0
    printed = capsys.readouterr().out
    assert (
        "sample 3: classification (normal, tumour) from tiles of 224 px at 0.5 µm/px (112 µm), "
        "RGB, mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225, no stain normalisation."
    ) in printed
    assert bundle.digest in printed
    assert "CC-BY-NC-ND-4.0" in printed


def test_show_of_a_bundle_without_extractor_names_the_width_of_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample", extractor=False)
    assert main(["bundle", "show", str(bundle.path)]) == 0
    assert "saved features of width 8 (it has no extractor)" in capsys.readouterr().out


def test_show_as_json_is_one_document_with_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    assert main(["bundle", "show", str(bundle.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bundle"] == bundle.digest
    assert shown["manifest"]["input"]["mpp"] == 0.5


def test_verify_counts_what_it_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    assert main(["bundle", "verify", str(bundle.path)]) == 0
    assert capsys.readouterr().out == f"sample is in order: 5 files verified, {bundle.digest}\n"
    assert main(["bundle", "verify", str(bundle.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == 5


def test_verify_of_a_changed_bundle_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    (bundle.path / "attend.onnx").write_bytes(b"x")
    assert main(["bundle", "verify", str(bundle.path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("edge-mil: attend.onnx of sample was changed")
    assert printed.err.count("\n") == 1


def test_pack_writes_beside_the_bundle_and_keeps_the_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample")
    assert main(["bundle", "pack", str(bundle.path), "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert packed == {
        "bundle": bundle.digest,
        "file": str(tmp_path / "sample.milb"),
        "absent": [],
    }
    assert main(["bundle", "show", str(tmp_path / "sample.milb")]) == 0


def test_pack_says_that_a_gated_extractor_stays_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sample_bundle(tmp_path / "sample", redistributable=False)
    out = tmp_path / "out.milb"
    assert main(["bundle", "pack", str(bundle.path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Without extractor.int8.cpu.onnx, extractor.onnx: the extractor may not be" in printed
    assert "CC-BY-NC-ND-4.0" in printed
    assert main(["bundle", "verify", str(out)]) == 0
    assert "stayed behind" in capsys.readouterr().out


def test_sign_says_that_it_comes_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "sign", str(tmp_path)]) == 2
    assert "not in this release" in capsys.readouterr().err
