"""Decode a field's bytes to a `Frame`; the size of an image is checked before it is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.errors import FrameError
from edge_mil.rpc.frames import RAW_CHANNELS, name_of
from edge_mil.rpc.results import epoch_seconds
from edge_mil.types import Frame, UInt8Array
from edge_mil.v1 import edge_mil_pb2 as pb

JPEG_EOI = b"\xff\xd9"
"""Marker at the end of every whole JPEG."""
END_BYTES = 64
"""Length of the end in which it is looked for: some writers pad the file."""
SCAN = 0xDA
"""Marker of a scan (SOS)."""
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of the frames that are decoded: baseline, extended and progressive. Arithmetic coding is
several times slower, and no camera writes it."""
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Not the bytes that coded pixels hold: 0xFF is followed there by 0, or by a restart's number."""
SEARCH_BYTES = 1 << 18
"""About a millisecond of searching."""
TEMPORARY = 0x01
"""Marker without a length (TEM)."""
MAX_SCANS = 100
"""A progressive JPEG has 10 by libjpeg's script."""
MAX_SCANNED_PIXELS = 400_000_000
"""Pixels of all scans together: each scan visits every pixel, and 400 scans in 235 kB kept a
decoder busy for 26 s. Ten scans of the largest field take half a second."""
MAX_SEGMENTS = 10_000
"""Markers of one JPEG; an APP segment of 64 kB each would fill the largest field with 1 024."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

TO_RGB = {
    pb.PIXEL_FORMAT_BGR8: cv2.COLOR_BGR2RGB,
    pb.PIXEL_FORMAT_BGRA8: cv2.COLOR_BGRA2RGB,
    pb.PIXEL_FORMAT_MONO8: cv2.COLOR_GRAY2RGB,
}


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size of a compressed image as its own header says it, px."""

    width: int
    height: int


def decode_frame(header: pb.FieldHeader, payload: UInt8Array) -> Frame:
    """Return the frame; raw RGB8 stays where it is, so `payload` must not be written again.

    Raises:
        FrameError: The bytes are not the image that the header declares.
        PositionError: Half a position, one that is not finite, or a position and a location.
    """
    if header.encoding == pb.ENCODING_RAW:
        pixels = _raw(header, payload)
    else:
        pixels = _decompressed(header, payload)
    has_x, has_y = header.HasField("stage_x_um"), header.HasField("stage_y_um")
    return Frame(
        pixels=pixels,
        x_um=header.stage_x_um if has_x else None,
        y_um=header.stage_y_um if has_y else None,
        location_id=header.place,
        capture_time_s=epoch_seconds(header.capture_time),
        name=name_of(header.extra.get("name", "")),
    )


def _raw(header: pb.FieldHeader, payload: UInt8Array) -> UInt8Array:
    channels = RAW_CHANNELS[header.pixel_format]
    stride = header.row_stride or header.width * channels
    rows = payload[: stride * header.height].reshape(header.height, stride)
    pixels = rows[:, : header.width * channels].reshape(header.height, header.width, channels)
    if header.pixel_format == pb.PIXEL_FORMAT_RGB8:
        return np.ascontiguousarray(pixels)
    code = TO_RGB[header.pixel_format]
    converted: UInt8Array = cv2.cvtColor(np.ascontiguousarray(pixels), code).astype(
        np.uint8, copy=False
    )
    return converted


def _decompressed(header: pb.FieldHeader, payload: UInt8Array) -> UInt8Array:
    data = payload.tobytes()
    jpeg = header.encoding == pb.ENCODING_JPEG
    size = jpeg_size(data) if jpeg else png_size(data)
    if (size.width, size.height) != (header.width, header.height):
        raise FrameError(
            f"Field {header.sequence} is declared as {header.width} x {header.height} px and the "
            f"image itself is {size.width} x {size.height}; send the size of the image.",
            reason="SIZE_MISMATCH",
        )
    # Some decoders fill the missing rows of a cut-off JPEG with grey instead of refusing it.
    if jpeg and JPEG_EOI not in data[-END_BYTES:]:
        raise _undecodable(header, "its end is missing")
    try:
        bgr = cv2.imdecode(payload, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _undecodable(header, "the decoder refuses it") from error
    if bgr is None or bgr.shape[:2] != (header.height, header.width):
        raise _undecodable(header, "it is truncated or corrupt")
    rgb: UInt8Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return rgb


def jpeg_size(data: bytes) -> ImageSize:
    """Return the size in a JPEG's frame header, and bound its work, without decoding anything.

    Raises:
        FrameError: It is no JPEG of one or three components with 8 bits, or of more scans than a
            camera writes.

    Source:
        ITU-T T.81, annex B.
    """
    size, scans = None, 0
    for marker, offset in _jpeg_segments(data):
        # SOF0 to SOF15 hold the size; DHT, JPG and DAC share their range (ITU-T T.81, table B.1).
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and size is None:
            size = _jpeg_frame(data, marker, offset)
        elif marker == SCAN:
            scans += 1
    if size is None:
        raise _bad_image("The field is a truncated or corrupt JPEG: it has no frame header.")
    if scans > MAX_SCANS or scans * size.width * size.height > MAX_SCANNED_PIXELS:
        raise FrameError(
            f"The field is a JPEG of {size.width} x {size.height} px in {scans} scans; up to "
            f"{MAX_SCANS} scans and {MAX_SCANNED_PIXELS / 1e6:g} million pixels in all of them "
            "are decoded. Write it with fewer scans, or as a baseline JPEG.",
            reason="TOO_MANY_SCANS",
            scans=scans,
        )
    return size


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset behind its length) of each segment, as far as they follow each other.

    Raises:
        FrameError: The bytes do not start as a JPEG, or hold more segments than any writer makes.
    """
    if not data.startswith(b"\xff\xd8"):
        raise _bad_image("The field is no JPEG: it does not start as one.")
    offset = 2  # behind the marker that starts the file
    for _ in range(MAX_SEGMENTS):
        # As libjpeg does: whatever is no marker is skipped, coded pixels and garbage alike.
        found = _next_marker(data, offset)
        if found is None or found.start() + 9 >= len(data) or found[0] == JPEG_EOI:
            return
        offset, marker = found.start() + 4, found[0][1]
        if marker == TEMPORARY:
            offset -= 2
            continue
        yield marker, offset
        (length,) = struct.unpack_from(">H", data, offset - 2)
        offset += max(length, 2) - 2
    raise _bad_image(f"The field is a JPEG of more than {MAX_SEGMENTS} segments; write it anew.")


def _next_marker(data: bytes, offset: int) -> re.Match[bytes] | None:
    # In blocks: other threads of Python wait for the whole of one search.
    for start in range(offset, len(data), SEARCH_BYTES):
        found = MARKER.search(data, start, start + SEARCH_BYTES + 1)
        if found is not None:
            return found
    return None


def _jpeg_frame(data: bytes, marker: int, offset: int) -> ImageSize:
    bits, height, width, components = struct.unpack_from(">BHHB", data, offset)
    if marker not in HUFFMAN_FRAMES:
        raise _bad_image(
            f"The field is a JPEG of the kind SOF{marker - 0xC0}; write a baseline or progressive "
            "one, as cameras do."
        )
    if bits != 8 or components not in (1, 3):
        raise _bad_image(
            f"The field is a JPEG of {components} components with {bits} bits; send grey "
            "or colour (YCbCr) with 8 bits."
        )
    return ImageSize(width, height)


def png_size(data: bytes) -> ImageSize:
    """Return the size in a PNG's header, without decoding anything.

    Raises:
        FrameError: It is no PNG of 8 bits without transparency.

    Source:
        The chunk IHDR, which is first in every PNG (W3C PNG specification, 11.2.1).
    """
    if not data.startswith(PNG_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise _bad_image("The field is no PNG, or a truncated one: it has no header.")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if bits > 8 or colour in (4, 6):
        raise _bad_image(
            f"The field is a PNG with {bits} bits of colour type {colour}; send 8 bits without "
            "transparency."
        )
    return ImageSize(width, height)


def _bad_image(message: str) -> FrameError:
    return FrameError(message, reason="DECODE_FAILED")


def _undecodable(header: pb.FieldHeader, why: str) -> FrameError:
    kind = "JPEG" if header.encoding == pb.ENCODING_JPEG else "PNG"
    return FrameError(
        f"Field {header.sequence} cannot be decoded as {kind}: {why}; send it again.",
        reason="DECODE_FAILED",
    )
