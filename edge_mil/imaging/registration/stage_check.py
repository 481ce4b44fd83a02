"""A stage's positions, checked against the pictures before they are believed, and refined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_mil.errors import PixelSizeError, PositionError
from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, key_frame
from edge_mil.imaging.registration.magnification import fits_at_scale
from edge_mil.imaging.registration.pairwise import Registration, fits_as_told, measure, register
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.stage_offset import StageOffset
from edge_mil.types import Float64Array

MAX_SCALE_ERROR = 0.25
"""Share by which the stage's micrometres may differ from the pixel size's (design.md, 3)."""

REACH_UM = 15.0
"""Largest error of a stage that is taken for one; beyond it the picture contradicts the stage."""

CLEARLY_BETTER = 0.1
"""Response by which a refined place must beat the stage's own before a field is moved."""

CONTRADICTION = 0.6
CONTRADICTION_OVERLAP = 0.15
"""Response and overlap of a registration that is set against the stage's word."""

KEYS_ASKED = 4
MIN_OVERLAP = 0.03
KEY_OVERLAP = 0.6
KEY_TEXTURE = 0.03
SCALE_OVERLAP = 0.3
SCALE_TEXTURE = 0.1
"""Which fields are asked, become key fields, and are tried at another scale."""

Affine = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class StageComparison:
    """What becomes of a field's stage position.

    Attributes:
        sequence: Number of the field.
        shift_px: Camera pixels (x, y) to add to the stage's place; (0, 0) on a good stage.
        key: The key field that it becomes, or None.
        confirmed: For x and y, whether a registration across some way agreed with the stage.
        response: Of the registration that refined or contradicted it; NaN where none was needed.
        needed: The response that it was compared with.
        disagreement_um: By how much the picture contradicts the stage; 0 where it does not.
        scale_ratio: Magnification over that of the key fields, where it fits at another; else 1.
        offset: What is known of the pictures' offset against the stage after this field.
    """

    sequence: int
    shift_px: tuple[int, int] = (0, 0)
    key: KeyFrame | None = None
    confirmed: tuple[bool, bool] = (False, False)
    response: float = math.nan
    needed: float = CONTRADICTION
    disagreement_um: float = 0.0
    scale_ratio: float = 1.0
    offset: StageOffset | None = None

    @property
    def believed(self) -> bool:
        """Say whether the field has a place."""
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
    found = math.sqrt(abs(a * d - b * c))
    if not (1 - MAX_SCALE_ERROR) * mpp <= found <= (1 + MAX_SCALE_ERROR) * mpp:
        raise PixelSizeError(
            f"The stage affine says {found:.3g} um per camera pixel and the pixel size "
            f"{mpp:.3g}; one of them is wrong (an uncalibrated one says 1): run edge-mil "
            "calibrate pixel-size.",
            affine_mpp=found,
            mpp=mpp,
        )


class StageCheck:
    """Holds the key fields of a session with a stage; one owner, one thread."""

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

    def look(
        self, sequence: int, picture: RegistrationPyramid, x_um: float, y_um: float
    ) -> StageComparison:
        """Check a field's position; changes nothing.

        Args:
            sequence: Its number.
            picture: Its picture.
            x_um: Stage x of its centre.
            y_um: Stage y of its centre.

        Raises:
            PositionError: The picture says that an axis is flipped, the axes are exchanged or
                the camera is turned.
            PixelSizeError: It says that the stage's micrometres are others than the pixel size's.
        """
        x, y = self._inverse @ (x_um, y_um) - np.array(self.size_px) / 2
        near = sorted(
            (key for key in self.keys.near(x, y, 1.0) if key.overlap(x, y) >= MIN_OVERLAP),
            key=lambda key: (-key.overlap(x, y), key.sequence),
        )[:KEYS_ASKED]
        for key in near:
            answer = self._against(sequence, picture, key, (x, y))
            if answer is not None:
                return self._kept(answer, picture, near, (x, y))
        if near and near[0].overlap(x, y) >= SCALE_OVERLAP:
            answer = self._other_scale(sequence, picture, near[:1])
            if answer is not None:
                return answer
        return self._kept(StageComparison(sequence), picture, near, (x, y))

    def apply(self, place: StageComparison) -> None:
        """Take what `look` found."""
        if place.key is not None:
            self.keys.add(place.key)
        x, y = self.confirmed
        self.confirmed = (x or place.confirmed[0], y or place.confirmed[1])
        self.offset = place.offset or self.offset

    def restore(
        self,
        keys: Sequence[KeyFrame],
        *,
        confirmed: tuple[bool, bool],
        offset: StageOffset | None = None,
    ) -> None:
        """Take what is stored."""
        self.offset = offset or StageOffset()
        for key in keys:
            self.keys.add(key)
        self.confirmed = confirmed

    def _against(
        self, sequence: int, picture: RegistrationPyramid, key: KeyFrame, place: tuple[float, float]
    ) -> StageComparison | None:
        """Check against one key field; None where it cannot say."""
        dx, dy = place[0] - key.x, place[1] - key.y
        way = np.abs(self._affine @ (dx, dy))
        agreed = (bool(way[0] > REACH_UM), bool(way[1] > REACH_UM))
        fixed = self.keys.picture(key.sequence)
        # Staring says nothing new of the stage.
        new = key.overlap(*place) < KEY_OVERLAP
        if fits_as_told(fixed, picture, dx, dy):
            return self._put(StageComparison(sequence, confirmed=agreed), (0.0, 0.0), new)
        if picture.texture < KEY_TEXTURE:
            return None
        told = measure(fixed, picture, dx, dy)
        fit = register(fixed, picture, (dx, dy), REACH_UM / self.mpp)
        if told is not None and fit is not None and fit.sure:
            better = fit.response - told.response >= CLEARLY_BETTER
            found = StageComparison(
                sequence, confirmed=agreed, response=fit.response, needed=fit.needed
            )
            return self._put(found, (fit.dx - dx, fit.dy - dy) if better else (0.0, 0.0), new)
        if told is not None and told.agrees:
            return StageComparison(sequence, confirmed=agreed)
        fit = register(fixed, picture)
        if fit is None or not fit.sure or fit.overlap < CONTRADICTION_OVERLAP:
            return None
        if fit.response < CONTRADICTION:
            return None
        return self._contradicted(sequence, fit, (dx, dy))

    def _put(
        self, place: StageComparison, shift: tuple[float, float], new: bool
    ) -> StageComparison:
        """Put a field that was registered."""
        if not new:
            return replace(place, shift_px=(round(shift[0]), round(shift[1])))
        offset, shift_px = self.offset.after(shift)
        return replace(place, shift_px=shift_px, offset=offset)

    def _contradicted(
        self, sequence: int, fit: Registration, told: tuple[float, float]
    ) -> StageComparison | None:
        stage, image = self._affine @ told, self._affine @ (fit.dx, fit.dy)
        wrong = np.abs(image - stage) > REACH_UM
        if not wrong.any():
            return None
        # An axis that agreed before has the right sign: then it is this one position that is wrong.
        if any(off and not known for off, known in zip(wrong, self.confirmed, strict=True)):
            _raise_words(stage, image, self.mpp)
        return StageComparison(
            sequence,
            response=fit.response,
            needed=fit.needed,
            disagreement_um=float(np.abs(image - stage).max()),
        )

    def _other_scale(
        self, sequence: int, picture: RegistrationPyramid, near: Sequence[KeyFrame]
    ) -> StageComparison | None:
        if picture.texture < SCALE_TEXTURE:
            return None
        pictures = [self.keys.picture(key.sequence) for key in near]
        ratio = fits_at_scale(pictures, picture)
        return None if ratio == 1.0 else StageComparison(sequence, response=0.0, scale_ratio=ratio)

    def _kept(
        self,
        answer: StageComparison,
        picture: RegistrationPyramid,
        near: Sequence[KeyFrame],
        place: tuple[float, float],
    ) -> StageComparison:
        """Make the field a key field where none shows the same place."""
        x, y = place[0] + answer.shift_px[0], place[1] + answer.shift_px[1]
        known = any(key.overlap(x, y) >= KEY_OVERLAP for key in near)
        if known or not answer.believed or picture.texture < KEY_TEXTURE:
            return answer
        key = key_frame(answer.sequence, picture, self.size_px, (x, y))
        return replace(answer, key=key)


def _raise_words(stage: Float64Array, image: Float64Array, mpp: float) -> None:
    """Say in words how a picture contradicts the stage.

    Args:
        stage: Way between two fields as the stage tells it, um (x, y).
        image: The same as the pictures show it.
        mpp: Pixel size, um/px.
    """
    way, shown = float(np.hypot(*stage)), float(np.hypot(*image))
    near = max(REACH_UM, 0.1 * way)
    says = (
        f"The stage says ({stage[0]:+.0f}, {stage[1]:+.0f}) um and the image "
        f"({image[0]:+.0f}, {image[1]:+.0f}) um: "
    )
    numbers = {"stage_um": tuple(stage.round(1)), "image_um": tuple(image.round(1))}
    for flips, words in (
        ((-1, 1), "X is flipped"),
        ((1, -1), "Y is flipped"),
        ((-1, -1), "X and Y are flipped"),
    ):
        if np.abs(image - stage * flips).max() <= near:
            raise PositionError(f"{says}{words}; run edge-mil calibrate pixel-size.", **numbers)
    if np.abs(np.abs(image) - np.abs(stage[::-1])).max() <= near:
        raise PositionError(
            f"{says}X and Y are exchanged; run edge-mil calibrate pixel-size.", **numbers
        )
    along = float(stage @ image) / max(1e-9, way * shown)
    if along > ALONG and way > REACH_UM:
        raise PixelSizeError(
            f"{says}the pixel size is given as {mpp:.3g} um and would have to be "
            f"{mpp * way / shown:.3g}; run edge-mil calibrate pixel-size.",
            mpp=mpp,
            fits=mpp * way / shown,
        )
    raise PositionError(
        f"{says}they do not fit; is the camera turned, or the stage not referenced? Run edge-mil "
        "calibrate pixel-size.",
        **numbers,
    )


ALONG = 0.98
"""Cosine of the angle between two ways that count as the same direction."""
