"""A bundle's reference, `reference.npz`: statistics of the tiles that its model was made for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_mil.bundle import Bundle, read_arrays
from edge_mil.errors import BundleError, InvalidFeaturesError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.channel_order import ColourReference
from edge_mil.types import Float32Array, Measure, UInt8Array

REFERENCE_FILE = "reference.npz"
DISTANCE = "feature_distance"
"""Name of the measure that an OUT_OF_DISTRIBUTION verdict rests on."""
NEIGHBOURS = 5
FEW = 3
"""A field with fewer cells is held to the limit of a single tile, which is wider."""
SMALLEST_LENGTH = 1e-12
"""Smallest length of a feature that is divided by."""
PARTS = ("mean", "axes", "bank")
"""Arrays of a distance, each after `distance_` in the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """Distance of features from their nearest neighbours among the calibration tiles.

    Features are rooted (signed square root, then length 1), so that neither the strength of a
    stain nor a few large numbers decide. Each is then split into its part along the main axes of
    the calibration and its part off them, which is large for images of another kind:

    d(f)^2 = mean of the NEIGHBOURS smallest |axes (f - mean) - bank_i|^2 + |part off the axes|^2

    Attributes:
        mean: Mean rooted feature, float32 (d,).
        axes: Orthonormal rows, float32 (k, d).
        bank: The calibration tiles along the axes, float32 (m, k).

    Source:
        Sun et al. 2022, arXiv:2204.06507 (nearest neighbours of features of length 1; the residual
        is after Wang et al. 2022, arXiv:2203.10807). Measured against Mahalanobis distances in
        `docs/imaging/out-of-distribution.md`.
    """

    mean: Float32Array
    axes: Float32Array
    bank: Float32Array

    def of(self, features: Float32Array) -> Float32Array:
        """Return the distances (n,), float32, of features (n, d), float32."""
        # Split into the part along the axes and the squared length of the part off them.
        centred = rooted(features) - self.mean
        along = centred @ self.axes.T
        off = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        # Squared distances to the bank, by |a - b|^2 = |a|^2 - 2 a b + |b|^2.
        squared = (along**2).sum(axis=1)[:, None] - 2 * along @ self.bank.T
        squared = np.maximum(squared + (self.bank**2).sum(axis=1), 0.0)
        nearest = np.partition(squared, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(axis=1)
        return np.asarray(np.sqrt(nearest + off), dtype=np.float32)


def rooted(features: Float32Array) -> Float32Array:
    """Return signed square roots, each row brought to length 1; float32 (n, d)."""
    roots = np.sign(features) * np.sqrt(np.abs(features))
    length = np.sqrt((roots**2).sum(axis=1, keepdims=True))
    return np.asarray(roots / np.maximum(length, SMALLEST_LENGTH), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Tiles that a device's runners are verified with, and limits that its fields are held to.

    Attributes:
        tiles: Fidelity tiles, uint8 (n, h, w, 3) RGB.
        features: Their FP32 features, float32 (n, d).
        limit: Largest distance of a tile that passes; infinite where the bundle has none.
        false_alarm: Share of the calibration's own kind of tiles that lies beyond it, as fitted.
        field_limit: Largest median distance of a field's cells that passes.
        field_false_alarm: Share of fields of the calibration's own kind beyond it, as fitted.
        sharpness: Sharpness of the calibration tiles, in the measure of the focus gate; None where
            the bundle has none.
        colours: Colours of the calibration's tissue; None where the bundle has none.
    """

    tiles: UInt8Array
    features: Float32Array
    limit: float = math.inf
    false_alarm: float = 0.0
    field_limit: float = math.inf
    field_false_alarm: float = 0.0
    sharpness: float | None = None
    colours: ColourReference | None = None
    _distance: Distance | None = None
    _tissue: TissueTest = field(default_factory=TissueTest)

    @classmethod
    def load(cls, bundle: Bundle) -> Reference | None:
        """Read a bundle's reference; return None where it has none.

        Raises:
            BundleError: The file is damaged, or no reference.
        """
        if not bundle.has(REFERENCE_FILE):
            return None
        test = TissueTest()
        if bundle.manifest.input is not None:
            spec = bundle.manifest.input.tissue
            test = TissueTest(spec.background, spec.min_difference, spec.min_share)
        try:
            return cls.parse(bundle.read(REFERENCE_FILE), test)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BundleError(
                f"{REFERENCE_FILE} of {bundle.path.name} cannot be read ({error}); export the "
                "bundle again."
            ) from error

    @classmethod
    def parse(cls, data: bytes, tissue: TissueTest) -> Reference:
        """Parse a `reference.npz`; older ones hold tiles and features only.

        Args:
            data: The file's bytes.
            tissue: The bundle's tissue test, for the colours.

        Raises:
            BundleError: The file is damaged, no such archive, or holds pickled objects.
            KeyError: An array is missing.
            ValueError: An array has another shape or type.
        """
        arrays = read_arrays(data, REFERENCE_FILE)
        found: dict[str, Any] = {"_tissue": tissue}
        if "distance_mean" in arrays:
            found["_distance"] = Distance(
                *(arrays[f"distance_{name}"].astype(np.float32) for name in PARTS)
            )
            for name in ("limit", "false_alarm", "field_limit", "field_false_alarm"):
                found[name] = float(arrays[f"distance_{name}"])
        if "sharpness" in arrays:
            found["sharpness"] = float(arrays["sharpness"])
        if "colour_mean" in arrays:
            found["colours"] = ColourReference(
                arrays["colour_mean"].astype(np.float64),
                arrays["colour_precision"].astype(np.float64),
                float(arrays["colour_limit"]),
                float(arrays["colour_red_over_blue"]),
            )
        return cls(arrays["tiles"], arrays["features"].astype(np.float32), **found)

    @property
    def has_limit(self) -> bool:
        """Whether fields can be out of distribution at all."""
        return self._distance is not None

    def distance(self, features: Float32Array) -> Float32Array:
        """Return the distance of features from those of the calibration tiles.

        Args:
            features: float32 (n, d); n may be 0.

        Returns:
            float32 (n,), 0 and up; all 0 where the bundle has no limit.

        Raises:
            InvalidFeaturesError: The features have another width.
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

    def evaluate(self, distances: Float32Array) -> Measure | None:
        """Return a field's measure: the field is out of distribution where it does not pass.

        The median of its cells decides, so that one odd cell does not cost the field.

        Args:
            distances: Of the cells that a field completes, (n,).

        Returns:
            None where there is no cell, or no limit.
        """
        if not self.has_limit or not len(distances):
            return None
        median = float(np.median(distances))
        limit = self.limit if len(distances) < FEW else self.field_limit
        return Measure(DISTANCE, median, limit, median <= limit)

    def channels_exchanged(self, pixels: UInt8Array) -> Measure | None:
        """Return the measure of a field's colours, which fails where red and blue look exchanged.

        Args:
            pixels: The field after flat field and white balance, uint8 (h, w, 3) RGB.

        Returns:
            None where the bundle has no colours, or the field shows too little tissue.
        """
        return self.colours.exchanged(pixels, self._tissue) if self.colours else None


def exchanged_sentence(measure: Measure) -> str:
    """Return what a failed measure of `channels_exchanged` means, and what to do."""
    return (
        "Red and blue look exchanged: the tissue that this bundle was made on has red/blue "
        f"{measure.threshold:.2f}, this field {measure.value:.2f}, and exchanged it would fit; set "
        "the camera's pixel format (RGB or BGR)."
    )
