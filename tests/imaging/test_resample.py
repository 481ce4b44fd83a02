"""Resampling: each output pixel shows its own part of the slide, at any phase of the box."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mil.errors import FrameError, PixelSizeError
from edge_mil.imaging import GridGeometry, resample_cell
from edge_mil.types import Float64Array, UInt8Array


def textured(height: int, width: int, seed: int = 0) -> UInt8Array:
    """Return a picture with detail of a few pixels, as tissue has."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5) + cv2.GaussianBlur(noise, (0, 0), 6) * 4
    return np.asarray(np.clip(128 + 120 * smooth, 0, 255), dtype=np.uint8)


def area_weights(cells: int, scale: float, phase: float, pixels: int) -> Float64Array:
    """Return how much of each camera pixel lies in each output pixel, rows that sum to 1."""
    edges = np.arange(cells + 1)[:, None] * scale + phase
    ends = np.clip(edges, np.arange(pixels), np.arange(1, pixels + 1))
    covered = ends[1:] - ends[:-1]
    return np.asarray(covered / covered.sum(axis=1, keepdims=True))


def by_area(geometry: GridGeometry, i: int, j: int, pixels: UInt8Array) -> Float64Array:
    x, y = geometry.phase(i, j)
    rows = area_weights(geometry.tile_h, geometry.scale, y, pixels.shape[0])
    columns = area_weights(geometry.tile_w, geometry.scale, x, pixels.shape[1])
    return np.asarray(np.einsum("yr,rck,xc->yxk", rows, pixels.astype(np.float64), columns))


@pytest.mark.parametrize("mpp", [0.1, 0.17, 0.2271, 0.25, 0.3, 0.37, 0.4, 0.45, 0.499])
def test_shrinking_is_area_averaging_at_any_phase(mpp: float) -> None:
    geometry = GridGeometry(mpp, 32, 48, 0.5)
    picture = textured(1600, 2400)
    for cell in ((0, 0), (3, 2), (7, 5)):
        box = geometry.box(*cell)
        part = picture[box.y0 : box.y1, box.x0 : box.x1]
        wanted = by_area(geometry, *cell, part)
        found = resample_cell(part, geometry, *cell)
        assert np.abs(found - wanted).mean() < 2.5
        assert abs((found - wanted).mean()) < 0.5


@given(
    mpp=st.sampled_from([0.073, 0.1, 0.101, 0.2271, 0.25, 0.3, 0.4, 0.499, 0.501, 0.6, 0.75]),
    i=st.integers(0, 40),
    j=st.integers(0, 40),
)
def test_a_ramp_over_the_slide_stays_one_ramp_over_every_cell(mpp: float, i: int, j: int) -> None:
    geometry = GridGeometry(mpp, 32, 32, 0.5)
    box = geometry.box(i, j)
    left_um = i * geometry.cell_w_um
    columns_um = (np.arange(box.x0, box.x1) + 0.5) * mpp - left_um
    # 10 grey levels per um: half a grey level is a tenth of a model pixel.
    ramp = np.rint(40 + 10 * columns_um).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (box.height_px, box.width_px, 3))
    tile = resample_cell(np.ascontiguousarray(pixels), geometry, i, j)
    wanted = 40 + 10 * (np.arange(32) + 0.5) * 0.5
    inner = slice(1, -1) if mpp > 0.5 else slice(None)
    assert np.abs(tile[:, inner, 1] - wanted[None, inner]).max() <= 1.5


@pytest.mark.parametrize("mpp", [0.1, 0.101, 0.0737])
def test_what_63x_shows_and_the_model_cannot_is_averaged_away(mpp: float) -> None:
    geometry = GridGeometry(mpp, 32, 32, 0.5)
    box = geometry.box(3, 2)
    rows, columns = np.mgrid[0 : box.height_px, 0 : box.width_px]
    checked = np.where((rows + columns) % 2, 200, 40).astype(np.uint8)
    tile = resample_cell(np.repeat(checked[:, :, None], 3, axis=2), geometry, 3, 2)
    assert np.abs(tile.astype(int) - 120).max() <= 8  # taken singly they would be 40 and 200


@pytest.mark.parametrize("mpp", [0.76, 1.0, 2.5])
def test_a_camera_too_coarse_is_refused_unless_the_user_says_so(mpp: float) -> None:
    with pytest.raises(PixelSizeError, match=r"1\.5 times finer.*--allow-enlargement"):
        GridGeometry(mpp, 32, 32, 0.5)
    geometry = GridGeometry(mpp, 32, 32, 0.5, allow_enlargement=True)
    box = geometry.box(2, 1)
    columns_um = (np.arange(box.x0, box.x1) + 0.5) * mpp - 2 * geometry.cell_w_um
    ramp = np.rint(40 + 10 * columns_um).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(np.repeat(ramp[None], box.height_px, axis=0)[:, :, None], 3, axis=2)
    tile = resample_cell(pixels, geometry, 2, 1)
    wanted = 40 + 10 * (np.arange(32) + 0.5) * 0.5
    inner = slice(4, -4)  # the box's last pixels are repeated beyond its ends
    assert np.abs(tile[:, inner, 1] - wanted[None, inner]).max() <= 1.5


def test_equal_pixel_sizes_copy_the_pixels() -> None:
    geometry = GridGeometry(0.5, 64, 64, 0.5)
    pixels = textured(64, 64)
    tile = resample_cell(pixels, geometry, 4, -2)
    assert np.array_equal(tile, pixels)
    tile[...] = 0
    assert pixels.any()


def test_whole_boxes_are_averaged_by_opencv_exactly() -> None:
    geometry = GridGeometry(0.25, 64, 64, 0.5)
    pixels = textured(128, 128)
    wanted = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resample_cell(pixels, geometry, 0, 0), wanted)


@settings(max_examples=30)
@given(
    mpp=st.sampled_from([0.2271, 0.25, 0.3, 0.499]),
    i=st.integers(0, 5),
    j=st.integers(0, 5),
    left=st.integers(0, 30),
    top=st.integers(0, 30),
)
def test_the_tile_does_not_depend_on_what_surrounds_the_box(
    mpp: float, i: int, j: int, left: int, top: int
) -> None:
    geometry = GridGeometry(mpp, 32, 32, 0.5)
    box = geometry.box(i, j)
    alone = textured(box.height_px, box.width_px)
    field = textured(box.height_px + top + 9, box.width_px + left + 9, seed=1)
    field[top : top + box.height_px, left : left + box.width_px] = alone
    within = field[top : top + box.height_px, left : left + box.width_px]
    assert np.array_equal(
        resample_cell(within, geometry, i, j), resample_cell(alone, geometry, i, j)
    )


def test_a_tile_can_be_put_into_a_batch() -> None:
    geometry = GridGeometry(0.499, 32, 32, 0.5)
    box = geometry.box(1, 1)
    pixels = textured(box.height_px, box.width_px)
    batch = np.zeros((3, 32, 32, 3), np.uint8)
    resample_cell(pixels, geometry, 1, 1, out=batch[1])
    assert np.array_equal(batch[1], resample_cell(pixels, geometry, 1, 1))
    assert not batch[0].any()
    assert not batch[2].any()


def test_pixels_of_another_size_than_the_box_are_refused() -> None:
    with pytest.raises(FrameError, match="covers 33 x 33"):
        resample_cell(np.zeros((32, 32, 3), np.uint8), GridGeometry(0.499, 32, 32, 0.5), 0, 0)
