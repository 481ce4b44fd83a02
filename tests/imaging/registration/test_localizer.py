"""Locating fields without a stage: along a path, after a jump, around a loop, or not at all."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from textured_slide import textured_slide, with_noise

from edge_mil.imaging.registration import FrameLocation, KeyFrame, KeyFrameLocalizer
from edge_mil.imaging.registration.pairwise import Registration
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import UInt8Array

SIZE = (256, 192)
SLIDE = textured_slide(1400, 1100)


def view(x: int, y: int, deviation: float = 2.0) -> RegistrationPyramid:
    pixels = SLIDE[y : y + SIZE[1], x : x + SIZE[0]]
    return RegistrationPyramid.of(with_noise(pixels, deviation, 7000 * x + y))


def walk(
    locator: KeyFrameLocalizer, places: list[tuple[int, int]], first: int = 1
) -> list[FrameLocation]:
    found = []
    for sequence, place in enumerate(places, start=first):
        found.append(locator.locate(sequence, view(*place)))
        locator.commit(found[-1])
    return found


def line(start: tuple[int, int], end: tuple[int, int], step: int = 70) -> list[tuple[int, int]]:
    count = max(1, round(math.hypot(end[0] - start[0], end[1] - start[1]) / step))
    return [
        (
            round(start[0] + (end[0] - start[0]) * k / count),
            round(start[1] + (end[1] - start[1]) * k / count),
        )
        for k in range(count)
    ]


EIGHT = [
    place
    for start, end in itertools.pairwise(
        [
            (500, 400),
            (900, 700),
            (1000, 400),
            (900, 150),
            (500, 400),
            (150, 700),
            (50, 400),
            (150, 150),
            (500, 400),
        ]
    )
    for place in line(start, end)
]


def test_the_first_field_is_the_origin() -> None:
    (found,) = walk(KeyFrameLocalizer(SIZE), [(300, 200)])
    assert (found.found, found.x, found.y) == (True, 0, 0)
    assert found.key is not None


def test_a_path_with_a_return_is_followed_to_the_pixel() -> None:
    places = [*line((100, 100), (900, 500)), *line((900, 500), (300, 600)), (150, 140), (100, 100)]
    for found, (x, y) in zip(walk(KeyFrameLocalizer(SIZE), places), places, strict=True):
        if found.found:
            assert (found.x, found.y) == (x - 100, y - 100)
    assert found.found


def test_a_field_that_shares_nothing_is_not_located() -> None:
    found = walk(KeyFrameLocalizer(SIZE), [(100, 100), (700, 600)])[-1]
    assert not found.found
    assert found.response < found.needed


def test_after_a_jump_a_known_place_is_found_by_content() -> None:
    locator = KeyFrameLocalizer(SIZE)
    places = line((0, 0), (1100, 800), 100)
    walk(locator, places)
    (found,) = walk(locator, [(30, 10)], first=100)
    assert (found.found, found.x, found.y) == (True, 30, 10)


def test_an_unlocated_field_changes_nothing() -> None:
    locator = KeyFrameLocalizer(SIZE)
    walk(locator, [(100, 100), (140, 100)])
    last, keys = locator.last, len(locator.keys)
    walk(locator, [(900, 700)], first=3)
    assert (locator.last, len(locator.keys)) == (last, keys)


def test_bare_glass_is_never_the_origin() -> None:
    locator = KeyFrameLocalizer(SIZE)
    glass = with_noise(np.full((SIZE[1], SIZE[0], 3), 240, np.uint8), 2.0, 1)
    assert not locator.locate(1, RegistrationPyramid.of(glass)).found


def test_the_same_field_again_makes_no_new_key_frame() -> None:
    locator = KeyFrameLocalizer(SIZE)
    walk(locator, [(300, 300)] * 5)
    assert len(locator.keys) == 1


def test_a_restart_goes_on_at_the_same_state() -> None:
    locator, again = KeyFrameLocalizer(SIZE), KeyFrameLocalizer(SIZE)
    walk(locator, EIGHT[:20])
    again.restore(locator.keys.all(), locator.last)
    for here, there in zip(
        walk(locator, EIGHT[20:40], 21), walk(again, EIGHT[20:40], 21), strict=True
    ):
        assert (here.x, here.y, here.response, here.anchor) == (
            there.x,
            there.y,
            there.response,
            there.anchor,
        )


@pytest.mark.parametrize("ratio", [2.0, 0.5, 2.5])
def test_another_objective_is_recognised(ratio: float) -> None:
    import cv2

    locator = KeyFrameLocalizer(SIZE)
    walk(locator, [(500, 400), (560, 430)])
    width, height = round(SIZE[0] / ratio), round(SIZE[1] / ratio)
    x, y = 560 + (SIZE[0] - width) // 2, 430 + (SIZE[1] - height) // 2
    crop = SLIDE[y : y + height, x : x + width]
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    other: UInt8Array = np.asarray(cv2.resize(crop, SIZE, interpolation=how), np.uint8)
    found = locator.locate(3, RegistrationPyramid.of(other))
    assert not found.found
    assert found.scale_ratio == ratio


class DriftingLocalizer(KeyFrameLocalizer):
    """Registers well, but for an error to the right per field, as through a distorting lens.

    Against key frames of long ago it registers without error: there the loop closes.
    """

    def __init__(self, size_px: tuple[int, int], drift_px: float) -> None:
        super().__init__(size_px)
        self.drift_px, self.now = drift_px, 0

    def locate(self, sequence: int, pyramid: RegistrationPyramid) -> FrameLocation:
        self.now = sequence
        return super().locate(sequence, pyramid)

    def register(
        self, key: KeyFrame, pyramid: RegistrationPyramid, _: tuple[float, float] | None = None
    ) -> Registration | None:
        found = super().register(key, pyramid)
        if found is None or self.now - key.sequence > 12:
            return found
        return dataclasses.replace(found, dx=found.dx + self.drift_px * (self.now - key.sequence))


def _drifted(drift_px: float) -> tuple[list[float], int]:
    locator = DriftingLocalizer(SIZE, drift_px)
    closures = 0
    for sequence, place in enumerate(EIGHT, start=1):
        found = locator.locate(sequence, view(*place))
        locator.commit(found)
        closures += bool(found.moved)
    errors = [
        max(
            abs(key.x - EIGHT[key.sequence - 1][0] + 500),
            abs(key.y - EIGHT[key.sequence - 1][1] + 400),
        )
        for key in locator.keys.all()
    ]
    return errors, closures


def test_a_drifting_figure_of_eight_is_pulled_straight_where_it_closes() -> None:
    errors, closures = _drifted(3.0)
    assert closures
    # 3 px at each of some 45 fields would be 130 px at the crossing without the loop.
    assert max(errors) < 40


def test_without_drift_nothing_is_moved() -> None:
    errors, closures = _drifted(0.0)
    assert not closures
    assert max(errors) < 1
