"""Focus of one cell of a field: half a field may be sharp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from edge_mil.imaging.quality.focus import focus_log_odds, noise_corrected
from edge_mil.imaging.quality.spectrum import MIN_BLOCKS, field_spectrum, tissue_blocks
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import UInt8Array

WINDOW_PX, ENLARGEMENT = 256, 2
"""Least side of the window in which a cell is judged: it holds 16 blocks, as many as a small field
that is judged as a whole. Where too few of them show tissue the window is enlarged once, by this
factor."""

BlurTest: TypeAlias = Callable[[int, int, int, int], bool]
"""Whether the cell in the box x0, y0, x1, y1 of a field is out of focus; the box may reach beyond
the field."""


class CellFocus:
    """Judges the cells of one field; it depends on the field's pixels alone.

    A cell is judged by a window of its size inside the field, so that a cell at the field's edge is
    judged by what lies beside it in the same exposure. The field as a whole is the prior: a cell of
    a sharp field must be clearly blurred to be left out, one of a blurred field clearly sharp to be
    used, by `doubt` log odds each (`docs/design/imaging.md`, "Focus of each cell").
    """

    def __init__(
        self,
        pixels: UInt8Array,
        tissue: TissueTest,
        *,
        min_focus: float,
        doubt: float,
        min_contrast: float,
        blurred: bool,
        grey: UInt8Array | None = None,
    ) -> None:
        """Take over the field; nothing is computed yet.

        Args:
            pixels: RGB uint8 (h, w, 3), after flat field and white balance.
            tissue: The tissue test.
            min_focus: Log odds from which a field is in focus.
            doubt: Log odds by which a cell must differ from the field as a whole.
            min_contrast: Contrast from which there is structure to judge, grey levels.
            blurred: Whether the field as a whole is out of focus.
            grey: The field in grey, uint8 (h, w), where it was computed already.
        """
        self._pixels, self._tissue, self._grey = pixels, tissue, grey
        self._limit = min_focus + (doubt if blurred else -doubt)
        self._min_contrast, self._field_blurred = min_contrast, blurred
        self._known: dict[tuple[int, int, int, int], float | None] = {}

    def is_blurred(self, x0: int, y0: int, x1: int, y1: int) -> bool:
        """Say whether the cell in this box of the field is out of focus."""
        odds = self.log_odds(x0, y0, x1, y1)
        return self._field_blurred if odds is None else odds < self._limit

    def log_odds(self, x0: int, y0: int, x1: int, y1: int) -> float | None:
        """Return the log odds that a cell is in focus; None where there is too little to judge."""
        height, width = self._pixels.shape[:2]
        for least in (WINDOW_PX, ENLARGEMENT * max(WINDOW_PX, x1 - x0, y1 - y0)):
            odds = self._window_log_odds(
                *_window(x0, x1, width, least), *_window(y0, y1, height, least)
            )
            if odds is not None:
                return odds
        return None

    def _window_log_odds(self, left: int, right: int, top: int, bottom: int) -> float | None:
        key = (left, top, right, bottom)
        if key not in self._known:
            part = np.s_[top:bottom, left:right]
            grey = None if self._grey is None else self._grey[part]
            blocks = tissue_blocks(self._pixels[part], self._tissue, grey)
            spectrum = field_spectrum(blocks)
            judged = (
                spectrum is not None
                and len(blocks) >= MIN_BLOCKS
                and spectrum.contrast >= self._min_contrast
            )
            self._known[key] = (
                focus_log_odds(noise_corrected(spectrum)) if judged and spectrum else None
            )
        return self._known[key]


def _window(start: int, end: int, size: int, least: int) -> tuple[int, int]:
    """Return a window around a box, inside of the field, `least` pixels long where it can be."""
    length = min(max(end - start, least), size)
    first = round((start + end - length) / 2)
    first = min(max(first, 0), size - length)
    return first, first + length
