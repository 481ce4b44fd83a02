"""Cameras: sources of RGB frames with stage positions, from slide files and folders of images.

`factory` turns what a user names into a `edge_mil.protocols.Camera`: `image_folder` plays images
that were taken already, `virtual_microscope` plays an archived slide (`slide_file`) along the path
of a `scan_plan` or of a `hand_path`. `imperfections` says what is wrong with that microscope and
`imperfect_optics` renders it; `stage_faults` and `faulty_microscope` do the same for its stage and
what is declared of it. `playback` reads frames ahead of their use.
"""

from edge_mil.cameras.factory import open_camera, parse_fov
from edge_mil.cameras.faulty_microscope import FaultyMicroscope
from edge_mil.cameras.image_folder import ImageFolder, read_image
from edge_mil.cameras.imperfections import Imperfections
from edge_mil.cameras.scan_plan import ScanPlan, serpentine
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.stage_faults import StageFaults, parse_stage_faults
from edge_mil.cameras.virtual_microscope import VirtualMicroscope

__all__ = [
    "FaultyMicroscope",
    "ImageFolder",
    "Imperfections",
    "ScanPlan",
    "SlideFile",
    "StageFaults",
    "VirtualMicroscope",
    "open_camera",
    "parse_fov",
    "parse_stage_faults",
    "read_image",
    "serpentine",
]
