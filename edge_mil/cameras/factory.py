"""From what the user typed to a camera."""

from __future__ import annotations

from pathlib import Path

from edge_mil.cameras.image_folder import ImageFolder
from edge_mil.cameras.imperfections import Imperfections
from edge_mil.cameras.scan_plan import DEFAULT_OVERLAP, ScanPlan
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.virtual_microscope import VirtualMicroscope
from edge_mil.errors import NotThereYetError, SourceError, UsageError

UNSUPPORTED = {"cv2:": "a USB camera (cv2:)", "mm:": "Micro-Manager (mm:)"}


def open_camera(
    source: str,
    *,
    mpp: float | None = None,
    fov: tuple[int, int] | None = None,
    overlap: float = DEFAULT_OVERLAP,
    path: str = "serpentine",
    passes: int = 1,
    frames: int | None = None,
    fps: float | None = None,
    seed: int = 0,
    independent: bool = False,
    dwell: int = 0,
    faults: Imperfections | None = None,
) -> VirtualMicroscope | ImageFolder:
    """Open a source of frames.

    Args:
        source: A slide file, or a folder of images.
        mpp: Pixel size, um/px; None takes the slide's own.
        fov: Width and height of a field in pixels, as --fov WxH gives them; slides only.
        overlap: Share of a field, 0 to 0.95; slides only.
        path: serpentine, random, hover or hand.
        passes: How often the path is walked.
        frames: hover: frames at one place; hand: fields of the path; else the stream ends after
            so many.
        fps: Upper limit of frames per second.
        seed: Of the random path and of the one by hand.
        independent: The images of a folder are different places.
        dwell: Frames more at one place in the middle of the first pass.
        faults: What is wrong with the microscope; slides only.

    Raises:
        NotThereYetError: The source is a kind of camera that a later release brings.
        SourceError: It cannot be read.
        PixelSizeError: Its pixel size is unknown or impossible.
        PositionError: An image has no position.
        UsageError: Options do not make sense together.
    """
    for prefix, what in UNSUPPORTED.items():
        if source.startswith(prefix):
            raise NotThereYetError(
                f"Streaming from {what} is not there yet: the acquisition release brings it; "
                "stream a slide file or a folder of images."
            )
    plan = ScanPlan(path, overlap, passes, frames, fps, seed, dwell)
    place = Path(source)
    if place.is_dir():
        if fov is not None:
            raise UsageError("--fov is for slides: the images of a folder have their own size.")
        if faults is not None or path == "hand" or dwell:
            raise UsageError(
                "--path hand, --dwell and the faults of a microscope are for slides: the images of "
                "a folder were taken already."
            )
        return ImageFolder(place, plan, mpp, independent)
    if not place.exists():
        raise SourceError(f"There is no slide or folder {source}; check the path.", source=source)
    if independent:
        raise UsageError("--independent is for folders of images: a slide knows its positions.")
    slide = SlideFile(place, mpp)
    try:
        return VirtualMicroscope(slide, plan, fov, faults=faults)
    except UsageError:
        slide.close()
        raise


def parse_fov(text: str) -> tuple[int, int]:
    """Return width and height from "1024x768"; one number is a square.

    Raises:
        UsageError: It is neither.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--fov is width x height in pixels, as 1024x768, got {text!r}.")
    return int(sides[0]), int(sides[-1])
