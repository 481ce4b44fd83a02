"""Whole fields as instances: the best usable field of each slot of the slide counts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.errors import PixelSizeError, PositionError
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Frame, Measure, Region, UInt8Array, Verdict, check_mpp

Slot: TypeAlias = tuple[int, int] | str
"""A slot of the stage (column, row), or the place of an independent field."""

MPP_TOLERANCE = 0.1
"""`design.md`, section 3: a field is not resampled to a pixel size, so it must have the model's."""

SHARPNESS_STEP = 1.5
"""Fields whose sharpness differs by less than this factor are equally sharp."""

MIN_SHARPNESS = 1e-3
"""Grey levels squared; below is no structure at all, and the estimate may even be negative."""

_SLOT_EDGE = 1e-9


def check_field_mpp(mpp: float, target_mpp: float) -> None:
    """Check that a field's pixel size is the one that the model was trained at.

    Args:
        mpp: Pixel size of the camera, um/px.
        target_mpp: Pixel size of the camera that the model was trained at, um/px.

    Raises:
        PixelSizeError: It is impossible, or differs by more than 10 %.
    """
    check_mpp(mpp)
    if abs(mpp - target_mpp) > MPP_TOLERANCE * target_mpp * (1 + _SLOT_EDGE):
        raise PixelSizeError(
            f"The camera is at {mpp:g} um/px and this bundle takes whole fields at "
            f"{target_mpp:g} (within {MPP_TOLERANCE:.0%}); use the objective that it was trained "
            "with, or another bundle.",
            mpp=mpp,
            target_mpp=target_mpp,
        )


def bring_to_tile(pixels: UInt8Array, tile_h: int, tile_w: int) -> UInt8Array:
    """Bring a whole field, RGB uint8 (h, w, 3), to (tile_h, tile_w, 3) by area averaging."""
    return cv2.resize(pixels, (tile_w, tile_h), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def sharpness(tile: UInt8Array) -> float:
    """Return the gradient energy of a tile without that of its noise, grey levels squared.

    With g the grey image, dx[y, x] = g[y, x+1] - g[y, x] and dy[y, x] = g[y+1, x] - g[y, x]:
    mean(dx[y, x] dx[y+1, x]) + mean(dy[y, x] dy[y, x+1]). Each product is of differences that share
    no pixel, so noise that is independent from pixel to pixel has a mean of 0 in it, whatever its
    strength, while an edge counts with its square.

    Args:
        tile: RGB uint8, shape (h, w, 3).
    """
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = np.diff(grey, axis=1), np.diff(grey, axis=0)
    across = float(np.mean(dx[:-1] * dx[1:], dtype=np.float64)) if len(dx) > 1 else 0.0
    down = float(np.mean(dy[:, :-1] * dy[:, 1:], dtype=np.float64)) if dy.shape[1] > 1 else 0.0
    return max(across + down, MIN_SHARPNESS)


@dataclass(frozen=True, slots=True, order=True)
class ViewRank:
    """How good a field is for its slot; the smallest is the best, and no two fields tie.

    Attributes:
        dullness: Minus the sharpness class: floor(log(sharpness) / log(1.5)).
        distance_um: From the field's centre to that of the slot; 0 for a place.
        sha256: Of the field's pixels, hex.
    """

    dullness: int
    distance_um: float
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class SlotUpdate:
    """What one field brings; nothing is changed until `SlotMap.apply`.

    Attributes:
        sequence: Number of the field.
        verdict: ACCEPTED, DUPLICATE or BLANK.
        slot: Where it belongs.
        tile: The instance, RGB uint8, shape (tile_h, tile_w, 3).
        rank: How good it is.
        replaces: Number of the field whose instance it takes the place of; None when it is new.
        candidate: Whether it is worth keeping: it could stand for the slot, were the better ones
            removed. A blank field is not, nor one of the very pixels of an earlier one.
        measures: `tissue_share` with its threshold, and `sharpness`.
    """

    sequence: int
    verdict: Verdict
    slot: Slot
    tile: UInt8Array
    rank: ViewRank
    replaces: int | None
    candidate: bool
    measures: tuple[Measure, ...]


class SlotMap:
    """Which field stands for each slot of the slide. One owner, one thread."""

    def __init__(
        self,
        tile_h: int,
        tile_w: int,
        *,
        background: tuple[float, ...],
        min_difference: float,
        min_share: float,
        mpp: float | None = None,
        outline: Sequence[Region] = (),
    ) -> None:
        """Begin with no slot known.

        Args:
            tile_h: Rows of a model tile.
            tile_w: Columns of a model tile.
            background: Colour of empty glass, RGB 0 to 255.
            min_difference: Grey levels darker than it that make a pixel tissue.
            min_share: Share of tissue pixels that makes the whole field tissue.
            mpp: Pixel size of the camera, um/px; needed for fields that have a position.
            outline: Where the tissue is, when it is known before; only coverage uses it.
        """
        self.tile_h, self.tile_w, self.mpp = tile_h, tile_w, mpp
        self.tissue = TissueTest(background, min_difference, min_share)
        self._outline = tuple(outline)
        self._expected: set[Slot] = set()
        self._taken: dict[Slot, list[tuple[ViewRank, int]]] = {}

    @property
    def held(self) -> int:
        """Slots that have an instance: the size of the bag."""
        return len(self._taken)

    def slot_of(self, x_um: float, y_um: float, width_px: int, height_px: int) -> tuple[int, int]:
        """Return the slot that holds the centre of a field of this size.

        Raises:
            PixelSizeError: The session has no pixel size.
        """
        width_um, height_um = self._slot_um(height_px, width_px)
        return _slot_of(x_um, width_um), _slot_of(y_um, height_um)

    def judge(self, frame: Frame, sequence: int) -> SlotUpdate:
        """Say what a field brings, without taking it.

        Raises:
            PositionError: It has neither a position nor a place.
            PixelSizeError: It has a position and the session no pixel size.
        """
        slot, distance_um = self._locate(frame)
        tile = bring_to_tile(frame.pixels, self.tile_h, self.tile_w)
        share, sharp = self.tissue.share(tile), sharpness(tile)
        digest = hashlib.sha256(np.ascontiguousarray(frame.pixels).data).hexdigest()
        rank = ViewRank(
            -math.floor(math.log(sharp) / math.log(SHARPNESS_STEP)), distance_um, digest
        )
        verdict, replaces = Verdict.ACCEPTED, None
        ranked = self._taken.get(slot, [])
        if share < self.tissue.min_share:
            verdict = Verdict.BLANK
        elif ranked:
            if rank < ranked[0][0]:
                replaces = ranked[0][1]
            else:
                verdict = Verdict.DUPLICATE
        candidate = verdict is not Verdict.BLANK and all(r != rank for r, _ in ranked)
        measures = (
            Measure("tissue_share", share, self.tissue.min_share, verdict is not Verdict.BLANK),
            Measure("sharpness", sharp),
        )
        return SlotUpdate(sequence, verdict, slot, tile, rank, replaces, candidate, measures)

    def apply(self, view: SlotUpdate) -> None:
        """Take what `judge` found; only a candidate changes anything."""
        if view.candidate:
            self.restore(view.sequence, view.slot, view.rank)

    def restore(self, sequence: int, slot: Slot, rank: ViewRank) -> None:
        """Put back a candidate, the best of its slot or not."""
        self._taken.setdefault(slot, []).append((rank, sequence))
        self._taken[slot].sort()

    def remove(self, sequence: int) -> tuple[Slot | None, int | None]:
        """Take a field out.

        Returns:
            The slot whose instance changes, None when the field was not the best of any; and the
            number of the candidate that stands for it again, None when the slot is empty.
        """
        for slot, ranked in list(self._taken.items()):
            if all(number != sequence for _, number in ranked):
                continue
            was_best = ranked[0][1] == sequence
            ranked[:] = [entry for entry in ranked if entry[1] != sequence]
            if not ranked:
                del self._taken[slot]
            return (slot, ranked[0][1] if ranked else None) if was_best else (None, None)
        return None, None

    def instances(self) -> dict[Slot, int]:
        """Return each slot's field, by its number."""
        return {slot: ranked[0][1] for slot, ranked in self._taken.items()}

    def expect(self, height_px: int, width_px: int) -> None:
        """Learn the size of the session's fields, and so which slots its outline holds.

        Raises:
            PixelSizeError: The session has an outline and no pixel size.
        """
        if self._outline:
            width_um, height_um = self._slot_um(height_px, width_px)
            self._expected = {
                (column, row)
                for region in self._outline
                for row in _centres(region.y_um, region.height_um, height_um)
                for column in _centres(region.x_um, region.width_um, width_um)
            }

    def coverage(self) -> float:
        """Return the share held of the slots known to show tissue, 0 to 1; 0 when none is.

        Known are the slots held and, once `expect` was called, those of the outline.
        """
        known = len(set(self._taken) | self._expected)
        return len(self._taken) / known if known else 0.0

    def expected(self) -> set[Slot]:
        """Return the slots of the outline."""
        return self._expected

    def focus(self) -> dict[Slot, float]:
        """Return the sharpness class of each slot's field, as its lower end; from any thread."""
        best = [(slot, ranked[0][0]) for slot, ranked in list(self._taken.items()) if ranked]
        return {slot: SHARPNESS_STEP**-rank.dullness for slot, rank in best}

    def _locate(self, frame: Frame) -> tuple[Slot, float]:
        if frame.location_id:
            return frame.location_id, 0.0
        if frame.x_um is None or frame.y_um is None:
            raise PositionError(
                "The field has no stage position; send its position, or open the session for "
                "independent fields and give each a place (edge-mil stream --independent)."
            )
        width_um, height_um = self._slot_um(frame.height_px, frame.width_px)
        column, row = self.slot_of(frame.x_um, frame.y_um, frame.width_px, frame.height_px)
        distance_um = math.hypot(
            frame.x_um - (column + 0.5) * width_um, frame.y_um - (row + 0.5) * height_um
        )
        # To a thousandth of a um: two ways to compute one centre must not differ.
        return (column, row), round(distance_um, 3)

    def _slot_um(self, height_px: int, width_px: int) -> tuple[float, float]:
        if self.mpp is None:
            raise PixelSizeError(
                "The field has a stage position but the session has no pixel size; declare it "
                "when the session is opened (--mpp)."
            )
        return width_px * self.mpp, height_px * self.mpp


def _slot_of(position_um: float, slot_um: float) -> int:
    return math.floor(position_um / slot_um + _SLOT_EDGE)


def _centres(start_um: float, length_um: float, slot_um: float) -> range:
    first, end = start_um / slot_um - 0.5, (start_um + length_um) / slot_um - 0.5
    return range(math.ceil(first - _SLOT_EDGE), math.ceil(end - _SLOT_EDGE))
