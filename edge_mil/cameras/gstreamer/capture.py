"""The capture process of a GStreamer camera: one pipeline, its newest frame on request.

Runs with the system's Python, since OpenCV's wheels bring no GStreamer and PyGObject comes from the
system's packages; it imports nothing of edge_mil. Its argument is a pipeline as gst-launch-1.0
takes it, without a sink. The parent writes one byte for each frame that it wants; the answer is one
line of JSON, then the pixels: {"width", "height", "stride"} and height * stride bytes of RGB, or
{"end": true}, or {"error": "..."}. The process ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, BinaryIO

SINK = "videoconvert ! video/x-raw,format=RGB ! appsink name=newest max-buffers=1 sync=false"
FIRST_S, POLL_S = 10.0, 0.1
"""How long a frame may take, and how often the pipeline's messages are read meanwhile."""
MAX_PIXELS = 40_000_000
"""As many as the service takes of one field."""


def main() -> int:
    """Answer requests until the standard input ends."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstVideo", "1.0")
    gi.require_version("GstApp", "1.0")
    from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: F401 # GstApp adds methods

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a plugin prints is no answer
    Gst.init(None)
    try:
        pipeline = Gst.parse_launch(f"{sys.argv[1]} ! {SINK}")
    except GLib.Error as error:
        say(answers, {"error": error.message})
        return 1
    sink = pipeline.get_by_name("newest")
    # A live source drops what nobody took; a file, or a pipe, waits.
    live = pipeline.set_state(Gst.State.PAUSED) == Gst.StateChangeReturn.NO_PREROLL
    sink.set_property("drop", live)
    pipeline.set_state(Gst.State.PLAYING)
    try:
        while sys.stdin.buffer.read(1):
            if not answer(Gst, GstVideo, pipeline, sink, answers):
                return 1
    finally:
        pipeline.set_state(Gst.State.NULL)
    return 0


def answer(gst: Any, video: Any, pipeline: Any, sink: Any, answers: BinaryIO) -> bool:
    """Answer one request; return whether another may follow."""
    until = time.monotonic() + FIRST_S
    wanted = gst.MessageType.ERROR | gst.MessageType.EOS
    while time.monotonic() < until:
        sample = sink.try_pull_sample(int(POLL_S * gst.SECOND))
        if sample is not None:
            return send(gst, video, sample, answers)
        message = pipeline.get_bus().timed_pop_filtered(0, wanted)
        if message is not None and message.type == gst.MessageType.ERROR:
            say(answers, {"error": message.parse_error()[0].message})
            return False
        if message is not None or sink.is_eos():
            say(answers, {"end": True})
            return False
    say(answers, {"error": f"no frame came within {FIRST_S:g} s"})
    return False


def send(gst: Any, video: Any, sample: Any, answers: BinaryIO) -> bool:
    """Write one frame; return whether it is one that a service takes."""
    form, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
    width, height = form.get_value("width"), form.get_value("height")
    layout = video.buffer_get_video_meta(buffer)
    # Without a layout of its own a row of RGB ends at a whole word.
    stride = layout.stride[0] if layout is not None else (3 * width + 3) // 4 * 4
    if width * height > MAX_PIXELS:
        say(answers, {"error": f"its frames have {width} x {height} px, more than {MAX_PIXELS}"})
        return False
    mapped, memory = buffer.map(gst.MapFlags.READ)
    if not mapped or memory.size < height * stride:
        say(answers, {"error": "a frame cannot be read"})
        return False
    try:
        say(answers, {"width": width, "height": height, "stride": stride})
        answers.write(memory.data[: height * stride])
        answers.flush()
    finally:
        buffer.unmap(memory)
    return True


def say(answers: BinaryIO, message: dict[str, object]) -> None:
    """Write one line."""
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
