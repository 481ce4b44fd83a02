"""Read a whole-slide image with OpenSlide: level 0 as one large image, and its pixel size."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mil.errors import DependencyError, PixelSizeError, SourceError
from edge_mil.types import UInt8Array, check_mpp

if TYPE_CHECKING:
    import openslide

MAX_ANISOTROPY = 0.01
"""Share by which the pixel sizes of x and y may differ: scanners round to three digits."""

MAX_DISAGREEMENT = 0.05
"""Share by which a given pixel size may differ from the file's own, as on the wire
(`docs/design/imaging.md`, "Declared against known"); files round theirs."""

OPAQUE = 255
"""Alpha of a pixel that was scanned."""

OVERVIEW_BAND_PX = 1024
"""Rows that are read at once for an overview."""


class SlideFile:
    """An archived slide; coordinates are level-0 pixels, (0, 0) the top left corner.

    Several threads may read at once.

    Attributes:
        path: The file.
        mpp: Pixel size of level 0, um/px.
        width_px: Columns of level 0.
        height_px: Rows of level 0.
    """

    def __init__(self, path: Path, mpp: float | None = None, *, insist: bool = False) -> None:
        """Open a slide.

        Args:
            path: Any file that OpenSlide reads.
            mpp: Pixel size of level 0, um/px; None takes the file's own.
            insist: Take `mpp` also where the file says another pixel size.

        Raises:
            SourceError: The file is not there, or OpenSlide cannot read it.
            PixelSizeError: The pixel size is unknown, impossible or not square, or `mpp` is more
                than 5 % from the file's own and nobody insists.
            DependencyError: OpenSlide is not installed.
        """
        self.path = path
        self._use = threading.Condition()
        self._readers, self._closed = 0, False
        self._slide = _open(path)
        try:
            self.width_px, self.height_px = self._slide.dimensions
            self.mpp = _given_or_own(self._slide, path, mpp, insist=insist)
        except (PixelSizeError, SourceError):
            self._slide.close()
            raise

    def read(self, x: int, y: int, width_px: int, height_px: int) -> UInt8Array:
        """Return a part of level 0, RGB uint8 (height_px, width_px, 3); unscanned parts are white.

        Raises:
            SourceError: That part of the file is damaged.
        """
        return self._read(x, y, 0, width_px, height_px)

    def read_whole(self, long_side_px: int) -> tuple[UInt8Array, float]:
        """Return the whole slide, RGB uint8 (h, w, 3), and level-0 pixels per pixel of it.

        The smallest level whose long side is at least `long_side_px` is read in bands and thinned
        to about that size.

        Raises:
            SourceError: A part of the file is damaged.
        """
        wanted = max(1.0, max(self.width_px, self.height_px) / long_side_px)
        level = max(0, self._slide.get_best_level_for_downsample(wanted))
        width, height = self._slide.level_dimensions[level]
        zoom = self._slide.level_downsamples[level]
        step = max(1, int(wanted / zoom))
        rows = []
        band_px = max(step, (OVERVIEW_BAND_PX // step) * step)
        for top in range(0, height, band_px):
            band = self._read(0, round(top * zoom), level, width, min(band_px, height - top))
            rows.append(band[::step, ::step])
        return np.concatenate(rows), zoom * step

    def close(self) -> None:
        """Close the file once no thread reads it; calling it twice does no harm."""
        with self._use:
            if self._closed:
                return
            self._closed = True
            # OpenSlide crashes when a file is closed while it is read.
            self._use.wait_for(lambda: not self._readers)
        self._slide.close()

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> UInt8Array:
        import openslide

        with self._use:
            if self._closed:
                raise SourceError(f"{self.path.name} was closed; open it again.", file=self.path)
            self._readers += 1
        try:
            region = self._slide.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError as error:
            raise SourceError(
                f"{self.path.name} is damaged at ({x}, {y}): {error}; copy the file again.",
                file=self.path,
            ) from error
        finally:
            with self._use:
                self._readers -= 1
                self._use.notify_all()
        rgba = np.asarray(region)
        colours, alpha = rgba[:, :, :3], rgba[:, :, 3:]
        if int(alpha.min()) == OPAQUE:
            return np.ascontiguousarray(colours)
        # Unscanned parts are transparent black; over white they are glass.
        opaque = alpha.astype(np.uint16)
        mixed = (colours * opaque + OPAQUE * (OPAQUE - opaque) + OPAQUE // 2) // OPAQUE
        return mixed.astype(np.uint8)


def _open(path: Path) -> openslide.OpenSlide:
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise DependencyError(
            "Slides need OpenSlide, which is not installed; run pip install 'edge-mil[device]'."
        ) from error
    if not path.exists():
        raise SourceError(f"There is no slide {path}; check the path.", file=path)
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SourceError(
            f"{path.name} is no slide that OpenSlide reads; give a slide file (svs, ndpi, mrxs, "
            "tiled tiff, ...) or a folder of images.",
            file=path,
        ) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise SourceError(
            f"{path.name} cannot be read ({error}); it may be truncated: copy it again.", file=path
        ) from error


def _given_or_own(
    slide: openslide.OpenSlide, path: Path, given: float | None, *, insist: bool
) -> float:
    """Return the given pixel size, compared with the file's own; the file's where none is given."""
    if given is None:
        return _pixel_size(slide, path)
    mpp = check_mpp(given, "--mpp")
    own = _stated_sizes(slide)
    if own is None or insist:
        return mpp
    if any(abs(mpp - size) > MAX_DISAGREEMENT * size for size in own):
        x, y = own
        stated = f"{x:.4g}" if abs(x - y) <= MAX_ANISOTROPY * max(x, y) else f"{x:.4g} by {y:.4g}"
        raise PixelSizeError(
            f"--mpp is {mpp:.4g} and {path.name} itself says {stated} µm per pixel; they may "
            f"differ by {MAX_DISAGREEMENT:.0%}. Leave --mpp out, or add --insist-mpp where the "
            "file is wrong.",
            reason="PIXEL_SIZE_CONTRADICTED",
            mpp=mpp,
            file_mpp=(x + y) / 2,
        )
    return mpp


def _stated_sizes(slide: openslide.OpenSlide) -> tuple[float, float] | None:
    """Return the pixel sizes (x, y) that the file states, um/px; None where it states none."""
    sizes = []
    for name in ("openslide.mpp-x", "openslide.mpp-y"):
        try:
            sizes.append(float(slide.properties[name]))
        except (KeyError, ValueError):
            sizes.append(math.nan)
    x, y = sizes
    return (x, y) if math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0 else None


def _pixel_size(slide: openslide.OpenSlide, path: Path) -> float:
    stated = _stated_sizes(slide)
    if stated is None:
        raise PixelSizeError(
            f"{path.name} does not say its pixel size; give it with --mpp, in micrometres per "
            "pixel of its full resolution (a 20x scan is often 0.5, a 40x scan 0.25).",
            file=path,
        )
    x, y = stated
    if abs(x - y) > MAX_ANISOTROPY * max(x, y):
        raise PixelSizeError(
            f"{path.name} has pixels of {x:g} by {y:g} µm, which are not square; resample it to "
            "square pixels, or give --mpp with --insist-mpp when the file is wrong.",
            x=x,
            y=y,
        )
    return check_mpp((x + y) / 2, f"The pixel size of {path.name}")
