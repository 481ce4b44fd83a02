"""Cameras that see a slide in other colours, softer and noisier than its scanner did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_mil.types import Float32Array, Float64Array, UInt8Array

SCANNERS = ("aperio", "leica", "nz2", "nz210", "3dhistech")
FULL = 255.0
RIDGE = 3e-3


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedCamera:
    """What a camera makes of a scanner's pixels: colour, then optics, noise and JPEG.

    Attributes:
        weights: From the optical densities of red, green and blue, and 1, to its own, float64
            (4, 3).
        gains: Lamp and white balance, RGB.
        gamma: Exponent of its curve.
        sigma_px: Softness of its optics.
        sharpening: Strength of its own unsharp mask, 0 for none.
        noise: Deviation of its sensor, grey levels.
        jpeg: Quality, 0 for none.
        rotation_deg: How it is turned on the slide.
        seed: Of the noise.
    """

    weights: Float64Array
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    sigma_px: float = 0.0
    sharpening: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    rotation_deg: float = 0.0
    seed: int = 0

    def see(self, pixels: UInt8Array, number: int = 0) -> UInt8Array:
        """Return a field, RGB uint8 (h, w, 3), as this camera shows it."""
        levels = pixels.astype(np.float32)
        if self.sigma_px:
            levels = cv2.GaussianBlur(levels, (0, 0), self.sigma_px)
        light = np.exp(-_densities(levels.reshape(-1, 3)) @ self.weights) * np.array(self.gains)
        seen = np.clip(light, 0, 1) ** self.gamma * FULL
        levels = seen.reshape(levels.shape).astype(np.float32)
        if self.sharpening:
            levels += self.sharpening * (levels - cv2.GaussianBlur(levels, (0, 0), 1.5))
        if self.noise:
            chance = np.random.default_rng([self.seed, number])
            levels += chance.normal(0, self.noise, levels.shape).astype(np.float32)
        out = np.clip(np.rint(levels), 0, FULL).astype(np.uint8)
        if self.jpeg:
            _, data = cv2.imencode(".jpg", out[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            out = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
        return out

    def field(self, slide: UInt8Array, x: int, y: int, size: tuple[int, int]) -> UInt8Array:
        """Return a field of a slide, its top left corner at (x, y) where nothing is turned."""
        height, width = size
        if not self.rotation_deg:
            return self.see(slide[y : y + height, x : x + width], x * 100_003 + y)
        centre = ((width - 1) / 2, (height - 1) / 2)
        turn = cv2.getRotationMatrix2D(centre, -self.rotation_deg, 1.0)
        turn[:, 2] += (x, y)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        turned = cv2.warpAffine(
            slide, turn, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
        return self.see(np.asarray(turned, np.uint8), x * 100_003 + y)


def identity_camera() -> SimulatedCamera:
    """Return a camera that sees what the scanner saw."""
    return SimulatedCamera(np.eye(4)[:, :3])


def analytic_camera(seed: int, strength: float = 1.0) -> SimulatedCamera:
    """Return a camera with a random colour matrix, lamp and curve; it needs no file."""
    chance = np.random.default_rng([seed, 1])
    weights = np.eye(4)[:, :3]
    weights[:3] += strength * chance.normal(0, 0.06, (3, 3))
    return _with_optics(weights, chance, seed)


def draw_camera(five_scanners: Path, seed: int) -> SimulatedCamera:
    """Return a camera whose colours lie between those of two real scanners, seen from a third.

    Args:
        five_scanners: Folder with one region through five scanners.
        seed: Chooses the scanners, and the rest of the camera.
    """
    chance = np.random.default_rng([seed, 2])
    images = {name: _read(five_scanners / f"{name}.png") for name in SCANNERS}
    base, first, second = chance.permutation(SCANNERS)[:3]
    share = chance.uniform(0, 1)
    weights = share * _colour_map(images[base], images[first])
    weights += (1 - share) * _colour_map(images[base], images[second])
    return _with_optics(weights, chance, seed)


def _with_optics(weights: Float64Array, chance: np.random.Generator, seed: int) -> SimulatedCamera:
    red, green, blue = (float(g) for g in chance.uniform(0.92, 1.04, 3))
    return SimulatedCamera(
        weights,
        (red, green, blue),
        gamma=float(np.exp(chance.normal(0, 0.15))),
        sigma_px=float(chance.uniform(0.3, 1.0)),
        sharpening=float(chance.choice([0.0, 0.0, 0.5, 1.0])),
        noise=float(chance.uniform(0.5, 3.0)),
        jpeg=int(chance.choice([0, 0, 85, 92])),
        rotation_deg=float(chance.uniform(-2, 2)),
        seed=seed,
    )


def _colour_map(source: UInt8Array, target: UInt8Array) -> Float64Array:
    """Fit optical densities on smoothed pixels: the scans lie up to 1.7 px apart.

    The region has few colours, so the fit is drawn towards no change in those that it lacks. It
    leaves 2 to 10 grey levels of the 15 to 47 by which the scanners differ.
    """
    height, width = (min(source.shape[k], target.shape[k]) for k in (0, 1))
    x, y = (
        _densities(
            cv2.resize(
                image[:height, :width].astype(np.float32),
                (width // 4, height // 4),
                interpolation=cv2.INTER_AREA,
            ).reshape(-1, 3)
        )
        for image in (source, target)
    )
    start = np.eye(4)[:, :3]
    normal = x.T @ x / len(x) + RIDGE * np.eye(4)
    weights: Float64Array = start + np.linalg.solve(normal, x.T @ (y[:, :3] - x @ start) / len(x))
    return weights


def _densities(levels: Float32Array) -> Float64Array:
    """Return optical densities and 1 of pixels (n, 3), float64 (n, 4)."""
    shares = np.maximum(levels.astype(np.float64), 2.0) / FULL
    return np.column_stack([-np.log(shares), np.ones(len(levels))])


def _read(path: Path) -> UInt8Array:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return np.ascontiguousarray(image[:, :, ::-1])
