"""Whole fields as instances: each slot of the slide is represented by its best field."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edge_mil.errors import PixelSizeError, PositionError
from edge_mil.imaging.outline import squares_inside
from edge_mil.imaging.tissue import TissueTest
from edge_mil.types import Frame, Measure, Region, UInt8Array, Verdict, check_mpp

Slot: TypeAlias = tuple[int, int] | str
"""A slot of the stage (column, row), or the location id of an independent field."""

MPP_TOLERANCE = 0.1
"""Relative difference of pixel sizes: a field is shrunk to a tile without regard to its pixel size,
so it must have about that of the training fields."""

SHARPNESS_STEP = 1.5
"""Fields whose sharpness differs by less than this factor are equally sharp."""

MIN_SHARPNESS = 1e-3
"""Grey levels squared; below is no structure, and the estimate may even be negative."""

DISTANCE_DIGITS = 3
"""Distances are rounded to 0.001 um: two ways to compute one centre must not differ."""

EDGE_TOLERANCE = 1e-9
"""Slack of a slot's edge, in slots, and of the tolerance of pixel sizes: rounding errors only."""


def check_field_mpp(mpp: float, target_mpp: float) -> None:
    """Check that a field's pixel size is the one that the model was trained at.

    Args:
        mpp: Pixel size of the camera, um/px.
        target_mpp: Pixel size of the camera that the model was trained at, um/px.

    Raises:
        PixelSizeError: It is impossible, or differs by more than 10 %.
    """
    check_mpp(mpp)
    if abs(mpp - target_mpp) > MPP_TOLERANCE * target_mpp * (1 + EDGE_TOLERANCE):
        raise PixelSizeError(
            f"The camera is at {mpp:g} µm/px and this bundle takes whole fields at "
            f"{target_mpp:g} (within {MPP_TOLERANCE:.0%}); use the objective that it was trained "
            "with, or another bundle.",
            mpp=mpp,
            target_mpp=target_mpp,
        )


def bring_to_tile(pixels: UInt8Array, tile_h: int, tile_w: int) -> UInt8Array:
    """Shrink a whole field, RGB uint8 (h, w, 3), to (tile_h, tile_w, 3) by area averaging."""
    return cv2.resize(pixels, (tile_w, tile_h), interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def sharpness(tile: UInt8Array) -> float:
    """Return the gradient energy of a tile without that of its noise, grey levels squared.

    Args:
        tile: RGB uint8, shape (h, w, 3).

    Returns:
        With g the grey image, dx[y, x] = g[y, x+1] - g[y, x] and dy[y, x] = g[y+1, x] - g[y, x]:
        mean(dx[y, x] dx[y+1, x]) + mean(dy[y, x] dy[y, x+1]), at least MIN_SHARPNESS.

    Source:
        The squared-gradient focus measures (Groen et al., Cytometry 6:81, 1985) with the square
        replaced by the product of neighbouring differences. They share no pixel, so noise that is
        independent from pixel to pixel adds 0 on average, while an edge counts with its square.
    """
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = np.diff(grey, axis=1), np.diff(grey, axis=0)
    across = float(np.mean(dx[:-1] * dx[1:], dtype=np.float64)) if len(dx) > 1 else 0.0
    down = float(np.mean(dy[:, :-1] * dy[:, 1:], dtype=np.float64)) if dy.shape[1] > 1 else 0.0
    return max(across + down, MIN_SHARPNESS)


@dataclass(frozen=True, slots=True, order=True)
class ViewRank:
    """Rank of a field within its slot; the smallest is the best, and different fields never tie.

    Attributes:
        dullness: Minus the sharpness class, which is floor(log(sharpness) / log(1.5)).
        distance_um: From the field's centre to that of the slot; 0 for an independent field.
        sha256: Of the field's pixels, hex.
    """

    dullness: int
    distance_um: float
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class SlotUpdate:
    """What one field changes in a `SlotMap`; nothing changes until `SlotMap.commit`.

    Attributes:
        sequence: Number of the field.
        verdict: ACCEPTED, DUPLICATE or BLANK.
        slot: Slot of the field's centre.
        tile: The instance, RGB uint8, shape (tile_h, tile_w, 3).
        rank: Rank of the field within the slot.
        replaces: Number of the field whose instance it replaces; None when the slot was empty.
        candidate: Whether the field is kept, as it would represent the slot were the better ones
            removed. Not kept are a blank field and one with the pixels of an earlier one.
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
    """The field that represents each slot of the slide; one owner, one thread."""

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
            min_difference: Grey levels below it from which a pixel is tissue.
            min_share: Share of tissue pixels from which the whole field is tissue, 0 to 1.
            mpp: Pixel size of the camera, um/px; needed for fields that have a position.
            outline: Tissue outline, stage um, where it is known before; only coverage uses it.
        """
        self.tile_h, self.tile_w, self.mpp = tile_h, tile_w, mpp
        self.tissue = TissueTest(background, min_difference, min_share)
        self._outline = tuple(outline)
        self._outline_slots: Set[Slot] = frozenset()
        # Held slots outside of the outline: a counter, because `coverage` is asked after every
        # field.
        self._held_outside = 0
        self._ranked: dict[Slot, list[tuple[ViewRank, int]]] = {}

    @property
    def held(self) -> int:
        """Number of slots that have an instance, which is the size of the bag."""
        return len(self._ranked)

    def slot_of(self, x_um: float, y_um: float, width_px: int, height_px: int) -> tuple[int, int]:
        """Return the slot (column, row) of a field's centre, for fields of this size.

        Raises:
            PixelSizeError: The session has no pixel size.
        """
        width_um, height_um = self._slot_um(height_px, width_px)
        return _slot_of(x_um, width_um), _slot_of(y_um, height_um)

    def plan(self, frame: Frame, sequence: int) -> SlotUpdate:
        """Compute what a field changes; changes nothing.

        Raises:
            PositionError: The frame has neither a stage position nor a location id.
            PixelSizeError: It has a stage position and the session no pixel size.
        """
        slot, distance_um = self._locate(frame)
        tile = bring_to_tile(frame.pixels, self.tile_h, self.tile_w)
        share, sharp = self.tissue.share(tile), sharpness(tile)
        digest = hashlib.sha256(np.ascontiguousarray(frame.pixels).data).hexdigest()
        rank = ViewRank(
            -math.floor(math.log(sharp) / math.log(SHARPNESS_STEP)), distance_um, digest
        )
        verdict, replaces = Verdict.ACCEPTED, None
        ranked = self._ranked.get(slot, [])
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

    def commit(self, update: SlotUpdate) -> None:
        """Apply a plan; only a candidate changes anything."""
        if update.candidate:
            self.restore(update.sequence, update.slot, update.rank)

    def restore(self, sequence: int, slot: Slot, rank: ViewRank) -> None:
        """Add a candidate of a plan or of the store, the best of its slot or not."""
        self._held_outside += slot not in self._ranked and slot not in self._outline_slots
        self._ranked.setdefault(slot, []).append((rank, sequence))
        self._ranked[slot].sort()

    def remove(self, sequence: int) -> tuple[Slot | None, int | None]:
        """Remove a field.

        Returns:
            The slot whose instance changes, None when the field was not the best of any; and the
            number of the candidate that represents it now, None when the slot is empty.
        """
        for slot, ranked in list(self._ranked.items()):
            if all(number != sequence for _, number in ranked):
                continue
            was_best = ranked[0][1] == sequence
            ranked[:] = [entry for entry in ranked if entry[1] != sequence]
            if not ranked:
                del self._ranked[slot]
                self._held_outside -= slot not in self._outline_slots
            return (slot, ranked[0][1] if ranked else None) if was_best else (None, None)
        return None, None

    def instances(self) -> dict[Slot, int]:
        """Return the number of the field that represents each slot."""
        return {slot: ranked[0][1] for slot, ranked in self._ranked.items()}

    def check_field_size(self, height_px: int, width_px: int) -> None:
        """Raise UsageError where the outline spans too many slots of fields of this size."""
        if self._outline:
            squares_inside(self._outline, *self._slot_um(height_px, width_px), EDGE_TOLERANCE)

    def set_field_size(self, height_px: int, width_px: int) -> None:
        """Set the size of the session's fields, from which the slots of the outline follow.

        Raises:
            PixelSizeError: The session has an outline and no pixel size.
            UsageError: The outline spans too many slots of that size.
        """
        if self._outline:
            width_um, height_um = self._slot_um(height_px, width_px)
            self._outline_slots = squares_inside(self._outline, width_um, height_um, EDGE_TOLERANCE)
            self._held_outside = sum(slot not in self._outline_slots for slot in self._ranked)

    def coverage(self) -> float:
        """Return the share held of the slots known to show tissue, 0 to 1; 0 when none is.

        Known are the slots held and, once the field size is set, those of the outline.
        """
        known = len(self._outline_slots) + self._held_outside
        return len(self._ranked) / known if known else 0.0

    def outline_slots(self) -> Set[Slot]:
        """Return the slots of the outline; empty before the field size is set."""
        return self._outline_slots

    def focus(self) -> dict[Slot, float]:
        """Return the lower end of the sharpness class of each slot's field; thread-safe."""
        best = [(slot, ranked[0][0]) for slot, ranked in list(self._ranked.items()) if ranked]
        return {slot: SHARPNESS_STEP**-rank.dullness for slot, rank in best}

    def _locate(self, frame: Frame) -> tuple[Slot, float]:
        if frame.location_id:
            return frame.location_id, 0.0
        if frame.x_um is None or frame.y_um is None:
            raise PositionError(
                "The field has no stage position; send its position, or open the session for "
                "independent fields and give each a location (edge-mil stream --independent)."
            )
        width_um, height_um = self._slot_um(frame.height_px, frame.width_px)
        column, row = self.slot_of(frame.x_um, frame.y_um, frame.width_px, frame.height_px)
        distance_um = math.hypot(
            frame.x_um - (column + 0.5) * width_um, frame.y_um - (row + 0.5) * height_um
        )
        return (column, row), round(distance_um, DISTANCE_DIGITS)

    def _slot_um(self, height_px: int, width_px: int) -> tuple[float, float]:
        if self.mpp is None:
            raise PixelSizeError(
                "The field has a stage position but the session has no pixel size; declare it "
                "when the session is opened (--mpp)."
            )
        return width_px * self.mpp, height_px * self.mpp


def _slot_of(position_um: float, slot_um: float) -> int:
    return math.floor(position_um / slot_um + EDGE_TOLERANCE)
