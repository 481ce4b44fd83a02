"""Header and chunks of a field: made by clients, checked by the service before it takes a byte."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from edge_mil.errors import FrameError, NotThereYetError, ProtocolError, SequenceError
from edge_mil.limits import MAX_NAME_BYTES, MAX_SEQUENCE, check_text, printable
from edge_mil.rpc.results import timestamp
from edge_mil.types import Frame, UInt8Array
from edge_mil.v1 import edge_mil_pb2 as pb

MAX_CHUNK_BYTES = 1 << 20
"""Above this glibc maps each buffer anew, below it the messages cost more
(`docs/design/serving-and-durability.md`, "Chunks")."""

MAX_FRAME_BYTES = 64 << 20
MAX_FRAME_PIXELS = 40_000_000
"""What a decoder may be made to allocate: 120 MB."""

RAW_CHANNELS = {
    pb.PIXEL_FORMAT_RGB8: 3,
    pb.PIXEL_FORMAT_BGR8: 3,
    pb.PIXEL_FORMAT_BGRA8: 4,
    pb.PIXEL_FORMAT_MONO8: 1,
}
"""Pixel format that this release reads -> bytes of one pixel."""


def encode_header(frame: Frame, sequence: int, *, dropped_before: int = 0) -> pb.FieldHeader:
    """Return the header of a frame that is sent raw, RGB8, rows tight."""
    header = pb.FieldHeader(
        sequence=sequence,
        pixel_format=pb.PIXEL_FORMAT_RGB8,
        encoding=pb.ENCODING_RAW,
        width=frame.width_px,
        height=frame.height_px,
        total_bytes=frame.width_px * frame.height_px * 3,
        place=frame.location_id,
        dropped_before=dropped_before,
        stage_settled=True,
    )
    if frame.x_um is not None and frame.y_um is not None:
        header.stage_x_um, header.stage_y_um = frame.x_um, frame.y_um
    if frame.capture_time_s:
        header.capture_time.CopyFrom(timestamp(frame.capture_time_s))
    if frame.name:
        header.extra["name"] = name_of(frame.name)
    return header


def encode_chunks(
    pixels: UInt8Array, chunk_bytes: int = MAX_CHUNK_BYTES
) -> Iterator[pb.FieldChunk]:
    """Yield the chunks of a raw frame; each is one copy, which protobuf's `bytes` cannot avoid."""
    payload = np.ascontiguousarray(pixels).reshape(-1).data
    for offset in range(0, len(payload), chunk_bytes):
        yield pb.FieldChunk(offset=offset, data=bytes(payload[offset : offset + chunk_bytes]))


def check_header(header: pb.FieldHeader) -> None:
    """Check what a client that follows the protocol cannot get wrong.

    Raises:
        ProtocolError: No sequence number, no bytes, or raw bytes that do not fit the size.
    """
    if header.sequence == 0:
        raise ProtocolError("A field has sequence number 0; numbers start at 1.", field="sequence")
    if header.encoding == pb.ENCODING_SHARED_MEMORY:
        return
    if header.total_bytes == 0:
        raise ProtocolError(
            f"Field {header.sequence} declares 0 bytes; total_bytes is the size of what follows.",
            field="total_bytes",
        )
    channels = RAW_CHANNELS.get(header.pixel_format)
    if header.encoding != pb.ENCODING_RAW or channels is None:
        return
    tight = header.width * channels
    stride = header.row_stride or tight
    if stride < tight or header.total_bytes != stride * header.height:
        raise ProtocolError(
            f"Field {header.sequence} declares {header.width} x {header.height} px of {channels} "
            f"bytes in rows of {stride} bytes and {header.total_bytes} bytes in all; raw pixels "
            "need rows of at least the width, and rows x height bytes in all.",
            field="total_bytes",
            width=header.width,
            height=header.height,
            row_stride=stride,
            total_bytes=header.total_bytes,
        )


def check_limits(header: pb.FieldHeader) -> None:
    """Check what the field asks of this server.

    Raises:
        FrameError: It is too large, or of a format that this release does not read.
        NotThereYetError: It uses a part of the protocol that this release lacks.
        SequenceError: Its number is too large.
        UsageError: A name is too long, or cannot be printed.
    """
    if header.encoding == pb.ENCODING_SHARED_MEMORY:
        raise NotThereYetError("Shared memory is not there yet: send the field in chunks.")
    if header.encoding not in (pb.ENCODING_RAW, pb.ENCODING_JPEG, pb.ENCODING_PNG):
        raise FrameError(
            f"Field {header.sequence} has encoding {_name(pb.Encoding, header.encoding)}; send "
            "RAW, JPEG or PNG.",
            reason="ENCODING_UNSUPPORTED",
        )
    if header.encoding == pb.ENCODING_RAW and header.pixel_format not in RAW_CHANNELS:
        raise FrameError(
            f"Field {header.sequence} has pixel format "
            f"{_name(pb.PixelFormat, header.pixel_format)}; convert it to RGB8, BGR8, BGRA8 or "
            "MONO8.",
            reason="PIXEL_FORMAT_UNSUPPORTED",
        )
    pixels = header.width * header.height
    if header.total_bytes > MAX_FRAME_BYTES or not 0 < pixels <= MAX_FRAME_PIXELS:
        raise FrameError(
            f"Field {header.sequence} is {header.width} x {header.height} px in "
            f"{header.total_bytes} bytes; the limits are {MAX_FRAME_PIXELS / 1e6:g} million pixels "
            f"and {MAX_FRAME_BYTES >> 20} MiB, and no side may be 0.",
            reason="TOO_MANY_PIXELS",
            width=header.width,
            height=header.height,
            total_bytes=header.total_bytes,
        )
    if header.sequence > MAX_SEQUENCE:
        raise SequenceError(
            f"Sequence numbers go from 1 to {MAX_SEQUENCE}; got {header.sequence}.",
            sequence=header.sequence,
        )
    check_text(header.place, f"The location of field {header.sequence} (place)", "place")


def identity(header: pb.FieldHeader, payload_crc: int) -> int:
    """Return a CRC-32 of the payload and of all that decides what a field is and where it lies.

    The same sequence number with another identity is a conflict.
    """
    parts: tuple[object, ...] = (
        header.pixel_format,
        header.encoding,
        header.width,
        header.height,
        header.row_stride,
        header.stage_x_um if header.HasField("stage_x_um") else None,
        header.stage_y_um if header.HasField("stage_y_um") else None,
        header.place,
    )
    if header.replaces_sequence:
        # Not among the others: the identity of fields that replace none stays what it was.
        parts += (header.replaces_sequence,)
    return zlib.crc32(repr(parts).encode(), payload_crc)


def check_payload(header: pb.FieldHeader, payload: UInt8Array) -> int:
    """Compare the payload's CRC-32 with the declared one, and return it.

    Raises:
        FrameError: It is not, or a JPEG declares none.
    """
    crc = zlib.crc32(payload.data)
    if header.HasField("crc32"):
        if crc != header.crc32:
            raise FrameError(
                f"Field {header.sequence} has CRC-32 {crc:08x} and its header says "
                f"{header.crc32:08x}; its bytes were changed on the way, send it again.",
                reason="CRC_MISMATCH",
            )
    elif header.encoding == pb.ENCODING_JPEG:
        # A JPEG with a flipped byte in its middle still decodes, to other pixels.
        raise FrameError(
            f"Field {header.sequence} is a JPEG without crc32; send the zlib CRC-32 of its bytes.",
            reason="CRC_REQUIRED",
        )
    return crc


def name_of(text: str) -> str:
    """Return the name of a frame's source, printable and within MAX_NAME_BYTES.

    It is for people only, so a long one is cut and no reason to refuse a field.
    """
    return printable(text, MAX_NAME_BYTES).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _name(kind: object, number: int) -> str:
    """Return an enum value's name, or its number when this release does not know it."""
    values: dict[int, str] = {int(v): k for k, v in kind.items()}  # type: ignore[attr-defined]
    return values.get(number, str(number))
