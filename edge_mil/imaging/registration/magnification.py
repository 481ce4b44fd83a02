"""Recognise a field that was taken with another objective than the key frames."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mil.imaging.registration.pairwise import register_pair
from edge_mil.imaging.registration.pyramid import COARSE_PX, RegistrationPyramid

RATIOS = (2.0, 0.5, 2.5, 0.4, 4.0, 0.25, 1.6, 0.625, 5.0, 0.2)
"""New magnification over the old one, among 4x, 5x, 10x, 20x, 25x, 40x, 63x: neighbours first."""

MIN_RESPONSE = 0.7
MIN_OVERLAP = 0.5
"""Needed at another scale: most of the stronger objective's view lies within the other's. They are
stricter than for one scale, because ten scales are tried and chance may fit any of them."""

MIN_SIDE_PX = 64
"""Shorter side of a shrunk field that can still be recognised."""


def magnification_ratio(
    known: Sequence[RegistrationPyramid], pyramid: RegistrationPyramid
) -> float:
    """Return the magnification of a field over that of key frames; 1 where no ratio fits.

    Args:
        known: Key frames near the last located field.
        pyramid: The field, which fits none of them at their own scale.
    """
    for ratio in RATIOS:
        for key in known:
            # The view of the stronger objective is shrunk; enlarging the other invents detail.
            weak, strong = (key, pyramid) if ratio > 1 else (pyramid, key)
            shrink = max(ratio, 1 / ratio)
            weak = weak.with_coarse(min(max(weak.grey.shape), round(COARSE_PX * shrink / 2)))
            strong = strong.with_coarse(weak.coarse_px).at_magnification(1 / shrink)
            if min(strong.grey.shape) < MIN_SIDE_PX:
                continue
            found = register_pair(weak, strong)
            if (
                found is not None
                and found.reliable
                and found.response >= MIN_RESPONSE
                and found.overlap >= MIN_OVERLAP
            ):
                return ratio
    return 1.0
