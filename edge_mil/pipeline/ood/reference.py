"""A bundle's own reference, `reference.npz`: the tiles that its model was made for."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_mil.bundle import Bundle
from edge_mil.errors import BundleError, InvalidFeaturesError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.channel_order import ColourReference
from edge_mil.types import Float32Array, Measure, UInt8Array

REFERENCE_FILE = "reference.npz"
DISTANCE = "feature_distance"
"""Name of the measure that an OUT_OF_DISTRIBUTION verdict rests on."""
NEIGHBOURS = 5
FEW = 3
"""Cells from which their median decides by the field's limit, below it by the tile's."""
TINY = 1e-12
PARTS = ("mean", "axes", "bank")
"""Arrays of a distance, each after `distance_` in the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """How far features lie from those of the calibration tiles: their nearest ones.

    Features are rooted (signed square root, then length 1), so that neither the strength of a
    stain nor a few large numbers decide, and taken apart into the main axes of the calibration and
    what lies off them, where images of another kind show:

    d(f)^2 = mean of the NEIGHBOURS smallest |axes (f - mean) - bank_i|^2 + |what is off the axes|^2

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
        centred = rooted(features) - self.mean
        along = centred @ self.axes.T
        off = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        apart = (along**2).sum(axis=1)[:, None] - 2 * along @ self.bank.T
        apart = np.maximum(apart + (self.bank**2).sum(axis=1), 0.0)
        near = np.partition(apart, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(axis=1)
        return np.asarray(np.sqrt(near + off), dtype=np.float32)


def rooted(features: Float32Array) -> Float32Array:
    """Return signed square roots, each row brought to length 1; float32 (n, d)."""
    roots = np.sign(features) * np.sqrt(np.abs(features))
    length = np.sqrt((roots**2).sum(axis=1, keepdims=True))
    return np.asarray(roots / np.maximum(length, TINY), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a bundle brings to check a device and its fields with.

    Attributes:
        tiles: Fidelity tiles, uint8 (n, h, w, 3) RGB.
        features: Their FP32 features, float32 (n, d).
        limit: Largest distance of a tile that passes; infinite where the bundle has no such
            reference.
        false_alarm: Share of the calibration's own kind of tiles that lies beyond it, as fitted.
        field_limit: Largest median distance of a field's cells that passes.
        field_false_alarm: Share of fields of the calibration's own kind beyond it, as fitted.
        sharpness: Sharpness of the calibration tiles, in the measure of the focus gate; None where
            the bundle does not say it.
        colours: Colours of the calibration's tissue; None where the bundle does not say them.
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
        """Read a bundle's reference; None where it has none.

        Raises:
            BundleError: The file is not what the exporter writes.
        """
        if not bundle.has(REFERENCE_FILE):
            return None
        test = TissueTest()
        if bundle.manifest.input is not None:
            spec = bundle.manifest.input.tissue
            test = TissueTest(spec.background, spec.min_difference, spec.min_share)
        try:
            return cls.parse(bundle.read(REFERENCE_FILE), test)
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{REFERENCE_FILE} of {bundle.path.name} cannot be read ({error}); export the "
                "bundle again."
            ) from error

    @classmethod
    def parse(cls, data: bytes, tissue: TissueTest) -> Reference:
        """Read the bytes of a `reference.npz`; older ones hold tiles and features only.

        Args:
            data: The file.
            tissue: The bundle's tissue test, for the colours.

        Raises:
            KeyError: An array is missing.
            ValueError: The file is no such archive, or holds pickled objects.
            OSError: It is damaged; EOFError and zipfile.BadZipFile say so too.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
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

        The median of its cells decides, so that one odd cell does not cost the field; of fewer
        than FEW cells the tile's own limit is asked, which is wider.

        Args:
            distances: Of the cells that a field completes, (n,).

        Returns:
            None where there is nothing to judge: no cell, or no limit.
        """
        if not self.judges or not len(distances):
            return None
        middle = float(np.median(distances))
        limit = self.limit if len(distances) < FEW else self.field_limit
        return Measure(DISTANCE, middle, limit, middle <= limit)

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
