"""Compare the stage's positions with the images before they are used, and refine them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_mil.errors import PixelSizeError
from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, make_key_frame
from edge_mil.imaging.registration.magnification import magnification_ratio
from edge_mil.imaging.registration.pairwise import (
    Registration,
    confirm_shift,
    register_pair,
    score_shift,
)
from edge_mil.imaging.registration.pose_graph import Position
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_contradiction import (
    MAX_STAGE_ERROR_UM,
    raise_contradiction,
)
from edge_mil.imaging.registration.stage_offset import StageOffset

MAX_SCALE_ERROR = 0.25
"""Share by which the stage's micrometres may differ from the pixel size's: an uncalibrated
Micro-Manager says 1 um per pixel."""

MIN_GAIN = 0.1
"""Response by which a refined position must exceed the stage's own before a field is moved."""

CONTRADICTION_RESPONSE = 0.6
CONTRADICTION_OVERLAP = 0.15
"""Response and overlap of a registration that may contradict the stage."""

MAX_KEYS = 4
MIN_OVERLAP = 0.03
"""Key frames that a field is compared with, and the share of it that they must show."""

KEY_OVERLAP = 0.6
KEY_TEXTURE = 0.03
"""A field with less overlap with every key frame, and this share with texture, becomes one."""

SCALE_OVERLAP = 0.3
SCALE_TEXTURE = 0.1
"""Overlap and texture of a field that is tried at other magnifications."""

Affine = tuple[float, float, float, float]
"""Camera pixel to stage um, row-major 2 x 2."""


@dataclass(frozen=True, slots=True, eq=False)
class StageComparison:
    """The stage's position of a field, compared with the images of its neighbours.

    Attributes:
        sequence: Number of the field.
        shift_px: Camera pixels (x, y) to add to the stage's position; (0, 0) on a good stage.
        key: Key frame that the field becomes, or None.
        confirmed: For x and y, whether a registration over more than the stage's error agreed.
        response: Response of the registration that refined or contradicted the position; NaN where
            none was needed.
        needed: Response that it needed.
        disagreement_um: Distance between image and stage where they contradict, um; else 0.
        scale_ratio: Magnification over that of the key frames, where it fits at another; else 1.
        offset: Offset of the stage after this field; None where it is unchanged.
    """

    sequence: int
    shift_px: tuple[int, int] = (0, 0)
    key: KeyFrame | None = None
    confirmed: tuple[bool, bool] = (False, False)
    response: float = math.nan
    needed: float = CONTRADICTION_RESPONSE
    disagreement_um: float = 0.0
    scale_ratio: float = 1.0
    offset: StageOffset | None = None

    @property
    def located(self) -> bool:
        """Whether the field has a position: nothing contradicts the stage."""
        return not self.disagreement_um and self.scale_ratio == 1.0


def check_affine(affine: Affine, mpp: float) -> None:
    """Compare a stage affine with the pixel size, before any field.

    Args:
        affine: Row-major 2 x 2, camera pixel to stage um.
        mpp: Pixel size, um/px.

    Raises:
        PixelSizeError: They differ by more than a quarter.
    """
    a, b, c, d = affine
    affine_mpp = math.sqrt(abs(a * d - b * c))
    if not (1 - MAX_SCALE_ERROR) * mpp <= affine_mpp <= (1 + MAX_SCALE_ERROR) * mpp:
        raise PixelSizeError(
            f"The stage affine says {affine_mpp:.3g} µm per camera pixel and the pixel size "
            f"{mpp:.3g}; one of them is wrong (an uncalibrated one says 1): run edge-mil "
            "calibrate pixel-size.",
            affine_mpp=affine_mpp,
            mpp=mpp,
        )


class StageCheck:
    """Compares the fields of a session with its stage; one owner, one thread.

    Attributes:
        size_px: (width, height) of the fields, camera pixels.
        mpp: Pixel size, um/px.
        keys: The key frames.
        confirmed: For x and y, whether any field confirmed the axis.
        offset: Offset of the stage, known so far.
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

    def compare(
        self, sequence: int, pyramid: RegistrationPyramid, x_um: float, y_um: float
    ) -> StageComparison:
        """Compare a field's stage position with its neighbours; changes nothing.

        Args:
            sequence: Number of the field.
            pyramid: The field.
            x_um: Stage x of its centre.
            y_um: Stage y of its centre.

        Raises:
            PositionError: The image shows that an axis is flipped, the axes are exchanged or the
                camera is rotated.
            PixelSizeError: It shows that the stage's micrometres differ from the pixel size's.
        """
        x, y = self._inverse @ (x_um, y_um) - np.array(self.size_px) / 2
        near = sorted(
            (key for key in self.keys.near(x, y, 1.0) if key.overlap(x, y) >= MIN_OVERLAP),
            key=lambda key: (-key.overlap(x, y), key.sequence),
        )[:MAX_KEYS]
        for key in near:
            comparison = self._compare_with(sequence, pyramid, key, (x, y))
            if comparison is not None:
                return self._with_key(comparison, pyramid, near, (x, y))
        if near and near[0].overlap(x, y) >= SCALE_OVERLAP and pyramid.texture >= SCALE_TEXTURE:
            ratio = magnification_ratio([self.keys.pyramid(near[0].sequence)], pyramid)
            if ratio != 1.0:
                return StageComparison(sequence, response=0.0, scale_ratio=ratio)
        return self._with_key(StageComparison(sequence), pyramid, near, (x, y))

    def commit(self, comparison: StageComparison) -> None:
        if comparison.key is not None:
            self.keys.add(comparison.key)
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

    def _compare_with(
        self, sequence: int, pyramid: RegistrationPyramid, key: KeyFrame, position: Position
    ) -> StageComparison | None:
        """Compare with one key frame; None where the images say nothing."""
        dx, dy = position[0] - key.x, position[1] - key.y
        travel_um = np.abs(self._affine @ (dx, dy))
        confirmed = (
            bool(travel_um[0] > MAX_STAGE_ERROR_UM),
            bool(travel_um[1] > MAX_STAGE_ERROR_UM),
        )
        fixed = self.keys.pyramid(key.sequence)
        # The same view again says nothing new about the stage.
        new = key.overlap(*position) < KEY_OVERLAP
        # 1. The stage's position fits to the pixel.
        if confirm_shift(fixed, pyramid, dx, dy):
            return self._shifted(StageComparison(sequence, confirmed=confirmed), (0.0, 0.0), new)
        if pyramid.texture < KEY_TEXTURE:
            return None
        # 2. A position within the stage's error fits better.
        declared = score_shift(fixed, pyramid, dx, dy)
        found = register_pair(fixed, pyramid, (dx, dy), MAX_STAGE_ERROR_UM / self.mpp)
        if declared is not None and found is not None and found.reliable:
            better = found.response - declared.response >= MIN_GAIN
            comparison = StageComparison(
                sequence, confirmed=confirmed, response=found.response, needed=found.needed
            )
            shift = (found.dx - dx, found.dy - dy) if better else (0.0, 0.0)
            return self._shifted(comparison, shift, new)
        if declared is not None and declared.agrees:
            return StageComparison(sequence, confirmed=confirmed)
        # 3. A position anywhere else fits, and well enough to contradict the stage.
        found = register_pair(fixed, pyramid)
        if (
            found is None
            or not found.reliable
            or found.overlap < CONTRADICTION_OVERLAP
            or found.response < CONTRADICTION_RESPONSE
        ):
            return None
        return self._contradiction(sequence, found, (dx, dy))

    def _shifted(
        self, comparison: StageComparison, shift: tuple[float, float], new: bool
    ) -> StageComparison:
        """Return the comparison with the shift of a registration, whole camera pixels."""
        if not new:
            return replace(comparison, shift_px=(round(shift[0]), round(shift[1])))
        offset, shift_px = self.offset.after(shift)
        return replace(comparison, shift_px=shift_px, offset=offset)

    def _contradiction(
        self, sequence: int, found: Registration, declared: Position
    ) -> StageComparison | None:
        """Refuse one wrong position; raise where the stage's axes or scale are wrong."""
        stage, image = self._affine @ declared, self._affine @ (found.dx, found.dy)
        wrong = np.abs(image - stage) > MAX_STAGE_ERROR_UM
        if not wrong.any():
            return None
        # An axis that was confirmed has the right sign: then this one position is wrong.
        if any(off and not known for off, known in zip(wrong, self.confirmed, strict=True)):
            raise_contradiction(stage, image, self.mpp)
        return StageComparison(
            sequence,
            response=found.response,
            needed=found.needed,
            disagreement_um=float(np.abs(image - stage).max()),
        )

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
