"""Sources of frames: the virtual microscope and folders of images."""

from edge_mil.cameras.factory import open_camera, parse_fov
from edge_mil.cameras.image_folder import ImageFolder, read_image
from edge_mil.cameras.imperfections import Imperfections
from edge_mil.cameras.scan_plan import ScanPlan, serpentine
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.cameras.virtual_microscope import VirtualMicroscope

__all__ = [
    "ImageFolder",
    "Imperfections",
    "ScanPlan",
    "SlideFile",
    "VirtualMicroscope",
    "open_camera",
    "parse_fov",
    "read_image",
    "serpentine",
]
