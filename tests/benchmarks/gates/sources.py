"""The real fields that the gates are fitted to and measured on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edge_mil.cameras.image_folder import read_image
from edge_mil.types import Float32Array, UInt8Array

MAIN = ("blood_disease_fov", "blood_cells_fov", "bccd", "breakhis_400x", "osteosarcoma_he")
EXTRA = ("oral_he", "crc_he")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

SUPPORT = Path(__file__).resolve().parents[2] / "support"
"""Folder of the tests' own helpers."""

MIN_PART_SHARE = 0.3

HALVES = ("all", "fit", "check")


def fields_of(data: Path, name: str, half: str = "all") -> list[Path]:
    """Return the image files of a set, sorted; every other one for "fit", the rest for "check"."""
    found = sorted(path for path in (data / name).rglob("*") if path.suffix.lower() in SUFFIXES)
    if half == "all":
        return found
    return found[0::2] if half == "fit" else found[1::2]


def spread(paths: list[Path], count: int) -> list[Path]:
    """Return at most `count` of the paths, spread over them."""
    if len(paths) <= count:
        return paths
    return [paths[k] for k in np.linspace(0, len(paths) - 1, count).astype(int)]


def real_shading(data: Path) -> Float32Array:
    """Return the light of `brightfield_shading`: the median of its frames, without its cells."""
    import cv2

    frames = [read_image(path)[..., 1] for path in fields_of(data, "brightfield_shading")]
    middle = np.median(np.stack(frames), axis=0).astype(np.float32)
    return cv2.GaussianBlur(middle, (0, 0), 12.0).astype(np.float32, copy=False)


def slide_parts(data: Path, size_px: tuple[int, int], count: int) -> list[tuple[str, UInt8Array]]:
    """Return parts of the clean slides that show tissue: the real one, and two painted ones.

    Args:
        data: The folder of the shared data.
        size_px: Rows and columns of a part.
        count: Parts of each slide, spread over it.
    """
    from edge_mil.cameras import SlideFile
    from edge_mil.demo.painted_slide import paint_slide
    from edge_mil.imaging.tissue import TissueTest

    slide = SlideFile(data / "slides" / "cmu1_small_region.svs")
    slides = {"cmu1": slide.read(0, 0, slide.width_px, slide.height_px)}
    slide.close()
    for positive in (True, False):
        slides[f"painted_{positive}"] = paint_slide(1 + positive, positive=positive).pixels
    found = []
    rows, columns = size_px
    for name, pixels in slides.items():
        parts = [
            pixels[y : y + rows, x : x + columns]
            for y in range(0, pixels.shape[0] - rows + 1, rows)
            for x in range(0, pixels.shape[1] - columns + 1, columns)
        ]
        full = [part for part in parts if TissueTest().share(part) > MIN_PART_SHARE]
        chosen = np.linspace(0, len(full) - 1, min(count, len(full))).astype(int)
        found += [(name, np.ascontiguousarray(full[k])) for k in chosen]
    return found


def textured_parts(size_px: tuple[int, int], count: int) -> list[tuple[str, UInt8Array]]:
    """Return parts of the tests' made-up slides, whose glass has straight edges.

    Args:
        size_px: Rows and columns of a part.
        count: Parts of each slide, at most.
    """
    sys.path.append(str(SUPPORT))
    from textured_slide import textured_slide

    rows, columns = size_px
    found = []
    for seed in (0, 3, 5):
        pixels = textured_slide(2 * columns, 2 * rows, seed=seed, margin_px=120)
        corners = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
        for y, x in corners[:count]:
            part = np.ascontiguousarray(pixels[y : y + rows, x : x + columns])
            found.append(("textured", part))
    return found
