"""Header and bytes to a frame: every format, and every way to get it wrong."""

from __future__ import annotations

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.errors import EdgeMilError, FrameError, PositionError, ProtocolError
from edge_mil.rpc.frames import (
    check_header,
    check_limits,
    check_payload,
    encode_chunks,
    encode_header,
    identity,
)
from edge_mil.rpc.image_codecs import decode_frame, jpeg_size, png_size
from edge_mil.types import Frame
from edge_mil.v1 import edge_mil_pb2 as pb

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = cv2.resize(PIXELS, (120, 80))


def raw_header(pixel_format: int, stride: int, rows: int = 20, columns: int = 30) -> pb.FieldHeader:
    return pb.FieldHeader(
        sequence=1,
        pixel_format=pixel_format,
        encoding=pb.ENCODING_RAW,
        width=columns,
        height=rows,
        row_stride=stride,
        total_bytes=(stride or columns * 3) * rows,
    )


GREY = cv2.cvtColor(PIXELS, cv2.COLOR_RGB2GRAY)
RAW = {
    "rgb8": (pb.PIXEL_FORMAT_RGB8, PIXELS, PIXELS),
    "bgr8": (pb.PIXEL_FORMAT_BGR8, PIXELS[:, :, ::-1], PIXELS),
    "bgra8": (pb.PIXEL_FORMAT_BGRA8, cv2.cvtColor(PIXELS, cv2.COLOR_RGB2BGRA), PIXELS),
    "mono8": (pb.PIXEL_FORMAT_MONO8, GREY[:, :, None], np.repeat(GREY[:, :, None], 3, axis=2)),
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("pixel_format", "sent", "expected"), RAW.values(), ids=RAW.keys())
def test_raw_pixels_become_rgb_whatever_their_stride(
    pixel_format: int, sent: np.ndarray, expected: np.ndarray, padding: int
) -> None:
    rows = sent.reshape(20, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    header = raw_header(pixel_format, padded.shape[1])
    check_header(header)
    check_limits(header)
    frame = decode_frame(header, np.ascontiguousarray(padded).reshape(-1))
    np.testing.assert_array_equal(frame.pixels, expected)


def test_a_frame_comes_back_from_its_header_and_chunks() -> None:
    frame = Frame(PIXELS, 1.5, -2.5, capture_time_s=1000.25, name="a.png")
    header = encode_header(frame, 7, dropped_before=2)
    data = b"".join(chunk.data for chunk in encode_chunks(frame.pixels, 100))
    found = decode_frame(header, np.frombuffer(data, np.uint8))
    np.testing.assert_array_equal(found.pixels, PIXELS)
    assert (found.x_um, found.y_um, found.capture_time_s) == (1.5, -2.5, 1000.25)
    assert (found.name, header.sequence, header.dropped_before) == ("a.png", 7, 2)


def compressed(kind: str, pixels: np.ndarray = SMOOTH) -> tuple[pb.FieldHeader, bytes]:
    data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    encoding = pb.ENCODING_JPEG if kind == ".jpg" else pb.ENCODING_PNG
    header = pb.FieldHeader(
        sequence=1,
        encoding=encoding,
        width=pixels.shape[1],
        height=pixels.shape[0],
        total_bytes=len(data),
        crc32=zlib.crc32(data),
    )
    return header, data


def decode(header: pb.FieldHeader, data: bytes) -> Frame:
    return decode_frame(header, np.frombuffer(data, np.uint8))


def test_a_png_comes_back_to_the_bit_and_a_jpeg_nearly() -> None:
    np.testing.assert_array_equal(decode(*compressed(".png")).pixels, SMOOTH)
    difference = np.abs(decode(*compressed(".jpg")).pixels.astype(int) - SMOOTH)
    assert difference.mean() < 8


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.99])
def test_a_truncated_picture_is_an_error(kind: str, share: float) -> None:
    header, data = compressed(kind)
    with pytest.raises(FrameError) as caught:
        decode(header, data[: int(len(data) * share)])
    assert caught.value.details["reason"] == "DECODE_FAILED"


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    header, data = compressed(".png")
    forged = data[:16] + struct.pack(">II", 20_000, 20_000) + data[24:]
    with pytest.raises(FrameError) as caught:
        decode(header, forged)
    assert caught.value.details["reason"] == "SIZE_MISMATCH"


def test_pictures_that_would_lose_something_are_refused() -> None:
    sixteen = cv2.imencode(".png", SMOOTH.astype(np.uint16))[1].tobytes()
    see_through = cv2.imencode(".png", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2BGRA))[1].tobytes()
    header, _ = compressed(".png")
    for data in (sixteen, see_through):
        with pytest.raises(FrameError, match="8 bits without"):
            decode(header, data)


def progressive(scans: int, side: int = 256) -> tuple[pb.FieldHeader, bytes]:
    """Return a progressive JPEG whose last scan is repeated, as libjpeg accepts it."""
    header, _ = compressed(".jpg", np.tile(SMOOTH, (8, 8, 1))[:side, :side])
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    noise = np.random.default_rng(0).integers(0, 255, (header.height, header.width, 3), np.uint8)
    data = cv2.imencode(".jpg", noise, options)[1].tobytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    data = data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]
    header.total_bytes, header.crc32 = len(data), zlib.crc32(data)
    return header, data


def test_a_jpeg_with_more_scans_than_a_camera_writes_is_refused_before_it_is_decoded() -> None:
    assert decode(*progressive(10)).pixels.shape[2] == 3
    assert decode(*progressive(100)).pixels.shape[2] == 3
    with pytest.raises(FrameError) as caught:
        decode(*progressive(101))
    assert (caught.value.details["reason"], caught.value.details["scans"]) == (
        "TOO_MANY_SCANS",
        "101",
    )


def test_the_scans_of_a_large_jpeg_are_bounded_by_its_pixels() -> None:
    data = bytearray(progressive(20)[1])
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 5000, 8000)
    with pytest.raises(FrameError, match="million pixels in all of them"):
        jpeg_size(bytes(data))


def test_scans_are_counted_behind_garbage_that_a_decoder_skips() -> None:
    _, data = progressive(101)
    first = data.index(b"\xff\xda")
    hidden = data[:first] + b"\x00garbage\xff\x00\xff\xff" + data[first:]
    with pytest.raises(FrameError) as caught:
        jpeg_size(hidden)
    assert caught.value.details["scans"] == "101"


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
def test_the_readers_of_sizes_take_any_bytes(tail: bytes, head: bytes) -> None:
    for read in (jpeg_size, png_size):
        with contextlib.suppress(FrameError):
            read(head + tail)


@given(st.data())
def test_a_damaged_jpeg_never_fails_in_an_unforeseen_way(data: st.DataObject) -> None:
    header, picture = compressed(".jpg")
    damaged = bytearray(picture)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FrameError):
        assert decode(header, bytes(damaged)).pixels.shape == SMOOTH.shape


@given(
    st.builds(
        pb.FieldHeader,
        sequence=st.integers(0, 2**64 - 1),
        pixel_format=st.integers(0, 9),
        encoding=st.integers(0, 9),
        width=st.integers(0, 2**32 - 1),
        height=st.integers(0, 2**32 - 1),
        row_stride=st.integers(0, 2**32 - 1),
        total_bytes=st.integers(0, 2**64 - 1),
        place=st.text(st.characters(codec="utf-8"), max_size=300),
    )
)
def test_any_header_is_taken_or_refused_in_one_sentence(header: pb.FieldHeader) -> None:
    rejected = "."
    try:
        check_header(header)
        check_limits(header)
    except EdgeMilError as error:
        rejected = str(error)
    assert rejected.endswith((".", ")"))


def test_a_header_that_contradicts_itself_ends_the_stream() -> None:
    with pytest.raises(ProtocolError):
        check_header(raw_header(pb.PIXEL_FORMAT_RGB8, 89))


def test_a_jpeg_needs_its_crc_and_a_raw_field_may_have_one() -> None:
    header, data = compressed(".jpg")
    payload = np.frombuffer(data, np.uint8)
    assert check_payload(header, payload) == zlib.crc32(data)
    header.ClearField("crc32")
    with pytest.raises(FrameError) as caught:
        check_payload(header, payload)
    assert caught.value.details["reason"] == "CRC_REQUIRED"
    header.crc32 = 1
    with pytest.raises(FrameError) as caught:
        check_payload(header, payload)
    assert caught.value.details["reason"] == "CRC_MISMATCH"


def test_the_same_pixels_elsewhere_are_another_field() -> None:
    here = encode_header(Frame(PIXELS, 0.0, 0.0), 1)
    there = encode_header(Frame(PIXELS, 0.0, 1.0), 1)
    named = encode_header(Frame(PIXELS, location_id="a"), 1)
    assert len({identity(header, 5) for header in (here, there, named)}) == 3


@pytest.mark.parametrize("changes", [{"stage_x_um": 1.0}, {"stage_x_um": np.nan, "stage_y_um": 1}])
def test_half_a_position_is_none(changes: dict[str, float]) -> None:
    header = encode_header(Frame(PIXELS), 1)
    for name, value in changes.items():
        setattr(header, name, value)
    with pytest.raises(PositionError):
        decode_frame(header, PIXELS.reshape(-1))
