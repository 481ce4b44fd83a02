"""The slide file that we write, as OpenSlide reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mil.cameras import SlideFile
from edge_mil.demo.painted_slide import paint_slide
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.errors import PixelSizeError, SourceError


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    return paint_slide(1, positive=True, height_px=600, width_px=1100).pixels


@pytest.mark.parametrize("mpp", [0.5, 0.2527])
def test_openslide_reads_size_pixel_size_and_pixels(
    painted: np.ndarray, tmp_path: Path, mpp: float
) -> None:
    path = tmp_path / "painted.tiff"
    write_tiled_tiff(path, painted, mpp)
    slide = SlideFile(path)
    try:
        assert (slide.width_px, slide.height_px) == (1100, 600)
        assert slide.mpp == pytest.approx(mpp, rel=1e-4)
        # Not a multiple of the tile: the last tiles are padded, and the padding never shows.
        again = slide.read(0, 0, 1100, 600)
        assert np.abs(again.astype(int) - painted.astype(int)).mean() < 3
    finally:
        slide.close()


def test_the_file_is_a_pyramid(painted: np.ndarray, tmp_path: Path) -> None:
    import openslide

    path = tmp_path / "painted.tiff"
    write_tiled_tiff(path, painted, 0.5)
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((1100, 600), (550, 300), (275, 150))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


def test_an_impossible_pixel_size_is_refused(painted: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(PixelSizeError):
        write_tiled_tiff(tmp_path / "painted.tiff", painted, 0.0)


def test_a_place_that_cannot_be_written_is_one_sentence(
    painted: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="cannot be written"):
        write_tiled_tiff(tmp_path / "missing" / "painted.tiff", painted, 0.5)
