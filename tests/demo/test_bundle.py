"""The committed bundle: whole, small, and as good as its model card says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_mil.bundle import open_bundle
from edge_mil.cameras import SlideFile
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import BUNDLE
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.whole_slide.score import score_slide

MAX_BYTES = 4_000_000
TEST_SEED = 60_000
"""As in export/demo/train.py: slides that no part of the model has learnt from."""


def test_the_bundle_is_whole_and_under_four_megabytes() -> None:
    bundle = open_bundle(BUNDLE)
    assert bundle.manifest.name == "demo-painted-tissue"
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < MAX_BYTES


def test_the_bundle_holds_both_int8_dialects_and_no_reference() -> None:
    manifest = open_bundle(BUNDLE).manifest
    assert manifest.extractor is not None
    assert {"fp32", "int8-cpu", "int8-trt"} <= set(manifest.extractor.graphs)
    # Without it there is no out-of-distribution gate, so that real slides play too.
    assert "reference.npz" not in manifest.files


def test_the_bundle_says_what_it_is_for_and_under_which_terms() -> None:
    manifest = open_bundle(BUNDLE).manifest
    assert "Painted tissue only" in manifest.intended_use
    assert manifest.licences.extractor == manifest.licences.aggregator == "Apache-2.0"
    assert manifest.redistributable


def test_the_model_card_gives_the_auroc() -> None:
    card = open_bundle(BUNDLE).read("model_card.md").decode()
    assert re.search(r"AUROC [01]\.\d{4}", card)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_auroc_of_the_model_card_holds_on_slides_painted_here(
    tmp_path: Path, precision: str
) -> None:
    bundle = open_bundle(BUNDLE)
    claimed = float(re.findall(r"AUROC ([01]\.\d{4})", bundle.read("model_card.md").decode())[0])
    model = load_model(bundle, precision=precision)
    scores: dict[bool, list[float]] = {True: [], False: []}
    for number in range(20):
        label, path = number % 2 == 1, tmp_path / "painted.tiff"
        slide = paint_slide(TEST_SEED + number, positive=label)
        write_tiled_tiff(path, slide.pixels, MPP)
        scores[label].append(_positive(model, path))
    pairs = [(p, n) for p in scores[True] for n in scores[False]]
    auroc = sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)
    assert auroc >= claimed - 0.02


def _positive(model: Model, path: Path) -> float:
    slide = SlideFile(path)
    try:
        score = score_slide(model, slide).score
    finally:
        slide.close()
    assert score is not None
    return score.probabilities[score.classes.index("positive")]
