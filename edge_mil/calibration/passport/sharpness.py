"""Measure the camera's transfer of detail against the scan's, and the gain that restores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_mil.imaging.correction.camera import MAX_GAIN
from edge_mil.types import Float32Array, Float64Array

FREQUENCIES = 17
"""Knots from 0 to 0.5 cycles per pixel of the tile, both ends included."""
LOWEST = 2
"""Below this knot the spectrum is that of the window and of uneven light: the transfer is 1."""
FINE = 0.25
"""Spatial frequency, cycles per pixel, up to which a camera must carry detail: half of what a tile
can hold. Nuclear texture of H&E at 0.5 um per pixel lies below it."""
LEAST_TRANSFER = 1 / MAX_GAIN
"""Transfer at FINE below which the largest gain does not restore it."""
LEAST_COHERENCE = 0.1
"""Squared coherence of camera and scan below which a frequency holds noise and no detail."""
SMALLEST = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """The transfer of detail from scan to camera, at FREQUENCIES knots.

    Attributes:
        mtf: The camera's modulation over the scan's, 1 where they agree, float64 (k,).
        coherence: Squared coherence of the two, 0 to 1, float64 (k,).
        noise: Share of the camera's power that the scan does not explain, 0 to 1.
    """

    mtf: Float64Array
    coherence: Float64Array
    noise: float

    @property
    def at_fine(self) -> float:
        """The modulation at FINE."""
        return float(np.interp(FINE, np.linspace(0, 0.5, len(self.mtf)), self.mtf))

    def gains(self) -> tuple[float, ...]:
        """Return the gain of each knot that restores the scan's modulation, bounded.

        The inverse of the modulation, held back where the camera's signal is not the scan's:
        coherence / mtf is Wiener's filter, which leaves out noise that has drowned the detail.

        Source:
            Wiener's filter from the cross spectrum (Gonzalez and Woods, Digital Image Processing,
            5.8).
        """
        safe = np.maximum(self.mtf, SMALLEST)
        wanted = np.where(self.coherence >= LEAST_COHERENCE, self.coherence / safe, 0.0)
        wanted[:LOWEST] = 1.0
        # A neighbour on each side smooths what few pairs leave uneven.
        padded = np.concatenate([wanted[:1], wanted, wanted[-1:]])
        smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        smooth[0] = 1.0
        return tuple(float(g) for g in np.clip(smooth, 0.0, MAX_GAIN))


class Spectra:
    """Sums of the power and cross spectra of pairs of tiles, by spatial frequency."""

    def __init__(self) -> None:
        self.camera, self.scan, self.cross = (np.zeros(FREQUENCIES) for _ in range(3))
        self._bins: dict[tuple[int, int], tuple[Float64Array, Float32Array]] = {}

    def add(self, camera: Float32Array, scan: Float32Array) -> None:
        """Add a pair of tiles, RGB float32 (h, w, 3), the camera's after its colour map."""
        shape = (camera.shape[0], camera.shape[1])
        if shape not in self._bins:
            self._bins[shape] = _bins(shape)
        radius, window = self._bins[shape]
        a, b = (np.fft.rfft2((x.mean(axis=2) - x.mean()) * window) for x in (camera, scan))
        flat = radius.ravel()
        for sums, power in (
            (self.camera, np.abs(a) ** 2),
            (self.scan, np.abs(b) ** 2),
            # Only what is in phase: the filter has no phase.
            (self.cross, (a * np.conj(b)).real),
        ):
            sums += _by_knot(flat, power.ravel() / window.sum())

    def merged(self, others: Sequence[Spectra]) -> Spectra:
        """Return the sums of these and other pairs."""
        out = Spectra()
        for one in (self, *others):
            out.camera += one.camera
            out.scan += one.scan
            out.cross += one.cross
        return out

    def transfer(self) -> Transfer:
        """Return the camera's transfer over all pairs."""
        camera, scan = np.maximum(self.camera, SMALLEST), np.maximum(self.scan, SMALLEST)
        cross = np.maximum(self.cross, 0.0)
        mtf = cross / scan
        mtf[:LOWEST] = 1.0
        coherence = np.clip(cross**2 / (camera * scan), 0.0, 1.0)
        coherence[:LOWEST] = 1.0
        # The camera's power that the scan does not explain, of all its power.
        share = float(((1 - coherence) * camera)[LOWEST:].sum() / camera.sum())
        return Transfer(mtf, coherence, share)


def fine_energy(tile: Float32Array) -> float:
    """Return the energy of a tile's fine detail, to compare a field with the scan's same place."""
    grey = tile.mean(axis=2)
    detail = cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 2.0)
    return float((detail**2).mean())


def _bins(shape: tuple[int, int]) -> tuple[Float64Array, Float32Array]:
    """Return the frequency of each term of a real transform, in knots, and the window."""
    height, width = shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    return radius * 2 * (FREQUENCIES - 1), window


def _by_knot(knots: Float64Array, power: Float64Array) -> Float64Array:
    """Return power at each knot, shared between the two knots that a frequency lies between."""
    inside = knots <= FREQUENCIES - 1
    low = np.minimum(knots[inside].astype(np.int64), FREQUENCIES - 2)
    upper = knots[inside] - low
    values = power[inside]
    below = np.bincount(low, values * (1 - upper), FREQUENCIES)
    return np.asarray(below + np.bincount(low + 1, values * upper, FREQUENCIES), np.float64)
