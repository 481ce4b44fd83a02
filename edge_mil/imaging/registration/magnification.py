"""A field that fits only when it is enlarged or shrunk: the objective was changed."""

from __future__ import annotations

from collections.abc import Sequence

from edge_mil.imaging.registration.pairwise import register
from edge_mil.imaging.registration.pyramid import COARSE_PX, RegistrationPyramid

RATIOS = (2.0, 0.5, 2.5, 0.4, 4.0, 0.25, 1.6, 0.625, 5.0, 0.2)
"""New magnification over the old one, among 4x, 5x, 10x, 20x, 25x, 40x, 63x: neighbours first."""

RESPONSE = 0.7
OVERLAP = 0.5
"""Of a field at another scale: the stronger one's view lies within the other's for the most part.
Ten scales are tried, so that chance has more to try with, too."""


def fits_at_scale(known: Sequence[RegistrationPyramid], picture: RegistrationPyramid) -> float:
    """Return the magnification of a field over that of key fields; 1 where none fits.

    Args:
        known: Pictures of key fields where it was last seen.
        picture: Of the field, which fits none of them at their own scale.
    """
    for ratio in RATIOS:
        for key in known:
            # The stronger one is shrunk: enlarging invents what is not there.
            weak, strong = (key, picture) if ratio > 1 else (picture, key)
            shrink = max(ratio, 1 / ratio)
            weak = weak.with_coarse(min(max(weak.grey.shape), round(COARSE_PX * shrink / 2)))
            strong = strong.with_coarse(weak.coarse_px).at_magnification(1 / shrink)
            if min(strong.grey.shape) < SMALLEST_PX:
                continue
            fit = register(weak, strong)
            if fit is not None and fit.sure and fit.response >= RESPONSE and fit.overlap >= OVERLAP:
                return ratio
    return 1.0


SMALLEST_PX = 64
"""Shorter side of a shrunk field that still can be recognised."""
