"""What one durable step writes: all of it, or nothing."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass


class InstanceKind(enum.IntEnum):
    """What a row of the table `instance` is."""

    GLASS = 0
    """A complete cell without tissue: known, and never an instance."""
    HELD = 1
    """An instance of the bag."""
    CANDIDATE = 2
    """A field that could be its slot's instance, were the best one removed."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One answered field.

    Attributes:
        sequence: The client's number.
        verdict: Number of the verdict.
        payload_crc: CRC-32 of what the client sent.
        header: JSON of position, size and time.
        answer: The answer as it was sent.
        state: The aggregator's state of its instances; None when it has none in the bag.
        removed: Whether it was removed by hand.
    """

    sequence: int
    verdict: int
    payload_crc: int
    header: str
    answer: bytes
    state: bytes | None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One place of the slide, as one field showed it.

    Attributes:
        instance_key: Key of the cell or slot.
        sequence: Field that it belongs to.
        kind: Instance, candidate or glass.
        sources: Sequence numbers of the fields that gave it pixels.
        note: JSON that the session needs to judge the place again.
        features: float32, little-endian; None for glass.
        attention_logits: float32, little-endian; None for glass.
    """

    instance_key: str
    sequence: int
    kind: InstanceKind
    sources: tuple[int, ...]
    note: str = ""
    features: bytes | None = None
    attention_logits: bytes | None = None


@dataclass(frozen=True, slots=True)
class PartRow:
    """Pixels of a cell that is not complete.

    Attributes:
        instance_key: Key of the cell.
        sequence: Field that gave them.
        box: x, y, width and height inside the cell's box, camera pixels.
        pixels: RGB uint8, row-major; behind them, where the camera did not see all of the box, a
            bit for each pixel that it saw. Any bytes: those of an array are not copied.
        sharpness: Of these pixels in their field; None where it was not judged.
    """

    instance_key: str
    sequence: int
    box: tuple[int, int, int, int]
    pixels: bytes | memoryview
    sharpness: float | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A field that others are placed by; it outlives the removal of the field.

    Attributes:
        sequence: Number of the field.
        x: Column of its left edge on the lattice, camera pixels.
        y: Row of its top edge.
        size: Its (width, height), camera pixels.
        factor: Camera pixels per pixel of the picture.
        picture: Grey JPEG.
        links: (earlier key field, dx, dy, weight): what placed it.
    """

    sequence: int
    x: float
    y: float
    size: tuple[int, int]
    factor: int
    picture: bytes
    links: tuple[tuple[int, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LocatedRow:
    """Where a field without a stage position was found.

    Attributes:
        sequence: Number of the field.
        anchor: Key field that it hangs on.
        dx: Columns from the key field's left edge to its own, camera pixels.
        dy: Rows from the key field's top edge.
        x: Column of its left edge on the lattice when its pixels were taken.
        y: Row of its top edge then.
    """

    sequence: int
    anchor: int
    dx: float
    dy: float
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Change:
    """One durable step.

    Attributes:
        field: A new field; None when the step adds none.
        instances: Rows to write, replacing those of the same place and field.
        parts: Pixels to keep.
        thumbnail: JPEG of the field.
        kinds: (place, sequence) -> its new kind.
        states: Sequence -> new state of an earlier field.
        dropped_places: Places whose rows go, whoever wrote them.
        dropped: (place, sequence): single rows that go, before `instances` are written.
        finished_places: Places that are complete: their parts go.
        removed: Sequence of a field that is removed by hand: its parts go, its row is flagged.
        event: (kind, JSON) for the log.
        meta: Names and values to set.
        attachments: Name -> bytes that the session keeps as they are.
        keys: Key fields to keep.
        key_positions: Key field -> its new position.
        located: Where the field was found.
        moved: (place, sequence) -> new place of a row; before `instances` are written.
        parts_instead: All pixels of unfinished cells, in place of those kept; None: no change.
    """

    field: FieldRow | None = None
    instances: tuple[InstanceRow, ...] = ()
    parts: tuple[PartRow, ...] = ()
    thumbnail: bytes = b""
    kinds: Mapping[tuple[str, int], InstanceKind] = dataclasses.field(default_factory=dict)
    states: Mapping[int, bytes | None] = dataclasses.field(default_factory=dict)
    dropped_places: tuple[str, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    finished_places: tuple[str, ...] = ()
    removed: int | None = None
    event: tuple[str, str] | None = None
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attachments: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    keys: tuple[KeyRow, ...] = ()
    key_positions: Mapping[int, tuple[float, float]] = dataclasses.field(default_factory=dict)
    located: LocatedRow | None = None
    moved: Mapping[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    parts_instead: tuple[PartRow, ...] | None = None
