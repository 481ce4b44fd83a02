"""The client at work where nothing is POSIX and no engine is installed, as on an acquisition PC."""

from __future__ import annotations

import subprocess
import sys

from running_service import ROOT, RunningService

ABSENT = (
    *("fcntl", "termios", "pwd", "grp", "resource", "tty", "pty", "syslog"),
    *("cv2", "onnxruntime", "openslide", "sqlite3", "h5py", "torch", "onnx"),
    *("google.rpc", "grpc_status", "grpc_health", "grpc_reflection"),
)

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
sys.modules.update(dict.fromkeys({absent!r}))
import numpy as np
import edge_mil
from edge_mil.errors import RemoteError
from edge_mil.types import Frame

rng = np.random.default_rng(0)
def squares(side):
    small = rng.integers(0, 200, (192 // side + 1, 192 // side + 1, 3))
    return small.repeat(side, axis=0).repeat(side, axis=1)[:192, :192]
tiles = [np.mean([squares(n) for n in (3, 5, 11)], axis=0).astype(np.uint8) for _ in range(3)]
frames = [Frame(tile, 48.0 + 96 * i, 48.0) for i, tile in enumerate(tiles)]
with edge_mil.Client({address!r}) as client:
    try:
        client.open_session()
    except RemoteError as error:
        assert error.reason == "PIXEL_SIZE_UNKNOWN", error
    session = client.open_session(mpp=0.5)
    with session.stream() as stream:
        for frame in frames:
            stream.send(frame)
    session.top_fields(), session.heat_map(), session.thumbnail(1), session.fields()
    print(session.close(expected_fields=3).score.instances)
"""


def test_a_slide_is_read_without_posix_and_without_engines(service: RunningService) -> None:
    program = PROGRAM.format(root=str(ROOT), absent=ABSENT, address=service.address)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0
