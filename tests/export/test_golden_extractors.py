"""Published extractors through `edge-mil-export bundle` and ONNX Runtime: their authors' features.

Four of them are in the repository; all need ../shared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_extractors import SMALL, TOLERANCE, ExtractorCase, cases, deviation
from shared_data import SHARED, shared
from small_extractor import write_head

pytest.importorskip("torch")

from edge_mil_export.cli import main
from edge_mil_export.extractors import open_extractor
from edge_mil_export.extractors.options import parse_extractor_options

from edge_mil.bundle import open_bundle
from edge_mil.pipeline import load_model

LARGE = SHARED / "golden_extractors"
MAX_BYTES = 1_000_000


def exported_features(case: ExtractorCase, folder: Path, scratch: Path) -> np.ndarray:
    """Export a bundle with the command; return its graph's features of the case's tiles."""
    height, width = case.case["tile_px"]
    head = write_head(folder / "head.pt", case.expected.shape[1])
    options = [f"{name}={value}" for name, value in case.options.items()]
    words = [
        *("bundle", "--extractor", f"checkpoint:{case.checkpoint(scratch)}"),
        *(word for option in options for word in ("--extractor-option", option)),
        *("--normalise", case.normalise, "--aggregator", str(head)),
        *("--tile-px", f"{width}x{height}", "--mpp", "0.5", "--out", str(folder / "made")),
    ]
    assert main(words) == 0
    model = load_model(open_bundle(folder / "made"), threads=1)
    try:
        return model.extract(case.tiles)
    finally:
        model.close()


def torch_features(case: ExtractorCase, scratch: Path) -> np.ndarray:
    """Return the features that the rebuilt network gives in torch."""
    height, width = case.case["tile_px"]
    source = open_extractor(
        f"checkpoint:{case.checkpoint(scratch)}",
        weights=None,
        tile_px=(height, width),
        normalise=case.normalise,
        options=parse_extractor_options([f"{k}={v}" for k, v in case.options.items()]),
    )
    return source.features(case.tiles)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden_extractors")


QUICK = [case for case in cases(SMALL) if case.name.startswith(("phikon", "real_dinov2_vits14-"))]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_a_published_file_of_the_repository_gives_its_authors_features(
    case: ExtractorCase, scratch: Path
) -> None:
    assert deviation(torch_features(case, scratch), case.expected) <= TOLERANCE


def test_a_published_file_is_exported_by_the_command(tmp_path: Path, scratch: Path) -> None:
    case = next(case for case in cases(SMALL) if case.name == "phikon_hf_vit-features_128x80")
    assert deviation(exported_features(case, tmp_path, scratch), case.expected) <= TOLERANCE
    manifest = open_bundle(tmp_path / "made").manifest
    assert manifest.licences.extractor == "unknown, not to be passed on"
    assert not manifest.redistributable


def test_the_set_of_the_repository_is_small() -> None:
    assert sum(path.stat().st_size for path in SMALL.rglob("*")) < MAX_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(SMALL), ids=lambda case: case.name)
def test_every_file_of_the_repository_is_exported_by_the_command(
    case: ExtractorCase, tmp_path: Path, scratch: Path
) -> None:
    assert deviation(exported_features(case, tmp_path, scratch), case.expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    "case",
    cases(LARGE) or [pytest.param(None, id="none")],
    ids=lambda case: case.name if case else "none",
)
def test_every_published_file_is_exported_by_the_command(
    case: ExtractorCase | None, tmp_path: Path, scratch: Path
) -> None:
    if case is None:
        shared("golden_extractors")
    assert case is not None
    assert deviation(exported_features(case, tmp_path, scratch), case.expected) <= TOLERANCE
