"""How the stage's position of one field compares with the images of its neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_mil.errors import PixelSizeError
from edge_mil.imaging.registration.field_pair import FieldPair
from edge_mil.imaging.registration.key_frames import KeyFrame
from edge_mil.imaging.registration.stage_offset import StageOffset

MAX_STAGE_ERROR_UM = 15.0
"""Largest error of a stage, um; a larger difference means that the image contradicts the stage."""

MAX_SCALE_ERROR = 0.25
"""Share by which the stage's micrometres may differ from the pixel size's: an uncalibrated
Micro-Manager says 1 um per pixel."""

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
        response: Response of the registration that refined the position; NaN where none was
            needed.
        needed: Response that it needed.
        disagreement_um: Distance between image and stage where they contradict, um; else 0.
        scale_ratio: Magnification over that of the key frames, where it fits at another; else 1.
        offset: Offset of the stage after this field; None where it is unchanged.
        pairs: The field against earlier ones, as far as the images say anything.
        searches: Searches over all shifts that it took.
        lost: Whether it agrees with none of the fields that it should share a place with.
        reference: The field, kept to register the next one with it, where it is no key frame.
    """

    sequence: int
    shift_px: tuple[int, int] = (0, 0)
    key: KeyFrame | None = None
    confirmed: tuple[bool, bool] = (False, False)
    response: float = math.nan
    needed: float = math.nan
    disagreement_um: float = 0.0
    scale_ratio: float = 1.0
    offset: StageOffset | None = None
    pairs: tuple[FieldPair, ...] = ()
    searches: int = 0
    lost: bool = False
    reference: KeyFrame | None = None

    @property
    def located(self) -> bool:
        """Whether the field has a position: nothing contradicts the stage."""
        return not (self.disagreement_um or self.lost) and self.scale_ratio == 1.0


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
