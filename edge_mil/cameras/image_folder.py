"""A folder of images played as a camera, with positions or as independent locations."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_mil.cameras.playback import play
from edge_mil.cameras.scan_plan import ScanPlan
from edge_mil.errors import DependencyError, PixelSizeError, PositionError, SourceError
from edge_mil.protocols import Camera
from edge_mil.types import Frame, UInt8Array, check_mpp

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
POSITIONS_FILE = "positions.csv"
COLUMNS = ("file", "x_um", "y_um")

_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_POSITION = re.compile(rf"_x({_NUMBER})_y({_NUMBER})$")

GREY, RGBA = 1, 4
"""Numbers of channels."""


class ImageFolder(Camera):
    """Plays the images of a folder and its subfolders, sorted by path.

    Attributes:
        folder: The folder.
        plan: Order and pace.
        independent: Whether each image is a location of its own.
        names: Path of each image within the folder, sorted.
        positions: Name -> stage position of the image's centre, um; empty where independent.
    """

    def __init__(
        self, folder: Path, plan: ScanPlan, mpp: float | None, independent: bool = False
    ) -> None:
        """Find the images and their positions.

        Args:
            folder: Holds png, jpg, tif or bmp images, 8 bits per channel.
            plan: Order and pace; its overlap is not used.
            mpp: Pixel size of the images, um/px.
            independent: Each image is a location of its own, named by its path in the folder.

        Raises:
            SourceError: There is no image, or `positions.csv` cannot be read.
            PositionError: An image has no position and they are not independent.
            PixelSizeError: No pixel size was given; images name none that can be trusted.
        """
        self.folder, self.plan, self.independent = folder, plan, independent
        self.names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not self.names:
            raise SourceError(
                f"{folder} holds no images; give a folder of png, jpg, tif or bmp files.",
                folder=folder,
            )
        if mpp is None:
            raise PixelSizeError(
                f"The images of {folder.name} do not say their pixel size; give it with --mpp, in "
                "micrometres per pixel (a 20x objective is often 0.5)."
            )
        self._mpp = check_mpp(mpp, "--mpp")
        self.positions = {} if independent else _positions(folder, self.names)

    @property
    def mpp(self) -> float:
        return self._mpp

    def frames(self) -> Iterator[Frame]:
        """Yield the images of the plan.

        Raises:
            SourceError: An image is damaged or has more than 8 bits per channel.
        """
        return play(self.plan.route(self.names, self.names[0]), self.read, self.plan.fps)

    def read(self, name: str) -> Frame:
        """Return one image by its path within the folder.

        Raises:
            SourceError: It is damaged or has more than 8 bits per channel.
        """
        pixels = read_image(self.folder / name)
        if self.independent:
            return Frame(pixels, location_id=name, name=name)
        x_um, y_um = self.positions[name]
        return Frame(pixels, x_um=x_um, y_um=y_um, name=name)

    @property
    def retakes(self) -> int:
        """1: a refused image is sent once more, when the session knows all others."""
        return 1

    def retake(self, frame: Frame) -> Frame:
        return self.read(frame.name)


def read_image(path: Path) -> UInt8Array:
    """Read an image file as RGB uint8 (h, w, 3); transparent parts become white.

    Raises:
        SourceError: It is damaged, no image, or has more than 8 bits per channel.
        DependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            "Image files need OpenCV, which is not installed; run pip install 'edge-mil[device]'."
        ) from error
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        # Unchanged: no rotation by EXIF, and 16 bits are refused below, not silently cut to 8.
        found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read ({error}).", file=path) from error
    except cv2.error:
        found = None
    if found is None:
        raise SourceError(
            f"{path.name} is truncated or no image; copy or export it again, or take it out of "
            "the folder.",
            file=path,
        )
    if found.dtype != np.uint8:
        raise SourceError(
            f"{path.name} has {found.dtype} pixels and a field must have 8 bits per channel; "
            "export it as 8-bit RGB.",
            file=path,
        )
    channels = 1 if found.ndim == 2 else found.shape[2]
    if channels == GREY:
        return cv2.cvtColor(found, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    if channels == RGBA:
        alpha = found[:, :, 3:].astype(np.uint16)
        # Over white, rounded to the nearest level.
        mixed = (found[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return np.ascontiguousarray(mixed[:, :, ::-1].astype(np.uint8))
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _positions(folder: Path, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return the stage position of each image's centre, um, from `positions.csv` or its name."""
    table = folder / POSITIONS_FILE
    found = _read_table(table) if table.exists() else {}
    for name in names:
        if name not in found and (match := _POSITION.search(Path(name).stem)):
            found[name] = float(match[1]), float(match[2])
    missing = [name for name in names if name not in found]
    if missing:
        raise PositionError(
            f"{missing[0]} has no position ({len(missing)} of {len(names)} images have none); list "
            "the centres in positions.csv (file,x_um,y_um), name the images ..._x123.4_y567.8.png, "
            "or say --independent when they are different places.",
            file=missing[0],
        )
    return found


def _read_table(table: Path) -> dict[str, tuple[float, float]]:
    """Read `positions.csv`: name -> (x_um, y_um)."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise SourceError(
                    f"{table} must begin with the line file,x_um,y_um and begins with "
                    f"{','.join(rows.fieldnames or ()) or 'nothing'}; positions are of the images' "
                    "centres, in micrometres.",
                    file=table,
                )
            found = {}
            for row in rows:
                try:
                    x_um, y_um = float(row["x_um"]), float(row["y_um"])
                except (TypeError, ValueError):
                    x_um = y_um = math.nan
                if not (row["file"] and math.isfinite(x_um) and math.isfinite(y_um)):
                    raise SourceError(
                        f"Line {rows.line_num} of {table} is not a file and two numbers; write "
                        "it as file,x_um,y_um.",
                        file=table,
                        line=rows.line_num,
                    )
                found[row["file"].replace("\\", "/")] = x_um, y_um
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table} cannot be read ({error}).", file=table) from error
    lost = [name for name in found if not (table.parent / name).is_file()]
    if lost:
        raise SourceError(
            f"{table} lists {lost[0]}, which is not in the folder; add the image or take the line "
            "out.",
            file=lost[0],
        )
    return found
