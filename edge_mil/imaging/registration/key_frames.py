"""Key frames: the frames of a session that later frames are registered to."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_mil.errors import StoreError
from edge_mil.imaging.registration.pose_graph import PoseEdge, Position
from edge_mil.imaging.registration.pyramid import RegistrationPyramid

QUALITY = 92
"""JPEG quality of a stored key frame: a twelfth of the memory, without loss to registration."""

MAX_PYRAMIDS = 48
"""Pyramids that are kept: those near the last frame, and those that a search used last."""

MAX_IN_MEMORY = 256
"""JPEGs that are kept in memory, the newest; older ones are read from the session's file."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyFrame:
    """One frame that others are registered to.

    Attributes:
        sequence: Number of the field.
        x: Column of its left edge on the session's lattice, camera pixels.
        y: Row of its top edge.
        width_px: Its columns, camera pixels.
        height_px: Its rows.
        factor: Camera pixels per pixel of the stored image.
        jpeg: The image in grey; b"" once only the session's file holds it.
        edges: Registrations to earlier key frames that gave its position.
    """

    sequence: int
    x: float
    y: float
    width_px: int
    height_px: int
    factor: int
    jpeg: bytes
    edges: tuple[PoseEdge, ...] = ()

    @property
    def position(self) -> Position:
        """Top left corner on the session's lattice, camera pixels."""
        return self.x, self.y

    def overlap(self, x: float, y: float) -> float:
        """Return the share that it has in common with a field of its size at (x, y), 0 to 1."""
        across = max(0.0, 1 - abs(x - self.x) / self.width_px)
        down = max(0.0, 1 - abs(y - self.y) / self.height_px)
        return across * down

    def distance(self, x: float, y: float) -> float:
        """Return the distance to a field at (x, y), in fields, the larger of both directions."""
        return max(abs(x - self.x) / self.width_px, abs(y - self.y) / self.height_px)


def make_key_frame(
    sequence: int,
    pyramid: RegistrationPyramid,
    size_px: tuple[int, int],
    position: Position,
    edges: tuple[PoseEdge, ...] = (),
) -> KeyFrame:
    """Make a key frame of a field.

    Args:
        sequence: Number of the field.
        pyramid: The field.
        size_px: Its (width, height), camera pixels.
        position: Its top left corner on the session's lattice, camera pixels.
        edges: Registrations that gave the position.
    """
    _, jpeg = cv2.imencode(".jpg", pyramid.grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return KeyFrame(sequence, *position, *size_px, pyramid.factor, jpeg.tobytes(), edges)


def stored_pyramid(key: KeyFrame) -> RegistrationPyramid:
    """Return the pyramid of a key frame's stored JPEG, which a restart does not change.

    Raises:
        StoreError: The JPEG is damaged.
    """
    grey = cv2.imdecode(np.frombuffer(key.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise StoreError(f"The stored image of field {key.sequence} cannot be read.")
    return RegistrationPyramid(np.asarray(grey, np.uint8), key.factor)


class KeyFrames:
    """All key frames of a session in the order of their numbers, with bounded memory.

    Attributes:
        load: Reads the JPEG of a key frame from the session's file; None keeps all in memory.
    """

    def __init__(self) -> None:
        self._frames: dict[int, KeyFrame] = {}
        self._pyramids: OrderedDict[int, RegistrationPyramid] = OrderedDict()
        self._in_memory: deque[int] = deque()
        self.load: Callable[[int], bytes] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, sequence: int) -> KeyFrame:
        return self._frames[sequence]

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._frames

    def all(self) -> list[KeyFrame]:
        """Return the key frames, oldest first."""
        return list(self._frames.values())

    def add(self, key: KeyFrame) -> None:
        """Add a key frame; the JPEG of the oldest in memory goes where the file holds it."""
        self._frames[key.sequence] = key
        self._in_memory.append(key.sequence)
        while self.load is not None and len(self._in_memory) > MAX_IN_MEMORY:
            oldest = self._in_memory.popleft()
            self._frames[oldest] = replace(self._frames[oldest], jpeg=b"")

    def move(self, positions: dict[int, Position]) -> None:
        for sequence, (x, y) in positions.items():
            self._frames[sequence] = replace(self._frames[sequence], x=x, y=y)

    def near(self, x: float, y: float, reach: float) -> list[KeyFrame]:
        """Return those within `reach` fields of a field at (x, y), the nearest first."""
        near = [key for key in self._frames.values() if key.distance(x, y) <= reach]
        return sorted(near, key=lambda key: (key.distance(x, y), key.sequence))

    def pyramid(self, sequence: int) -> RegistrationPyramid:
        """Return the pyramid of the stored JPEG, which a restart does not change.

        Raises:
            StoreError: The JPEG is damaged.
        """
        pyramid = self._pyramids.get(sequence)
        if pyramid is None:
            key = self._frames[sequence]
            jpeg = key.jpeg or (self.load(sequence) if self.load is not None else b"")
            pyramid = self._pyramids[sequence] = stored_pyramid(replace(key, jpeg=jpeg))
            while len(self._pyramids) > MAX_PYRAMIDS:
                self._pyramids.popitem(last=False)
        self._pyramids.move_to_end(sequence)
        return pyramid
