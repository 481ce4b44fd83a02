"""What goes wrong with a camera field, made from good ones: defocus, motion, clipping, dust."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edge_mil.types import Float32Array, UInt8Array


def disc_kernel(radius_px: float) -> Float32Array:
    """Return the disc of confusion of a lens out of focus: square, of sum 1."""
    half = math.ceil(radius_px) + 1
    fine = 5
    steps = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = np.hypot(*np.meshgrid(steps, steps)) <= radius_px
    kernel = cv2.resize(
        inside.astype(np.float32), (2 * half + 1, 2 * half + 1), interpolation=cv2.INTER_AREA
    )
    return (kernel / kernel.sum()).astype(np.float32)


def line_kernel(length_px: float, degrees: float) -> Float32Array:
    """Return the trace of a steady move while the camera exposes: square, of sum 1."""
    half = math.ceil(length_px / 2) + 2
    fine = 8
    side = (2 * half + 1) * fine
    along = np.linspace(-length_px / 2, length_px / 2, int(length_px * fine * 2)) * fine
    angle = math.radians(degrees)
    columns = np.round((side - 1) / 2 + along * math.cos(angle)).astype(int)
    rows = np.round((side - 1) / 2 + along * math.sin(angle)).astype(int)
    trace = np.zeros((side, side), np.float32)
    np.add.at(trace, (rows, columns), 1.0)
    kernel = cv2.resize(trace, (2 * half + 1, 2 * half + 1), interpolation=cv2.INTER_AREA)
    kernel = cv2.GaussianBlur(kernel, (0, 0), 0.3)
    return (kernel / kernel.sum()).astype(np.float32)


def blurred(pixels: UInt8Array, kernel: Float32Array) -> Float32Array:
    """Return the field seen through a kernel, float32 (h, w, 3): no noise and no rounding yet."""
    return cv2.filter2D(
        pixels.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT
    ).astype(np.float32, copy=False)


def noisy(
    light: Float32Array | UInt8Array, deviation: float, rng: np.random.Generator
) -> UInt8Array:
    """Return what a sensor with white noise of this deviation, grey levels, makes of the light."""
    noise = rng.standard_normal(light.shape, np.float32) * np.float32(deviation)
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)


def defocused(
    pixels: UInt8Array, radius_px: float, deviation: float, rng: np.random.Generator
) -> UInt8Array:
    """Return the field out of focus by a disc, with the sensor's noise added after it."""
    return noisy(blurred(pixels, disc_kernel(radius_px)), deviation, rng)


def moved(
    pixels: UInt8Array, length_px: float, degrees: float, deviation: float, rng: np.random.Generator
) -> UInt8Array:
    """Return the field moved while it was exposed, with the sensor's noise added after it."""
    return noisy(blurred(pixels, line_kernel(length_px, degrees)), deviation, rng)


def softened(
    pixels: UInt8Array, sigma_px: float, deviation: float, rng: np.random.Generator
) -> UInt8Array:
    """Return the field under a Gaussian blur, with noise that grows with the light (Poisson)."""
    light = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), sigma_px)
    scale = deviation * np.sqrt(np.maximum(light, 1.0) / 128.0)
    noise = rng.standard_normal(light.shape, np.float32) * scale
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)


def clipped_by(pixels: UInt8Array, gain: float) -> UInt8Array:
    """Return the field under a gain, clipped at 255."""
    return np.clip(np.rint(pixels.astype(np.float32) * gain), 0, 255).astype(np.uint8)


def jpeg(pixels: UInt8Array, quality: int) -> UInt8Array:
    """Return the field after JPEG compression."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(
        np.uint8, copy=False
    )


def clean_glass(height: int, width: int, rng: np.random.Generator) -> Float32Array:
    """Return empty glass under a lamp a little out of centre, darker to the edges (h, w, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    at_x, at_y = rng.uniform(0.35, 0.65, 2)
    far = np.hypot((x / width - at_x) * width, (y / height - at_y) * height) / max(height, width)
    light = 1.0 - rng.uniform(0.05, 0.45) * (far / far.max()) ** 2
    colour = rng.uniform(215, 250) + rng.uniform(-8, 0, 3)
    return (light[..., None] * colour).astype(np.float32)


def shaded_glass(shading: Float32Array, height: int, width: int) -> Float32Array:
    """Return empty glass under a real, uneven lamp.

    Args:
        shading: Light of the lamp, float32 (h, w), any size; its brightest becomes 240.
        height: Rows wanted.
        width: Columns wanted.
    """
    light = cv2.resize(shading, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.repeat((light / light.max() * 240.0)[..., None], 3, axis=2).astype(np.float32)


def dusty(glass: Float32Array, rng: np.random.Generator, specks: int = 25) -> Float32Array:
    """Return the glass with specks and lint: dark, soft or sharp, the same in every channel."""
    height, width = glass.shape[:2]
    veil = np.zeros((height, width), np.float32)
    for _ in range(specks):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        speck = np.zeros((height, width), np.float32)
        if rng.random() < 0.2:
            end = centre[0] + int(rng.integers(-40, 40)), centre[1] + int(rng.integers(-40, 40))
            cv2.line(speck, centre, end, 1.0, 2, cv2.LINE_AA)
        else:
            cv2.circle(speck, centre, int(rng.integers(1, 9)), 1.0, -1, cv2.LINE_AA)
        soft = rng.uniform(0.4, 3.0)
        veil = np.maximum(veil, rng.uniform(0.1, 0.7) * cv2.GaussianBlur(speck, (0, 0), soft))
    return (glass * (1.0 - veil[..., None])).astype(np.float32)


def doubled(
    pixels: UInt8Array,
    shift_px: float,
    degrees: float,
    share: float,
    deviation: float,
    rng: np.random.Generator,
) -> UInt8Array:
    """Return the field exposed twice, the second time shifted and with this share of the light."""
    angle = math.radians(degrees)
    move = np.array([[1, 0, shift_px * math.cos(angle)], [0, 1, shift_px * math.sin(angle)]])
    light = pixels.astype(np.float32)
    second = cv2.warpAffine(
        light, move, light.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return noisy(((1 - share) * light + share * second).astype(np.float32), deviation, rng)


def vibrated(
    pixels: UInt8Array,
    amplitude_px: float,
    degrees: float,
    deviation: float,
    rng: np.random.Generator,
) -> UInt8Array:
    """Return the field under a sinusoidal vibration that is much faster than the exposure."""
    half = math.ceil(amplitude_px) + 2
    along = amplitude_px * np.sin(np.linspace(0.0, 2 * math.pi, 400, endpoint=False))
    angle = math.radians(degrees)
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for x, y in zip(half + along * math.cos(angle), half + along * math.sin(angle), strict=True):
        # Each instant is spread over the four pixels around it.
        column, row = math.floor(x), math.floor(y)
        right, down = x - column, y - row
        kernel[row, column] += (1 - right) * (1 - down)
        kernel[row, column + 1] += right * (1 - down)
        kernel[row + 1, column] += (1 - right) * down
        kernel[row + 1, column + 1] += right * down
    return noisy(blurred(pixels, kernel / kernel.sum()), deviation, rng)


def fluorescent(pixels: UInt8Array) -> UInt8Array:
    """Return the tissue shining green on black."""
    shining = np.zeros_like(pixels)
    shining[..., 1] = np.clip(243 - pixels[..., 1].astype(np.int16), 0, 255)
    return shining


def brown(pixels: UInt8Array) -> UInt8Array:
    """Return the field with diaminobenzidine (DAB) in place of eosin, as in immunohistochemistry.

    Source: stain vectors of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291, 2001.
    """
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = -np.log10((pixels.astype(np.float64) + 1) / 256)
    amounts = density @ np.linalg.inv(stains)
    amounts[..., 2] += amounts[..., 1]
    amounts[..., 1] = 0
    return np.clip(256 * 10 ** -(amounts @ stains) - 1, 0, 255).astype(np.uint8)


def pale(pixels: UInt8Array, share: float = 0.35) -> UInt8Array:
    """Return the field with this share of its stain, as a faded or thin section."""
    density = -np.log10((pixels.astype(np.float64) + 1) / 256)
    return np.clip(256 * 10 ** (-share * density) - 1, 0, 255).astype(np.uint8)


def bubbly(pixels: UInt8Array, rng: np.random.Generator, bubbles: int = 6) -> UInt8Array:
    """Return the field with air bubbles under the coverslip: dark rings around glass."""
    shown = pixels.copy()
    height, width = pixels.shape[:2]
    for _ in range(bubbles):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        radius = int(rng.integers(30, max(31, min(height, width) // 5)))
        cv2.circle(shown, centre, radius, (225, 226, 224), -1, cv2.LINE_AA)
        cv2.circle(shown, centre, radius, (35, 36, 34), 7, cv2.LINE_AA)
    return shown


def inked(pixels: UInt8Array, colour: tuple[int, int, int]) -> UInt8Array:
    """Return the field with a broad mark of a pen across it, out of focus."""
    height, width = pixels.shape[:2]
    mark = np.zeros((height, width), np.float32)
    cv2.line(mark, (0, height // 3), (width, height // 2), 1.0, height // 3)
    cover = 0.85 * cv2.GaussianBlur(mark, (0, 0), 12.0)[..., None]
    return np.rint(pixels * (1 - cover) + np.array(colour) * cover).astype(np.uint8)
