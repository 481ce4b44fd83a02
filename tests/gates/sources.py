"""The real fields that the gates are fitted to and measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_mil.cameras.folder import read_image
from edge_mil.types import Float32Array

MAIN = ("blood_disease_fov", "blood_cells_fov", "bccd", "breakhis_400x", "osteosarcoma_he")
EXTRA = ("oral_he", "crc_he")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

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
