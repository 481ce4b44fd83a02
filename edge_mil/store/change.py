"""Rows of a session's file, and the change that writes them: all of it, or nothing."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass


class InstanceKind(enum.IntEnum):
    """Kind of a row of the table `instance`."""

    GLASS = 0
    """A complete cell without tissue: known, and never an instance."""
    HELD = 1
    """An instance of the bag."""
    CANDIDATE = 2
    """A field that would be its slot's instance if the best one were removed."""


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
    """One cell or slot of the slide, as one field showed it.

    Attributes:
        instance_key: Key of the cell or slot.
        sequence: Field that it belongs to.
        kind: Instance, candidate or glass.
        sources: Sequence numbers of the fields that gave it pixels.
        note: JSON that the session needs to rank the cell or slot again, as its sharpness.
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
    """Pixels of a cell that is not complete yet.

    Attributes:
        instance_key: Key of the cell.
        sequence: Field that gave them.
        box: x, y, width and height inside the cell's box, camera pixels.
        pixels: RGB uint8, row-major; behind them, where the camera did not see all of the box, a
            bit for each pixel that it saw. A memoryview of an array is written without a copy.
        sharpness: Of these pixels in their field; None where it was not measured.
    """

    instance_key: str
    sequence: int
    box: tuple[int, int, int, int]
    pixels: bytes | memoryview
    sharpness: float | None = None


@dataclass(frozen=True, slots=True)
class KeyFrameRow:
    """A field that others are localised by; it stays when the field is removed.

    Attributes:
        sequence: Number of the field.
        x: Column of its left edge on the lattice, camera pixels.
        y: Row of its top edge.
        size: Its (width, height), camera pixels.
        factor: Camera pixels per pixel of the stored image.
        jpeg: The stored image, grey.
        links: (earlier key frame, dx, dy, weight) of each registration that localised it.
    """

    sequence: int
    x: float
    y: float
    size: tuple[int, int]
    factor: int
    jpeg: bytes
    links: tuple[tuple[int, float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LocatedRow:
    """Position of a field without a stage, as it was registered.

    Attributes:
        sequence: Number of the field.
        anchor: Key frame that it was registered to.
        dx: Columns from the key frame's left edge to its own, camera pixels.
        dy: Rows from the key frame's top edge.
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
class GeometryRow:
    """What one field says about the stage and the slide; or a release of a held session.

    Attributes:
        sequence: Number of the field; 0 for a release.
        evidence: JSON of what it says.
        reference: JSON of where a refused field was said to lie; "" for others.
        image: JPEG of a refused field; b"" for others.
    """

    sequence: int
    evidence: str
    reference: str = ""
    image: bytes = b""


@dataclass(frozen=True, slots=True)
class Change:
    """One durable step.

    Attributes:
        field: A new field; None when the step adds none.
        instances: Rows to write, replacing those of the same key and field.
        parts: Pixels to keep.
        thumbnail: JPEG of the field.
        kinds: (instance key, sequence) -> its new kind.
        states: Sequence -> new state of an earlier field.
        dropped_keys: Instance keys whose rows are deleted, of all fields.
        dropped: (instance key, sequence): single rows that are deleted, before `instances` are
            written.
        finished_keys: Keys of cells that are complete: their parts are deleted.
        removed: Sequence of a field that is removed by hand: its parts are deleted and its row is
            flagged.
        event: (kind, JSON) for the log.
        meta: Names and values to set.
        attachments: Name -> bytes that the session keeps as they are.
        key_frames: Key frames to keep.
        key_frame_positions: Sequence of a key frame -> its new position.
        located: Position of a field without a stage.
        moved: (instance key, sequence) -> new key of a row; before `instances` are written.
        replaced_parts: All pixels of unfinished cells, instead of those kept; None: no change.
        geometry: What the field says about the stage and the slide; None: nothing.
    """

    field: FieldRow | None = None
    instances: tuple[InstanceRow, ...] = ()
    parts: tuple[PartRow, ...] = ()
    thumbnail: bytes = b""
    kinds: Mapping[tuple[str, int], InstanceKind] = dataclasses.field(default_factory=dict)
    states: Mapping[int, bytes | None] = dataclasses.field(default_factory=dict)
    dropped_keys: tuple[str, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    finished_keys: tuple[str, ...] = ()
    removed: int | None = None
    event: tuple[str, str] | None = None
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attachments: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    key_frames: tuple[KeyFrameRow, ...] = ()
    key_frame_positions: Mapping[int, tuple[float, float]] = dataclasses.field(default_factory=dict)
    located: LocatedRow | None = None
    moved: Mapping[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    replaced_parts: tuple[PartRow, ...] | None = None
    geometry: GeometryRow | None = None
