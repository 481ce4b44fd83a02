"""A camera that GStreamer opens, as a Jetson's CSI camera: `gst:PIPELINE`.

OpenCV's wheels bring no GStreamer, so the frames come from a process of its own that runs with the
system's Python (`capture`). A live source gives its newest frame whenever one is asked
for, and drops the others; a file or a pipe waits.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.cameras.scan_plan import ScanPlan
from edge_mil.errors import DependencyError, PixelSizeError, SourceError, UsageError
from edge_mil.protocols import Camera
from edge_mil.types import Frame, check_mpp

PREFIX = "gst:"
CAPTURE = Path(__file__).with_name("capture.py")
PYTHONS = ("/usr/bin/python3", sys.executable)
"""The system's Python first: PyGObject is a package of the system."""
PROBE_S, END_S = 20.0, 5.0
"""How long a first import, and the end of the pipeline, may take."""
MAX_LINE_BYTES = 4096
MAX_PIXELS = 40_000_000
"""As many as the service takes of one field."""
MAX_STRIDE_BYTES = 1 << 20


class GStreamerCamera(Camera):
    """Frames of a pipeline; the slide is moved by hand."""

    def __init__(self, pipeline: str, plan: ScanPlan, mpp: float | None) -> None:
        """Check the options; the pipeline starts with the first frame.

        Args:
            pipeline: As gst-launch-1.0 takes it, without a sink.
            plan: Its `frames` and `fps` count.
            mpp: Pixel size, um/px.

        Raises:
            UsageError: There is no pipeline, or another path than the one by hand is asked for.
            PixelSizeError: There is no pixel size, or it is impossible.
        """
        if not pipeline.strip():
            raise UsageError('gst: wants a pipeline, as "gst:v4l2src device=/dev/video0".')
        if plan.path in ("random", "hover") or plan.passes != 1 or plan.dwell:
            raise UsageError("A camera is moved by hand: --path, --passes and --dwell are not its.")
        if mpp is None:
            raise PixelSizeError(
                "A camera does not know its pixel size; give it with --mpp, in micrometres per "
                "pixel (a 20x objective is often 0.5)."
            )
        self._pipeline, self._plan, self._mpp = pipeline, plan, check_mpp(mpp, "--mpp")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mpp(self) -> float:
        return self._mpp

    @property
    def hand_moved(self) -> bool:
        return True

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends, or as many as the plan says.

        Raises:
            SourceError: The pipeline does not start, fails, or gives no frame for ten seconds.
            DependencyError: The system has no GStreamer for Python.
        """
        self.close()
        with self._lock:
            process = self._process = self._start()
        plan, number, next_s = self._plan, 0, time.monotonic()
        while plan.frames is None or number < plan.frames:
            if plan.fps is not None:
                time.sleep(max(0.0, next_s - time.monotonic()))
                next_s = max(next_s, time.monotonic() - 1 / plan.fps) + 1 / plan.fps
            pixels = self._next(process)
            if pixels is None:
                return
            number += 1
            yield Frame(pixels, capture_time_s=time.time(), name=f"frame {number}")

    def close(self) -> None:
        """End the pipeline."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [_python(), "-I", str(CAPTURE), self._pipeline],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def _next(self, process: subprocess.Popen[bytes]) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """Return the newest frame, RGB uint8 (h, w, 3); None at the end of the source."""
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(OSError, ValueError):  # ended, or closed by another thread
            process.stdin.write(b"n")
            process.stdin.flush()
            line = process.stdout.readline(MAX_LINE_BYTES)
        try:
            said = json.loads(line)
        except ValueError:
            raise SourceError("The camera's pipeline ended by itself; see above for why.") from None
        if "error" in said:
            raise SourceError(
                f"The camera's pipeline fails: {said['error']}. Try it alone: gst-launch-1.0 "
                f"{self._pipeline} ! fakesink"
            )
        if "end" in said:
            return None
        width, height, stride = (int(said[name]) for name in ("width", "height", "stride"))
        data = process.stdout.read(height * stride) if _plausible(width, height, stride) else b""
        if len(data) != height * stride or not data:
            raise SourceError("The camera's pipeline ended in the middle of a frame.")
        rows = np.frombuffer(data, np.uint8).reshape(height, stride)[:, : 3 * width]
        return np.ascontiguousarray(rows).reshape(height, width, 3)


def _plausible(width: int, height: int, stride: int) -> bool:
    return 0 < width * height <= MAX_PIXELS and 3 * width <= stride <= MAX_STRIDE_BYTES


def _python() -> str:
    """Return a Python that has GStreamer.

    Raises:
        DependencyError: There is none.
    """
    probe = (
        "import gi; [gi.require_version(n, '1.0') for n in ('Gst', 'GstApp', 'GstVideo')]; "
        "from gi.repository import Gst, GstApp, GstVideo"
    )
    for python in PYTHONS:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            words = [python, "-I", "-c", probe]
            if subprocess.run(words, capture_output=True, timeout=PROBE_S, check=False).returncode:
                continue
            return python
    raise DependencyError(
        "The system's Python has no GStreamer; run: sudo apt install python3-gi "
        "gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base"
    )
