"""A bundle's own reference, `reference.npz`: the tiles that its model was made for."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, InvalidFeaturesError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.colours import ColourReference
from edge_mil.types import Float32Array, Float64Array, Measure, UInt8Array

REFERENCE_FILE = "reference.npz"
DISTANCE = "feature_distance"
"""Name of the measure that an OUT_OF_DISTRIBUTION verdict rests on."""


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """How far features lie from those of the calibration tiles: Mahalanobis in their main axes.

    d(f)^2 = sum_j (b_j . (f - mean) / scale_j)^2 + |f - mean - its part in the axes|^2 / residual^2

    The axes are the main components of the calibration features, their scales shrunk towards the
    mean one; the last term is what lies off them, where images of another kind show.

    Attributes:
        mean: Mean feature, float64 (d,).
        axes: Orthonormal rows, float64 (k, d).
        scale: Standard deviation along each, float64 (k,).
        residual: Standard deviation off the axes.

    Source:
        Lee et al. 2018, arXiv:1807.03888 (the distance); the residual after Wang et al. 2022,
        arXiv:2203.10807.
    """

    mean: Float64Array
    axes: Float64Array
    scale: Float64Array
    residual: float

    def of(self, features: Float32Array) -> Float32Array:
        """Return the distances (n,), float32, of features (n, d), float32."""
        centred = features.astype(np.float64) - self.mean
        along = centred @ self.axes.T
        off = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squared = ((along / self.scale) ** 2).sum(axis=1) + off / self.residual**2
        return np.asarray(np.sqrt(squared), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a bundle brings to check a device and its fields with.

    Attributes:
        tiles: Fidelity tiles, uint8 (n, h, w, 3) RGB.
        features: Their FP32 features, float32 (n, d).
        limit: Largest distance that passes; infinite where the bundle has no such reference.
        false_alarm: Share of the calibration's own kind of tiles that lies beyond it, as fitted.
        sharpness: Sharpness of the calibration tiles, in the measure of the focus gate; None where
            the bundle does not say it.
        colours: Colours of the calibration's tissue; None where the bundle does not say them.
    """

    tiles: UInt8Array
    features: Float32Array
    limit: float = math.inf
    false_alarm: float = 0.0
    sharpness: float | None = None
    colours: ColourReference | None = None
    _distance: Distance | None = None
    _tissue: TissueTest = field(default_factory=TissueTest)

    @classmethod
    def load(cls, bundle: Bundle) -> Reference | None:
        """Read a bundle's reference; None where it has none.

        Raises:
            BundleError: The file is not what the exporter writes.
        """
        if not bundle.has(REFERENCE_FILE):
            return None
        try:
            with np.load(io.BytesIO(bundle.read(REFERENCE_FILE)), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return cls._of(arrays, bundle)
        except (KeyError, ValueError, OSError) as error:
            raise BundleError(
                f"{REFERENCE_FILE} of {bundle.path.name} cannot be read ({error}); export the "
                "bundle again."
            ) from error

    @classmethod
    def _of(cls, arrays: dict[str, npt.NDArray[Any]], bundle: Bundle) -> Reference:
        found: dict[str, Any] = {}
        if "distance_mean" in arrays:
            found["_distance"] = Distance(
                arrays["distance_mean"].astype(np.float64),
                arrays["distance_axes"].astype(np.float64),
                arrays["distance_scale"].astype(np.float64),
                float(arrays["distance_residual"]),
            )
            found["limit"] = float(arrays["distance_limit"])
            found["false_alarm"] = float(arrays["distance_false_alarm"])
        if "sharpness" in arrays:
            found["sharpness"] = float(arrays["sharpness"])
        if "colour_mean" in arrays:
            found["colours"] = ColourReference(
                arrays["colour_mean"].astype(np.float64),
                arrays["colour_precision"].astype(np.float64),
                float(arrays["colour_limit"]),
                float(arrays["colour_red_over_blue"]),
            )
        if bundle.manifest.input is not None:
            tissue = bundle.manifest.input.tissue
            found["_tissue"] = TissueTest(
                tissue.background, tissue.min_difference, tissue.min_share
            )
        return cls(arrays["tiles"], arrays["features"].astype(np.float32), **found)

    @property
    def judges(self) -> bool:
        """Whether there is a limit at all."""
        return self._distance is not None

    def distance(self, features: Float32Array) -> Float32Array:
        """Return how far features lie from those of the calibration tiles.

        Args:
            features: float32 (n, d); n may be 0.

        Returns:
            float32 (n,), 0 and up; all 0 where the bundle has no such reference.

        Raises:
            InvalidFeaturesError: They have another width.
        """
        if self._distance is None:
            return np.zeros(len(features), dtype=np.float32)
        width = len(self._distance.mean)
        if features.ndim != 2 or features.shape[1] != width:
            raise InvalidFeaturesError(
                f"The bundle's reference is of features of width {width}, got shape "
                f"{features.shape}; use the bundle's own extractor."
            )
        return self._distance.of(features)

    def judge(self, distances: Float32Array) -> Measure | None:
        """Return a field's measure: it is out of distribution where it does not pass.

        The median of its cells decides, so that one odd cell does not cost the field.

        Args:
            distances: Of the cells that a field completes, (n,).

        Returns:
            None where there is nothing to judge: no cell, or no limit.
        """
        if not self.judges or not len(distances):
            return None
        middle = float(np.median(distances))
        return Measure(DISTANCE, middle, self.limit, middle <= self.limit)

    def channels_exchanged(self, pixels: UInt8Array) -> Measure | None:
        """Return the measure of a field's colours, which fails where red and blue look exchanged.

        Args:
            pixels: The field after flat field and white balance, uint8 (h, w, 3) RGB.

        Returns:
            None where nothing can be said: the bundle has no colours, or the field shows too
            little tissue.
        """
        return self.colours.exchanged(pixels, self._tissue) if self.colours else None


def exchanged_sentence(measure: Measure) -> str:
    """Say what a failed measure of `channels_exchanged` means, and what to do."""
    return (
        "Red and blue look exchanged: the tissue that this bundle was made on has red/blue "
        f"{measure.threshold:.2f}, this field {measure.value:.2f}, and exchanged it would fit; set "
        "the camera's pixel format (RGB or BGR)."
    )
