"""The memory of key frames."""

from __future__ import annotations

import numpy as np

from edge_mil.imaging.registration.key_frames import MAX_IN_MEMORY, KeyFrames, make_key_frame
from edge_mil.imaging.registration.pyramid import RegistrationPyramid


def test_only_the_newest_images_stay_in_memory_and_older_ones_come_from_the_file() -> None:
    rng = np.random.default_rng(0)
    keys = KeyFrames()
    file: dict[int, bytes] = {}
    keys.load = file.__getitem__
    images = {n: rng.integers(0, 256, (48, 64), dtype=np.uint8) for n in range(MAX_IN_MEMORY + 20)}
    for number, grey in images.items():
        key = make_key_frame(number, RegistrationPyramid(grey, 1), (64, 48), (64.0 * number, 0.0))
        file[number] = key.jpeg
        keys.add(key)
    assert sum(bool(key.jpeg) for key in keys.all()) == MAX_IN_MEMORY
    assert not keys[0].jpeg
    assert keys[MAX_IN_MEMORY + 19].jpeg
    oldest = keys.pyramid(0).grey.astype(int)
    assert np.abs(oldest - images[0]).mean() < 10
    keys.move({0: (5.0, 6.0)})
    assert keys[0].position == (5.0, 6.0)


def test_without_a_file_every_image_stays() -> None:
    keys = KeyFrames()
    grey = np.zeros((48, 64), np.uint8)
    for number in range(MAX_IN_MEMORY + 2):
        keys.add(make_key_frame(number, RegistrationPyramid(grey, 1), (64, 48), (0.0, 0.0)))
    assert all(key.jpeg for key in keys.all())
