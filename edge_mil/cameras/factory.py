"""Open the camera that a user names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_mil.cameras.faulty_microscope import FaultyMicroscope
from edge_mil.cameras.image_folder import ImageFolder
from edge_mil.cameras.imperfections import Imperfections
from edge_mil.cameras.scan_plan import DEFAULT_OVERLAP, ScanPlan
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.stage_faults import StageFaults
from edge_mil.cameras.virtual_microscope import VirtualMicroscope
from edge_mil.errors import NotThereYetError, PixelSizeError, SourceError, UsageError
from edge_mil.protocols import Camera

NOT_THERE_YET = {"cv2:": "a USB camera (cv2:)", "mm:": "Micro-Manager (mm:)"}
"""Prefix of a source -> the camera that a later release brings."""


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Options of a source; see `open_camera`."""

    plan: ScanPlan
    mpp: float | None = None
    insist_mpp: bool = False
    fov: tuple[int, int] | None = None
    independent: bool = False
    faults: Imperfections | None = None
    stage_faults: StageFaults | None = None


def open_camera(
    source: str,
    *,
    mpp: float | None = None,
    insist_mpp: bool = False,
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
    stage_faults: StageFaults | None = None,
) -> Camera:
    """Open a source of frames.

    Args:
        source: A slide file, or a folder of images.
        mpp: Pixel size, um/px; None takes the slide's own.
        insist_mpp: Take `mpp` also where the slide's file says another pixel size.
        fov: Width and height of a field in pixels; slides only.
        overlap: Share of a field that its neighbour shows again, 0 to 0.95; slides only.
        path: serpentine, random, hover or hand.
        passes: How often the path is walked.
        frames: hover: frames at one place; hand: fields of the path; else the stream ends after
            so many.
        fps: Upper limit of frames per second.
        seed: Of the random path and of the one by hand.
        independent: Each image of a folder is a location of its own.
        dwell: Extra frames at one place in the middle of the first pass.
        faults: Imperfections of the microscope; slides only.
        stage_faults: What is wrong with its stage, or declared wrongly; slides only.

    Raises:
        NotThereYetError: A later release brings this kind of camera.
        SourceError: The source cannot be read.
        PixelSizeError: Its pixel size is unknown or impossible, or the file contradicts `mpp`.
        PositionError: An image has no position.
        UsageError: Options contradict each other or do not suit the source.
    """
    for prefix, what in NOT_THERE_YET.items():
        if source.startswith(prefix):
            raise NotThereYetError(
                f"Streaming from {what} is not there yet: the acquisition release brings it; "
                "stream a slide file or a folder of images."
            )
    plan = ScanPlan(path, overlap, passes, frames, fps, seed, dwell)
    options = CameraOptions(plan, mpp, insist_mpp, fov, independent, faults, stage_faults)
    opener = next((opener for opens, opener in OPENERS if opens(source)), _open_slide)
    return opener(source, options)


def parse_fov(text: str) -> tuple[int, int]:
    """Return width and height from "1024x768"; one number is a square.

    Raises:
        UsageError: It is neither.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--fov is width x height in pixels, as 1024x768, got {text!r}.")
    return int(sides[0]), int(sides[-1])


def _is_folder(source: str) -> bool:
    return Path(source).is_dir()


def _open_folder(source: str, options: CameraOptions) -> Camera:
    if options.fov is not None:
        raise UsageError("--fov is for slides: the images of a folder have their own size.")
    faulty = options.faults is not None or options.stage_faults is not None
    if faulty or options.plan.path == "hand" or options.plan.dwell:
        raise UsageError(
            "--path hand, --dwell and the faults of a microscope are for slides: the images of "
            "a folder were taken already."
        )
    return ImageFolder(Path(source), options.plan, options.mpp, options.independent)


def _open_slide(source: str, options: CameraOptions) -> Camera:
    path = Path(source)
    if not path.exists():
        raise SourceError(f"There is no slide or folder {source}; check the path.", source=source)
    if options.independent:
        raise UsageError("--independent is for folders of images: a slide knows its positions.")
    slide = SlideFile(path, options.mpp, insist=options.insist_mpp)
    try:
        if options.stage_faults is not None:
            return FaultyMicroscope(
                slide, options.plan, options.stage_faults, options.fov, faults=options.faults
            )
        return VirtualMicroscope(slide, options.plan, options.fov, faults=options.faults)
    except (UsageError, SourceError, PixelSizeError):
        slide.close()
        raise


OPENERS: tuple[tuple[Callable[[str], bool], Callable[[str, CameraOptions], Camera]], ...] = (
    (_is_folder, _open_folder),
)
"""(whether a source is such a camera, what opens it), in this order; any other source is a slide
file. A new camera needs its class and a line here."""
