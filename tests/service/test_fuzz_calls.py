"""Hostile messages to every call, and hostile bytes to every reader of what comes with them."""

from __future__ import annotations

import contextlib
import random
import zlib
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from hostile_calls import HostileCalls, Tally, peak_memory_mb
from hostile_messages import KINDS, METHODS, random_files
from running_service import RunningService, open_session

from edge_mil.errors import EdgeMilError
from edge_mil.rpc.image_codecs import decode_frame
from edge_mil.v1 import edge_mil_pb2 as pb

CASES = 2000
IMAGES = 3000
LONG_CASES = 200_000
MAX_MEMORY_MB = 1500
"""The budget of bytes under way, and what the service has without a client."""


def check(service: RunningService, cases: int, seed: int) -> None:
    """Make calls; none may end unforeseen, and the service goes on."""
    tally = Tally()
    with service.channel as channel:
        calls = HostileCalls(channel, seed)
        for _ in range(cases):
            tally.add(calls.next())
        assert not tally.unforeseen, tally.unforeseen[0]
        assert {status for _, _, status in tally.counts} <= {code.name for code in grpc.StatusCode}
        assert not [line for line in service.all_lines() if "Traceback" in line]
        assert peak_memory_mb(service.process.pid) < MAX_MEMORY_MB
        assert open_session(channel).session_id
    if cases >= len(METHODS) * len(KINDS):
        assert {(m, k) for m, k, _ in tally.counts} == {(m.name, k) for m in METHODS for k in KINDS}


def test_no_message_to_any_call_is_unforeseen(bundle: Path, tmp_path: Path) -> None:
    service = RunningService(bundle, tmp_path)
    try:
        check(service, CASES, seed=1)
    finally:
        assert service.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_message_of_200_000_is_unforeseen(bundle: Path, tmp_path: Path) -> None:
    service = RunningService(bundle, tmp_path)
    try:
        check(service, LONG_CASES, seed=2)
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_no_image_is_unforeseen(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if kind == ".jpg" else []
    whole = cv2.imencode(kind, pixels, options)[1].tobytes()
    made = random_files(random.Random(1), whole)
    for _ in range(IMAGES // 2):
        data = next(made)
        header = pb.FieldHeader(
            sequence=1,
            encoding=pb.ENCODING_JPEG if kind == ".jpg" else pb.ENCODING_PNG,
            width=56,
            height=40,
            total_bytes=len(data),
            crc32=zlib.crc32(data),
        )
        with contextlib.suppress(EdgeMilError):
            assert decode_frame(header, np.frombuffer(data, np.uint8)).pixels.shape == (40, 56, 3)
