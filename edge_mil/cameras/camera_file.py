"""What a camera does to light and colour, from a JSON file: `edge-mil stream --camera FILE`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np

from edge_mil.errors import UsageError
from edge_mil.types import Float32Array, UInt8Array

MAX_FILE_BYTES = 65_536
"""Largest file that is read; one with every name is below 1 KB."""

FULL = 255.0
"""Brightest level."""

MAX_BLUR_PX, MAX_SHARPENING, MAX_GAIN, MAX_MATRIX = 20.0, 5.0, 4.0, 4.0
MAX_NOISE = 100.0
MAX_DOUBLING_PX = 64.0
GAMMA = (0.2, 5.0)
QUALITY = (1, 100)
"""Bounds of the numbers: beyond them nothing is left of the image."""

SHARPENING_SIGMA_PX = 1.0
"""Radius of the unsharp mask, as cameras have it."""

CHANNELS: dict[str, tuple[int, int, int]] = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "green": (1, 1, 1)}
"""Name of an order -> which channel of the light each of red, green and blue holds."""

Row = tuple[float, float, float]


class CameraFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the light goes through on its way to a frame, in this order.

    Attributes:
        blur_px: Deviation of the Gaussian blur of the optics, pixels (the MTF is its transform).
        doubled_px: Shift (x, y) of the second exposure of a doubled one, pixels.
        lamp: Level of the lamp, 1 as it was scanned.
        lamp_colour: Gains of red, green and blue: (1, 0.95, 0.75) is warm.
        gradient: Share of the light that the right edge lacks.
        colour_matrix: Rows of red, green and blue, applied to levels of 0 to 1.
        gamma: Exponent of the levels of 0 to 1 after the matrix; 1 for none.
        negative: Inverts the levels.
        fluorescence: Shows the darkness of green as green light on black.
        channels: rgb, bgr (red and blue exchanged) or green (one channel three times).
        sharpening: Strength of the unsharp mask of the camera.
        noise: Deviation of its noise after sharpening, grey levels.
        jpeg: Quality of its compression; None for none.

    Raises:
        UsageError: A number is out of its bounds.
    """

    blur_px: float = 0.0
    doubled_px: tuple[float, float] = (0.0, 0.0)
    lamp: float = 1.0
    lamp_colour: Row = (1.0, 1.0, 1.0)
    gradient: float = 0.0
    colour_matrix: tuple[Row, Row, Row] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    gamma: float = 1.0
    negative: bool = False
    fluorescence: bool = False
    channels: Literal["rgb", "bgr", "green"] = "rgb"
    sharpening: float = 0.0
    noise: float = 0.0
    jpeg: int | None = None

    def __post_init__(self) -> None:
        limits: list[tuple[str, float, float, float]] = [
            ("blur_px", self.blur_px, 0.0, MAX_BLUR_PX),
            ("lamp", self.lamp, 0.0, MAX_GAIN),
            ("gradient", self.gradient, 0.0, 1.0),
            ("gamma", self.gamma, *GAMMA),
            ("sharpening", self.sharpening, 0.0, MAX_SHARPENING),
            ("noise", self.noise, 0.0, MAX_NOISE),
            ("jpeg", QUALITY[1] if self.jpeg is None else self.jpeg, *QUALITY),
            *(("doubled_px", d, -MAX_DOUBLING_PX, MAX_DOUBLING_PX) for d in self.doubled_px),
            *(("lamp_colour", gain, 0.0, MAX_GAIN) for gain in self.lamp_colour),
            *(
                ("colour_matrix", value, -MAX_MATRIX, MAX_MATRIX)
                for row in self.colour_matrix
                for value in row
            ),
        ]
        for name, value, low, high in limits:
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(
                    f"The camera file's {name} is {value:g}; expected {low:g} to {high:g}."
                )

    @classmethod
    def read(cls, path: Path) -> CameraFile:
        """Read a file.

        Raises:
            UsageError: It cannot be read, is no JSON of this kind, or a number is out of bounds.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            why = error.strerror
            raise UsageError(f"The camera file {path} cannot be read ({why}).") from error
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes: no camera file.")
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            names = ", ".join(cls.__struct_fields__)
            raise UsageError(
                f"{path.name} is no camera file ({error}); it is a JSON object with any of {names}."
            ) from error

    def applied(self, light: UInt8Array | Float32Array, chance: np.random.Generator) -> UInt8Array:
        """Return the frame that this camera makes of the light.

        Args:
            light: RGB (h, w, 3), levels of 0 to 255.
            chance: Draws the noise.
        """
        levels = light.astype(np.float32)
        # The optics, then the lamp.
        if self.blur_px:
            levels = cv2.GaussianBlur(levels, (0, 0), self.blur_px).astype(np.float32, copy=False)
        if any(self.doubled_px):
            levels = (levels + _shifted(levels, self.doubled_px)) * np.float32(0.5)
        fall = np.linspace(1.0, 1.0 - self.gradient, levels.shape[1], dtype=np.float32)
        levels *= self.lamp * np.asarray(self.lamp_colour, np.float32) * fall[None, :, None]
        # The sensor's colours and its curve.
        matrix = np.asarray(self.colour_matrix, np.float32)
        share = cv2.transform(levels / np.float32(FULL), matrix).astype(np.float32, copy=False)
        levels = np.clip(share, 0.0, 1.0) ** np.float32(self.gamma) * np.float32(FULL)
        if self.negative:
            levels = np.float32(FULL) - levels
        if self.fluorescence:
            shining = np.zeros_like(levels)
            shining[..., 1] = np.float32(FULL) - levels[..., 1]
            levels = shining
        levels = levels[..., CHANNELS[self.channels]]
        # What its electronics add.
        if self.sharpening:
            soft = cv2.GaussianBlur(levels, (0, 0), SHARPENING_SIGMA_PX)
            levels = levels + np.float32(self.sharpening) * (levels - soft)
        if self.noise:
            levels = levels + chance.standard_normal(levels.shape, np.float32) * self.noise
        frame = np.clip(np.rint(levels), 0, FULL).astype(np.uint8)
        return frame if self.jpeg is None else _compressed(frame, self.jpeg)


def _shifted(levels: Float32Array, shift_px: tuple[float, float]) -> Float32Array:
    move = np.array([[1.0, 0.0, shift_px[0]], [0.0, 1.0, shift_px[1]]])
    size = levels.shape[1], levels.shape[0]
    shifted = cv2.warpAffine(
        levels, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return shifted.astype(np.float32, copy=False)


def _compressed(frame: UInt8Array, quality: int) -> UInt8Array:
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line above
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
