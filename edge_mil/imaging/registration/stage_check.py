"""Compare the stage's positions with the images before they are used, and refine them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_mil.imaging.registration.field_pair import (
    FieldPair,
    PairOutcome,
    compare_at,
    search_anywhere,
)
from edge_mil.imaging.registration.key_frames import (
    KeyFrame,
    KeyFrames,
    make_key_frame,
    stored_pyramid,
)
from edge_mil.imaging.registration.magnification import magnification_ratio
from edge_mil.imaging.registration.pairwise import confirm_shift, register_pair, score_shift
from edge_mil.imaging.registration.pose_graph import Position
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_comparison import (
    MAX_STAGE_ERROR_UM,
    Affine,
    StageComparison,
    check_affine,
)
from edge_mil.imaging.registration.stage_offset import StageOffset

MIN_GAIN = 0.1
"""Response by which a refined position must exceed the stage's own before a field is moved."""

REFUSAL_OVERLAP = 0.15
"""Overlap of a registration that may refuse a single field: below it, material that repeats itself
was registered wrongly in 9 of 400 fields of blood films."""

DIFFERING_OVERLAP = 0.25
"""A field that should share this much with an earlier one, has texture, and agrees with nothing,
lies elsewhere: 0 of 126 fields of good sessions did (noise 4, jitter 4 um, blur 1.5)."""

MAX_KEYS = 4
MIN_OVERLAP = 0.03
"""Key frames that a field is compared with, and the share of it that they must show."""

KEY_OVERLAP = 0.6
KEY_TEXTURE = 0.03
"""A field with less overlap with every key frame, and this share with texture, becomes one."""

SCALE_OVERLAP = 0.3
SCALE_TEXTURE = 0.1
"""Overlap and texture of a field that is tried at other magnifications."""

MAX_SEARCHES = 2
"""Searches over all shifts of one field: 12 ms each on a free core at 640 x 480 px."""

MAGNIFICATION_SEARCHES = 4
"""Searches that one trial of all other magnifications counts as."""


class StageCheck:
    """Compares the fields of a session with its stage; one owner, one thread.

    Attributes:
        size_px: (width, height) of the fields, camera pixels.
        mpp: Pixel size, um/px.
        keys: The key frames.
        confirmed: For x and y, whether any field confirmed the axis.
        offset: Offset of the stage, known so far.
        previous: The newest field that can be registered: a key frame, or one that was refused.
    """

    def __init__(self, size_px: tuple[int, int], mpp: float, affine: Affine | None = None) -> None:
        """Begin with no field known.

        Args:
            size_px: (width, height) of the fields, camera pixels.
            mpp: Pixel size, um/px.
            affine: Row-major 2 x 2, camera pixel to stage um; None: mpp and no rotation.

        Raises:
            PixelSizeError: The affine and the pixel size differ by more than a quarter.
        """
        affine = affine or (mpp, 0.0, 0.0, mpp)
        check_affine(affine, mpp)
        self.size_px, self.mpp = size_px, mpp
        self._affine = np.array(affine, np.float64).reshape(2, 2)
        self._inverse = np.linalg.inv(self._affine)
        self.keys = KeyFrames()
        self.confirmed = (False, False)
        self.offset = StageOffset()
        self.previous: KeyFrame | None = None

    def compare(
        self,
        sequence: int,
        pyramid: RegistrationPyramid,
        x_um: float,
        y_um: float,
        *,
        searches: int = MAX_SEARCHES + MAGNIFICATION_SEARCHES,
        proven: bool = False,
        settled: bool = True,
    ) -> StageComparison:
        """Compare a field's stage position with its neighbours; changes nothing.

        Args:
            sequence: Number of the field.
            pyramid: The field.
            x_um: Stage x of its centre.
            y_um: Stage y of its centre.
            searches: Searches over all shifts that it may take.
            proven: The images proved the stage before: a field that should share a place with
                earlier ones and agrees with none of them does not lie there.
            settled: Its axes are proven too: a field that agrees with one neighbour need not be
                searched on the field before it.
        """
        x, y = self._inverse @ (x_um, y_um) - np.array(self.size_px) / 2
        near = sorted(
            (key for key in self.keys.near(x, y, 1.0) if key.overlap(x, y) >= MIN_OVERLAP),
            key=lambda key: (-key.overlap(x, y), key.sequence),
        )[:MAX_KEYS]
        # 1. The first neighbour that fits within the stage's error says where the field lies.
        for at, key in enumerate(near):
            comparison = self._fit(sequence, pyramid, key, (x, y))
            if comparison is not None:
                dx, dy = comparison.shift_px
                others = near[:at] + near[at + 1 :]
                pairs = self._pairs(others, pyramid, (x + dx, y + dy))
                comparison = replace(comparison, pairs=(*comparison.pairs, *pairs))
                if not settled:
                    found, used = self._search(near, comparison.pairs, pyramid, (x, y), searches)
                    comparison = replace(
                        comparison, pairs=(*comparison.pairs, *found), searches=used
                    )
                return self._with_key(comparison, pyramid, near, (x, y))
        if pyramid.texture < KEY_TEXTURE:
            return self._with_key(StageComparison(sequence), pyramid, near, (x, y))
        # 2. None fits: which of them should, and where else does it fit?
        pairs = self._pairs(near, pyramid, (x, y))
        found, used = self._search(near, pairs, pyramid, (x, y), searches)
        comparison = StageComparison(sequence, pairs=(*pairs, *found), searches=used)
        comparison = self._refused(comparison, near, pyramid, (x, y), searches, proven=proven)
        if comparison.located:
            return self._with_key(comparison, pyramid, near, (x, y))
        reference = make_key_frame(sequence, pyramid, self.size_px, (x, y))
        return replace(comparison, reference=reference)

    def commit(self, comparison: StageComparison) -> None:
        """Keep what a field teaches that was not refused."""
        if comparison.key is not None:
            self.keys.add(comparison.key)
            self.previous = comparison.key
        x, y = self.confirmed
        self.confirmed = (x or comparison.confirmed[0], y or comparison.confirmed[1])
        self.offset = comparison.offset or self.offset

    def restore(
        self,
        keys: Sequence[KeyFrame],
        *,
        confirmed: tuple[bool, bool],
        offset: StageOffset | None = None,
    ) -> None:
        """Restore what is stored: key frames in the order of their numbers, axes and offset."""
        self.offset = offset or StageOffset()
        for key in keys:
            self.keys.add(key)
        self.confirmed = confirmed

    def displacement_um(self, pair: FieldPair) -> tuple[float, float] | None:
        """Return the displacement of a pair by the images, um (x, y); None where nothing fits."""
        if pair.shift_px is None:
            return None
        x, y = self._affine @ pair.shift_px
        return float(x), float(y)

    def _fit(
        self, sequence: int, pyramid: RegistrationPyramid, key: KeyFrame, position: Position
    ) -> StageComparison | None:
        """Fit a field to one key frame within the stage's error; None where it does not fit."""
        dx, dy = position[0] - key.x, position[1] - key.y
        travel_um = np.abs(self._affine @ (dx, dy))
        confirmed = (
            bool(travel_um[0] > MAX_STAGE_ERROR_UM),
            bool(travel_um[1] > MAX_STAGE_ERROR_UM),
        )
        fixed, overlap = self.keys.pyramid(key.sequence), key.overlap(*position)
        # The same view again says nothing new about the stage.
        new = overlap < KEY_OVERLAP
        # 1. The stage's position fits to the pixel.
        if confirm_shift(fixed, pyramid, dx, dy):
            pair = FieldPair(key.sequence, PairOutcome.AGREES, (dx, dy), overlap)
            comparison = StageComparison(sequence, confirmed=confirmed, pairs=(pair,))
            return self._shifted(comparison, (0.0, 0.0), new)
        if pyramid.texture < KEY_TEXTURE:
            return None
        # 2. A position within the stage's error fits better.
        declared = score_shift(fixed, pyramid, dx, dy)
        found = register_pair(fixed, pyramid, (dx, dy), MAX_STAGE_ERROR_UM / self.mpp)
        if declared is not None and found is not None and found.reliable:
            better = found.response - declared.response >= MIN_GAIN
            shift = (found.dx - dx, found.dy - dy) if better else (0.0, 0.0)
            pair = FieldPair(key.sequence, PairOutcome.AGREES, (found.dx, found.dy), found.overlap)
            comparison = StageComparison(
                sequence,
                confirmed=confirmed,
                response=found.response,
                needed=found.needed,
                pairs=(pair,),
            )
            return self._shifted(comparison, shift, new)
        if declared is not None and declared.agrees:
            return StageComparison(sequence, confirmed=confirmed)
        return None

    def _pairs(
        self, keys: Sequence[KeyFrame], pyramid: RegistrationPyramid, position: Position
    ) -> tuple[FieldPair, ...]:
        """Return what a field and its neighbours say at a position."""
        reach = MAX_STAGE_ERROR_UM / self.mpp
        found = (compare_at(self.keys, key, pyramid, position, reach) for key in keys)
        return tuple(pair for pair in found if pair is not None)

    def _search(
        self,
        near: Sequence[KeyFrame],
        known: Sequence[FieldPair],
        pyramid: RegistrationPyramid,
        position: Position,
        searches: int,
    ) -> tuple[tuple[FieldPair, ...], int]:
        """Search the field on the field before it, and on neighbours that it differs from."""
        searches = min(searches, MAX_SEARCHES)
        if pyramid.texture < KEY_TEXTURE:
            return (), 0
        pairs: list[FieldPair] = []
        used = 0
        differs = {pair.earlier for pair in known if pair.outcome is PairOutcome.DIFFERS}
        nearest = [key for key in near if key.sequence in differs]
        before = [] if self.previous is None else [self.previous]
        tried = {pair.earlier for pair in known if pair.outcome is PairOutcome.AGREES}
        for key in (*before, *nearest):
            if used == searches or key.sequence in tried:
                continue
            tried.add(key.sequence)
            used += 1
            pair = search_anywhere(key, self._pyramid(key), pyramid)
            if pair is not None and self._contradicts(pair, key, position):
                pairs.append(pair)
        return tuple(pairs), used

    def _contradicts(self, pair: FieldPair, key: KeyFrame, position: Position) -> bool:
        assert pair.shift_px is not None
        dx, dy = position[0] - key.x, position[1] - key.y
        error = self._affine @ (pair.shift_px[0] - dx, pair.shift_px[1] - dy)
        return bool(np.abs(error).max() > MAX_STAGE_ERROR_UM)

    def _refused(
        self,
        comparison: StageComparison,
        near: Sequence[KeyFrame],
        pyramid: RegistrationPyramid,
        position: Position,
        searches: int,
        *,
        proven: bool,
    ) -> StageComparison:
        """Refuse a field that does not lie where the stage says; else return it as it is."""
        differs = [pair for pair in comparison.pairs if pair.outcome is PairOutcome.DIFFERS]
        agrees = any(pair.outcome is PairOutcome.AGREES for pair in comparison.pairs)
        for pair in comparison.pairs:
            if pair.outcome is not PairOutcome.DISPLACED or agrees:
                continue
            if pair.overlap >= REFUSAL_OVERLAP or differs:
                assert pair.shift_px is not None
                key = self._known(pair.earlier)
                dx, dy = position[0] - key.x, position[1] - key.y
                error = self._affine @ (pair.shift_px[0] - dx, pair.shift_px[1] - dy)
                return replace(comparison, disagreement_um=float(np.abs(error).max()))
        overlap = near[0].overlap(*position) if near else 0.0
        may_try = searches - comparison.searches >= MAGNIFICATION_SEARCHES
        if may_try and overlap >= SCALE_OVERLAP and pyramid.texture >= SCALE_TEXTURE:
            ratio = magnification_ratio([self.keys.pyramid(near[0].sequence)], pyramid)
            used = comparison.searches + MAGNIFICATION_SEARCHES
            comparison = replace(comparison, searches=used)
            if ratio != 1.0:
                return replace(comparison, response=0.0, scale_ratio=ratio)
        strong = proven or any(pair.overlap >= DIFFERING_OVERLAP for pair in differs)
        return replace(comparison, lost=bool(differs) and strong and not agrees)

    def _known(self, sequence: int) -> KeyFrame:
        if self.previous is not None and self.previous.sequence == sequence:
            return self.previous
        return self.keys[sequence]

    def _pyramid(self, key: KeyFrame) -> RegistrationPyramid:
        if key.sequence in self.keys:
            return self.keys.pyramid(key.sequence)
        return stored_pyramid(key)

    def _shifted(
        self, comparison: StageComparison, shift: tuple[float, float], new: bool
    ) -> StageComparison:
        """Return the comparison with the shift of a registration, whole camera pixels."""
        if not new:
            return replace(comparison, shift_px=(round(shift[0]), round(shift[1])))
        offset, shift_px = self.offset.after(shift)
        return replace(comparison, shift_px=shift_px, offset=offset)

    def _with_key(
        self,
        comparison: StageComparison,
        pyramid: RegistrationPyramid,
        near: Sequence[KeyFrame],
        position: Position,
    ) -> StageComparison:
        """Make the field a key frame where none shows the same place."""
        x, y = position[0] + comparison.shift_px[0], position[1] + comparison.shift_px[1]
        known = any(key.overlap(x, y) >= KEY_OVERLAP for key in near)
        if known or not comparison.located or pyramid.texture < KEY_TEXTURE:
            return comparison
        key = make_key_frame(comparison.sequence, pyramid, self.size_px, (x, y))
        return replace(comparison, key=key)
