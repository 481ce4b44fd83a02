"""What the operator sees so far: mosaic, focus and coverage; the same after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.imaging.render.mosaic_canvas import UNSEEN, MosaicCanvas
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame, Region

SLIDE = painted()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    loaded = load_model(write_small_bundle(tmp_path_factory.mktemp("grid") / "b"))
    yield loaded
    loaded.close()


def test_the_mosaic_is_the_slide_at_low_resolution(model: Model) -> None:
    with Session(model, MPP) as session:
        assert session.mosaic() is None
        for y in (0, 128, 256, 320):
            for x in (0, 192, 384, 448):
                session.add(field(SLIDE, x, y))
        seen = session.mosaic(4.0)
    assert seen is not None
    assert (seen.origin_x_um, seen.origin_y_um, seen.um_per_px) == (0.0, 0.0, 4.0)
    wanted = cv2.resize(SLIDE, (80, 56), interpolation=cv2.INTER_AREA)
    assert seen.pixels.shape == wanted.shape
    # JPEG, and fields that end within a pixel.
    assert np.abs(seen.pixels.astype(float) - wanted).mean() < 5


def test_the_mosaic_follows_removals_and_restarts(model: Model, tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    session = folder.create(model, SessionSettings(mpp=MPP))
    for sequence, x in ((1, 0), (5, 384), (3, 192)):
        session.add(field(SLIDE, x, 0), sequence)
        before = session.mosaic()
        assert before is not None
        assert before.as_of == max(1, 5 * (sequence > 1))
    session.remove(5, "debris")
    after = session.mosaic()
    assert after is not None
    assert after.pixels.shape[1] == 24
    coverage, focus = session.coverage_map(), session.focus_map()
    session.release()
    again = folder.open(session.session_id, lambda _: model)
    restored = again.mosaic()
    assert restored is not None
    assert np.array_equal(restored.pixels, after.pixels)
    assert np.array_equal(again.coverage_map().values, coverage.values, equal_nan=True)
    assert np.array_equal(again.focus_map().values, focus.values, equal_nan=True)
    again.release()


def test_a_field_far_away_makes_the_mosaic_coarse_and_not_large(model: Model) -> None:
    with Session(model, MPP) as session:
        session.add(field(SLIDE, 0, 0))
        there = field(SLIDE, 0, 0)
        session.add(Frame(there.pixels, 9e5, 9e5))
        seen = session.mosaic()
    assert seen is not None
    assert max(seen.pixels.shape) <= 4097


def test_coverage_says_what_was_seen_of_each_cell(model: Model) -> None:
    outline = (Region(0, 0, 320, 64),)
    with Session(model, settings=SessionSettings(mpp=MPP, tissue=outline)) as session:
        session.add(field(SLIDE, 0, 0, 96, 64))
        layer = session.coverage_map()
    assert layer.values.shape == (2, 10)
    assert layer.values[0, 0] == 1.0
    assert layer.values[0, 1] == 0.5
    assert not layer.values[1].any()
    assert (layer.um_per_column, layer.um_per_row) == (32.0, 32.0)


@pytest.mark.parametrize("degrees", [0.0, 3.0, 90.0, 180.0, 217.0])
def test_a_turned_field_is_laid_straight(degrees: float) -> None:
    slide = cv2.GaussianBlur(SLIDE, (0, 0), 3)
    turn = np.deg2rad(degrees)
    matrix = 0.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # What a camera turned by that much sees around pixel (320, 224).
    grid = np.stack(np.meshgrid(np.arange(200) - 99.5, np.arange(120) - 59.5), axis=-1)
    at = grid @ (matrix / 0.5).T + (319.5, 223.5)
    picture = cv2.remap(
        slide, at[..., 0].astype(np.float32), at[..., 1].astype(np.float32), cv2.INTER_LINEAR
    )
    sheet = MosaicCanvas(4.0)
    sheet.paint(np.asarray(picture, np.uint8), 160.0, 112.0, matrix)
    pixels, region = sheet.snapshot()
    whole = cv2.resize(slide, (80, 56), interpolation=cv2.INTER_AREA)
    x, y = round(region.x_um / 4), round(region.y_um / 4)
    wanted = whole[y : y + pixels.shape[0], x : x + pixels.shape[1]]
    laid = (pixels != UNSEEN).any(axis=2)
    assert laid.sum() > 0.75 * 25 * 15
    assert np.abs(pixels.astype(float) - wanted)[laid].mean() < 9
