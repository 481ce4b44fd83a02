"""Cameras that GStreamer opens: its test source, a slide through a pipe, and what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running_service import RunningService
from small_bundle import write_small_bundle

from edge_mil.cameras import open_camera
from edge_mil.cameras.gstreamer import GStreamerCamera
from edge_mil.cameras.gstreamer import camera as gstreamer
from edge_mil.errors import DependencyError, PixelSizeError, SourceError, UsageError
from edge_mil.testing.camera import FakeCamera
from edge_mil.types import Frame


@pytest.fixture(scope="module")
def _needs_gstreamer() -> None:
    try:
        gstreamer._python()
    except DependencyError as error:
        pytest.skip(str(error))


needs_gstreamer = pytest.mark.usefixtures("_needs_gstreamer")


def frames(pipeline: str, count: int | None = None) -> list[Frame]:
    camera = open_camera(f"gst:{pipeline}", mpp=0.5, frames=count)
    try:
        return list(camera.frames())
    finally:
        camera.close()


def source(number: int, size: str = "width=321,height=240", pattern: str = "smpte") -> str:
    return f"videotestsrc num-buffers={number} pattern={pattern} ! video/x-raw,{size}"


@needs_gstreamer
def test_every_frame_of_a_source_that_waits_comes_once_and_whole() -> None:
    """321 columns: GStreamer pads a row of RGB to whole words."""
    found = frames(source(5, pattern="red"))
    assert [frame.name for frame in found] == [f"frame {n}" for n in range(1, 6)]
    for frame in found:
        assert frame.pixels.shape == (240, 321, 3)
        assert frame.pixels[..., 0].min() > 200
        assert frame.pixels[..., 1:].max() < 60
        assert frame.x_um is None


@needs_gstreamer
def test_a_live_source_gives_its_newest_frame_and_drops_the_others() -> None:
    live = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=64,height=48"
    camera = open_camera(f"gst:{live}", mpp=0.5)
    stream = camera.frames()
    first = next(stream)
    time.sleep(0.5)
    second, third = next(stream), next(stream)
    camera.close()
    assert isinstance(camera, GStreamerCamera)
    assert not np.array_equal(first.pixels, third.pixels)
    # At most one frame waited: the next one is of now.
    assert second.capture_time_s - first.capture_time_s >= 0.4


@needs_gstreamer
def test_the_stream_ends_after_the_frames_that_are_wanted_and_the_process_with_it() -> None:
    camera = open_camera(f"gst:{source(100)}", mpp=0.5, frames=2)
    assert isinstance(camera, GStreamerCamera)
    stream = camera.frames()
    next(stream)
    process = camera._process
    assert process is not None
    assert len(list(stream)) == 1
    camera.close()
    camera.close()
    assert process.poll() is not None


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("nosuchelement", "no element"),
        ("filesrc location=/no/such/file ! decodebin", "Try it alone: gst-launch-1.0 filesrc"),
        ("videotestsrc ! video/x-raw,width=9000,height=9000", "more than 40000000"),
        ("videotestsrc !", "pipeline fails"),
    ],
)
def test_a_pipeline_that_fails_is_one_sentence(pipeline: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as refused:
        frames(pipeline)
    assert "\n" not in str(refused.value)


@needs_gstreamer
def test_a_capture_process_that_is_killed_is_one_sentence() -> None:
    camera = open_camera(f"gst:{source(100)}", mpp=0.5)
    assert isinstance(camera, GStreamerCamera)
    stream = camera.frames()
    next(stream)
    assert camera._process is not None
    camera._process.kill()
    camera._process.wait()
    with pytest.raises(SourceError, match=r"ended by itself|in the middle"):
        for _ in stream:
            pass
    camera.close()


def test_a_camera_needs_a_pixel_size_and_takes_no_options_of_slides() -> None:
    with pytest.raises(PixelSizeError, match="--mpp"):
        open_camera("gst:videotestsrc")
    with pytest.raises(UsageError, match="wants a pipeline"):
        open_camera("gst: ", mpp=0.5)
    with pytest.raises(UsageError, match="moved by hand"):
        open_camera("gst:videotestsrc", mpp=0.5, path="random")
    with pytest.raises(UsageError, match="sends what it sees"):
        open_camera("gst:videotestsrc", mpp=0.5, fov=(10, 10))


def test_a_system_without_gstreamer_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "PYTHONS", ("/no/such/python",))
    with pytest.raises(DependencyError, match="sudo apt install python3-gi"):
        frames(source(1))


# To a score


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("gst")
    write_small_bundle(folder / "bundle")
    running = RunningService(folder / "bundle", folder)
    yield running
    running.stop()


def stream(service: RunningService, *words: str) -> dict[str, object]:
    """Run `edge-mil stream` and return its JSON."""
    command = [sys.executable, "-m", "edge_mil.cli", "stream", *words]
    ended = subprocess.run(
        [*command, "--server", service.address, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@needs_gstreamer
def test_the_frames_of_the_test_source_reach_the_service(service: RunningService) -> None:
    found = stream(service, f"gst:{source(4)}", "--mpp", "0.5")
    assert sum(found["fields"].values()) == 4


@needs_gstreamer
def test_a_slide_through_a_pipe_gives_the_score_of_the_same_frames(
    service: RunningService, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    slide = list(FakeCamera(positions="none").frames())
    height, width = slide[0].pixels.shape[:2]

    def feed() -> None:
        with pipe.open("wb") as writer:
            for frame in slide:
                writer.write(frame.pixels.tobytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    pipeline = (
        f"filesrc location={pipe} ! rawvideoparse format=rgb width={width} height={height} "
        "framerate=5/1"
    )
    found = stream(service, f"gst:{pipeline}", "--mpp", "0.5")
    feeder.join()
    assert sum(found["fields"].values()) == len(slide)
    assert found["fields"]["ACCEPTED"] > 1
    assert found["score"]["probabilities"]
