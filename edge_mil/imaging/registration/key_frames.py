"""The fields that others are placed by: where they lie, and a picture of each."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_mil.errors import StoreError
from edge_mil.imaging.registration.pose_graph import PoseEdge, Position
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.types import UInt8Array

QUALITY = 92
"""Of the stored picture, JPEG: a twelfth of the memory, and nothing that registration misses."""

READY = 48
"""Pictures kept decoded: those near by, and those that a search came over last."""

HELD = 256
"""Pictures kept in memory as JPEG, the newest; older ones are read from the session's file."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyFrame:
    """One field that others are placed by.

    Attributes:
        sequence: Its number.
        x: Column of its left edge on the session's lattice, camera pixels.
        y: Row of its top edge.
        width_px: Its columns, camera pixels.
        height_px: Its rows.
        factor: Camera pixels per pixel of the picture.
        jpeg: The picture, grey; b"" once it is in the session's file alone.
        links: Registrations that placed it, to earlier key fields.
    """

    sequence: int
    x: float
    y: float
    width_px: int
    height_px: int
    factor: int
    jpeg: bytes
    links: tuple[PoseEdge, ...] = ()

    @property
    def position(self) -> Position:
        """Where its top left corner lies."""
        return self.x, self.y

    def overlap(self, x: float, y: float) -> float:
        """Return the share that it has in common with a field of its size at (x, y)."""
        across = max(0.0, 1 - abs(x - self.x) / self.width_px)
        down = max(0.0, 1 - abs(y - self.y) / self.height_px)
        return across * down

    def away(self, x: float, y: float) -> float:
        """Return how far a field at (x, y) lies, in fields, the larger of both directions."""
        return max(abs(x - self.x) / self.width_px, abs(y - self.y) / self.height_px)


def key_frame(
    sequence: int,
    picture: RegistrationPyramid,
    size_px: tuple[int, int],
    position: Position,
    links: tuple[PoseEdge, ...] = (),
) -> KeyFrame:
    """Make a key field of a picture.

    Args:
        sequence: Number of the field.
        picture: Its picture.
        size_px: Its (width, height), camera pixels.
        position: Of its top left corner.
        links: What placed it.
    """
    _, jpeg = cv2.imencode(".jpg", picture.grey, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return KeyFrame(sequence, *position, *size_px, picture.factor, jpeg.tobytes(), links)


class KeyFrames:
    """All key fields of a session, in the order of their numbers; bounded in memory.

    Attributes:
        load: Reads the JPEG of a key field that is durable; None keeps all of them in memory.
    """

    def __init__(self) -> None:
        self._fields: dict[int, KeyFrame] = {}
        self._ready: OrderedDict[int, RegistrationPyramid] = OrderedDict()
        self._held: deque[int] = deque()
        self.load: Callable[[int], bytes] | None = None

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._fields

    def __getitem__(self, sequence: int) -> KeyFrame:
        return self._fields[sequence]

    def all(self) -> list[KeyFrame]:
        """Return the key fields, oldest first."""
        return list(self._fields.values())

    def add(self, field: KeyFrame) -> None:
        """Take one."""
        self._fields[field.sequence] = field
        self._held.append(field.sequence)
        while self.load is not None and len(self._held) > HELD:
            oldest = self._held.popleft()
            self._fields[oldest] = replace(self._fields[oldest], jpeg=b"")

    def move(self, positions: dict[int, Position]) -> None:
        """Give key fields new positions."""
        for sequence, (x, y) in positions.items():
            self._fields[sequence] = replace(self._fields[sequence], x=x, y=y)

    def near(self, x: float, y: float, reach: float) -> list[KeyFrame]:
        """Return those within `reach` fields of a field at (x, y), the nearest first."""
        near = [field for field in self._fields.values() if field.away(x, y) <= reach]
        return sorted(near, key=lambda field: (field.away(x, y), field.sequence))

    def picture(self, sequence: int) -> RegistrationPyramid:
        """Return the picture of one, as it is stored: the same before and after a restart."""
        found = self._ready.get(sequence)
        if found is None:
            field = self._fields[sequence]
            jpeg = field.jpeg or (self.load(sequence) if self.load is not None else b"")
            grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
            if grey is None:
                raise StoreError(f"The stored picture of field {sequence} cannot be read.")
            found = self._ready[sequence] = RegistrationPyramid(_uint8(grey), field.factor)
            while len(self._ready) > READY:
                self._ready.popitem(last=False)
        self._ready.move_to_end(sequence)
        return found


def _uint8(grey: object) -> UInt8Array:
    return np.asarray(grey, np.uint8)
