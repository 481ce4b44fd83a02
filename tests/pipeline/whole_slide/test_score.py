"""`edge-mil slide`: the batch that every clean live pass must equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.bundle import TissueSpec, open_bundle
from edge_mil.cameras import SlideFile, open_camera
from edge_mil.cli import main
from edge_mil.errors import BundleError, PixelSizeError, UsageError
from edge_mil.imaging import (
    Cell,
    CellMap,
    GridGeometry,
    SlotMap,
    bring_to_tile,
    cells_inside,
)
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.whole_slide.cells import slide_outline, tissue_cells
from edge_mil.pipeline.whole_slide.score import SlideReading, score_slide
from edge_mil.types import UInt8Array, Verdict

TISSUE = TissueSpec()
CMU1 = "data/slides/cmu1_small_region.svs"


def islands(height: int = 620, width: int = 910, seed: int = 0) -> UInt8Array:
    """Return blobs of tissue on glass; half of the cells show none."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    pixels = rng.normal(241, 3, (height, width, 3))
    for _ in range(9):
        y, x, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(40, 110)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        pixels[inside] = rng.normal((200, 120, 180), 25, (int(inside.sum()), 3))
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiled_tiff(tmp_path_factory.mktemp("slide") / "s.tiff", islands(), mpp=0.45)


@pytest.fixture(scope="module")
def grid_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grid") / "b"
    write_small_bundle(out)
    return out


@pytest.fixture(scope="module")
def field_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("field") / "b"
    write_small_bundle(out, instances="field", mpp=0.45)
    return out


@pytest.fixture(scope="module")
def model(grid_bundle: Path) -> Iterator[Model]:
    loaded = _load(grid_bundle)
    yield loaded
    loaded.close()


def _load(path: Path) -> Model:
    return load_model(open_bundle(path))


def streamed(source: Path, geometry: GridGeometry, **options: object) -> dict[Cell, UInt8Array]:
    """Return the tiles of a live pass of the virtual microscope."""
    mosaic = CellMap(
        geometry,
        background=TISSUE.background,
        min_difference=TISSUE.min_difference,
        min_share=TISSUE.min_share,
    )
    camera = open_camera(str(source), **options)  # type: ignore[arg-type]
    tiles: dict[Cell, UInt8Array] = {}
    for number, frame in enumerate(camera.frames(), start=1):
        assert frame.x_um is not None
        assert frame.y_um is not None
        view = mosaic.plan(frame.pixels, frame.x_um, frame.y_um, number)
        mosaic.commit(view)
        assert not tiles.keys() & set(view.cells)
        tiles |= dict(zip(view.cells, view.tiles, strict=True))
    camera.close()
    return tiles


PASSES = [
    {"overlap": 0.1},
    {"overlap": 0.0},
    {"overlap": 0.3, "path": "random", "seed": 4},
    {"overlap": 0.1, "path": "hover", "frames": 20},
    {"overlap": 0.1, "passes": 2},
]


@pytest.mark.parametrize("options", PASSES, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("fov", [(200, 150), (90, 70)], ids=["larger", "about-a-cell"])
def test_a_live_pass_has_the_cells_of_slide_to_the_bit(
    slide_path: Path, options: dict[str, object], fov: tuple[int, int]
) -> None:
    slide = SlideFile(slide_path)
    geometry = GridGeometry(slide.mpp, 64, 64, 0.5)
    wanted = dict(tissue_cells(slide, geometry, TISSUE))
    assert 20 < len(wanted) < 90
    found = streamed(slide_path, geometry, fov=fov, **options)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[cell], wanted[cell]) for cell in wanted)
    slide.close()


@pytest.mark.shared
@pytest.mark.parametrize("options", PASSES, ids=lambda o: "-".join(map(str, o.values())))
def test_a_live_pass_of_a_scanned_slide_has_the_cells_of_slide(options: dict[str, object]) -> None:
    path = shared(CMU1)
    slide = SlideFile(path)
    geometry = GridGeometry(slide.mpp, 128, 128, 0.5)
    wanted = dict(tissue_cells(slide, geometry, TISSUE))
    assert len(wanted) == 191
    found = streamed(path, geometry, **options)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[cell], wanted[cell]) for cell in wanted)
    slide.close()


def test_the_outline_is_that_of_the_tissue_cells(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = SlideFile(slide_path)
    geometry = GridGeometry(slide.mpp, 64, 64, 0.5)
    cells = {cell for cell, _ in tissue_cells(slide, geometry, TISSUE)}
    assert cells_inside(slide_outline(slide, geometry, TISSUE), geometry) == cells
    monkeypatch.setattr("edge_mil.pipeline.whole_slide.cells.EXACT_OUTLINE_PX", 1000)
    coarse = cells_inside(slide_outline(slide, geometry, TISSUE), geometry)
    assert len(coarse ^ cells) <= 0.1 * len(cells)
    slide.close()


def test_the_score_is_that_of_the_features_that_it_writes(slide_path: Path, model: Model) -> None:
    slide = SlideFile(slide_path)
    reading = score_slide(model, slide, keep_features=True)
    assert reading.features is not None
    assert reading.positions.shape == (reading.instances, 2)
    state = model.aggregator.update(
        model.aggregator.initial_state(), model.attend(reading.features)
    )
    assert reading.score is not None
    assert np.allclose(model.aggregator.score(state).logits, reading.score.logits, atol=1e-5)
    geometry = GridGeometry(slide.mpp, 64, 64, 0.5)
    tiles = dict(tissue_cells(slide, geometry, TISSUE))
    cells = [(int(x // 32), int(y // 32)) for x, y in reading.positions]
    assert set(cells) == set(tiles)
    again = model.extract(np.stack([tiles[cell] for cell in cells]))
    assert np.allclose(again, reading.features, atol=1e-5)
    slide.close()


def test_a_slide_of_glass_has_no_score(tmp_path: Path, model: Model) -> None:
    path = write_tiled_tiff(tmp_path / "g.tiff", np.full((300, 300, 3), 242, np.uint8), mpp=0.5)
    reading = score_slide(model, SlideFile(path), keep_features=True)
    assert reading.score is None
    assert reading.instances == 0
    assert reading.features is not None
    assert reading.features.shape == (0, 16)


def test_a_slide_smaller_than_a_cell_has_no_score(tmp_path: Path, model: Model) -> None:
    path = write_tiled_tiff(tmp_path / "s.tiff", np.full((60, 300, 3), 90, np.uint8), mpp=0.5)
    slide = SlideFile(path)
    assert score_slide(model, slide).score is None
    assert slide_outline(slide, GridGeometry(0.5, 64, 64, 0.5), TISSUE) == []


def test_a_slide_too_coarse_is_refused(slide_path: Path, model: Model) -> None:
    with pytest.raises(PixelSizeError, match="stronger objective"):
        score_slide(model, SlideFile(slide_path, mpp=1.0, insist=True))


def test_a_bundle_without_extractor_says_so(tmp_path: Path, slide_path: Path) -> None:
    write_small_bundle(tmp_path / "b", extractor=False)
    with pytest.raises(BundleError, match="edge-mil score"):
        score_slide(_load(tmp_path / "b"), SlideFile(slide_path))


def read_fields(path: Path, bundle: Path, fov: tuple[int, int] | None) -> SlideReading:
    loaded, slide = _load(bundle), SlideFile(path)
    try:
        return score_slide(loaded, slide, fov, keep_features=True)
    finally:
        loaded.close()
        slide.close()


@pytest.mark.parametrize("fov", [(200, 150), (128, 96), (910, 620), (333, 207)])
def test_fields_of_slide_are_those_of_a_live_pass(
    slide_path: Path, field_bundle: Path, fov: tuple[int, int]
) -> None:
    reading = read_fields(slide_path, field_bundle, fov)
    book = SlotMap(
        64,
        64,
        background=TISSUE.background,
        min_difference=TISSUE.min_difference,
        min_share=TISSUE.min_share,
        mpp=0.45,
    )
    camera = open_camera(str(slide_path), fov=fov, overlap=0.0, path="random", seed=2)
    frames = dict(enumerate(camera.frames()))
    verdicts = []
    for number, frame in frames.items():
        view = book.plan(frame, number)
        book.commit(view)
        verdicts.append(view.verdict)
    wanted = {(frames[n].x_um, frames[n].y_um): frames[n] for n in book.instances().values()}
    assert {tuple(centre) for centre in reading.positions.tolist()} == wanted.keys()
    assert reading.instances == book.held
    assert (Verdict.BLANK in verdicts) == (fov != (910, 620))
    loaded = _load(field_bundle)
    tiles = [bring_to_tile(wanted[x, y].pixels, 64, 64) for x, y in reading.positions.tolist()]
    assert np.allclose(loaded.extract(np.stack(tiles)), reading.features, atol=1e-5)
    loaded.close()


def test_fields_need_a_size_and_the_pixel_size_of_the_model(
    slide_path: Path, field_bundle: Path
) -> None:
    with pytest.raises(UsageError, match="--fov"):
        read_fields(slide_path, field_bundle, None)
    with pytest.raises(UsageError, match="fits on the slide"):
        read_fields(slide_path, field_bundle, (2000, 100))
    loaded = _load(field_bundle)
    with pytest.raises(PixelSizeError, match=r"0\.6.*0\.45"):
        score_slide(loaded, SlideFile(slide_path, mpp=0.6, insist=True), (200, 150))
    loaded.close()


def test_the_command_prints_one_json_document(
    slide_path: Path, grid_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.npz"
    words = ["slide", str(grid_bundle), str(slide_path), "--json", "--features", str(out)]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bundle"].startswith("sha256:")
    assert document["score"]["classes"] == ["negative", "positive"]
    assert sum(document["score"]["probabilities"]) == pytest.approx(1)
    with np.load(out, allow_pickle=False) as saved:
        assert len(saved["features"]) == len(saved["positions"]) == document["instances"]
    assert main(words[:3]) == 0
    assert "Research use only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--backend", "tensorrt"], "TensorRT"),
        (["--precision", "int8"], "int8"),
        (["--fov", "big"], "1024x768"),
        (["--mpp", "-1"], "µm/px"),
        (["--mpp", "0.9"], "--insist-mpp"),
        (["--features", "f.txt"], ".npz"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    slide_path: Path,
    grid_bundle: Path,
    more: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["slide", str(grid_bundle), str(slide_path), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1
