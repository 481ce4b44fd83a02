"""From what the user typed to a camera."""

from __future__ import annotations

from pathlib import Path

from edge_mil.cameras.folder import ImageFolder
from edge_mil.cameras.plan import DEFAULT_OVERLAP, ScanPlan
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.virtual_microscope import VirtualMicroscope
from edge_mil.errors import NotThereYetError, SourceError, UsageError

LATER = {"cv2:": "a USB camera (cv2:)", "mm:": "Micro-Manager (mm:)"}


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
) -> VirtualMicroscope | ImageFolder:
    """Open a source of frames.

    Args:
        source: A slide file, or a folder of images.
        mpp: Pixel size, um/px; None takes the slide's own.
        fov: Width and height of a field in pixels, as --fov WxH gives them; slides only.
        overlap: Share of a field, 0 to 0.95; slides only.
        path: serpentine, random or hover.
        passes: How often the path is walked.
        frames: hover: frames at one place; else the stream ends after so many.
        fps: Upper limit of frames per second.
        seed: Of the random path.
        independent: The images of a folder are different places.

    Raises:
        NotThereYetError: The source is a kind of camera that a later release brings.
        SourceError: It cannot be read.
        PixelSizeError: Its pixel size is unknown or impossible.
        PositionError: An image has no position.
        UsageError: Options do not make sense together.
    """
    for prefix, what in LATER.items():
        if source.startswith(prefix):
            raise NotThereYetError(
                f"Streaming from {what} is not there yet: the acquisition release brings it; "
                "stream a slide file or a folder of images."
            )
    plan = ScanPlan(path, overlap, passes, frames, fps, seed)
    place = Path(source)
    if place.is_dir():
        if fov is not None:
            raise UsageError("--fov is for slides: the images of a folder have their own size.")
        return ImageFolder(place, plan, mpp, independent)
    if not place.exists():
        raise SourceError(f"There is no slide or folder {source}; check the path.", source=source)
    if independent:
        raise UsageError("--independent is for folders of images: a slide knows its positions.")
    slide = SlideFile(place, mpp)
    try:
        return VirtualMicroscope(slide, plan, fov)
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
