"""Compare an image that belongs to no session with what the bundle's model was made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_mil.bundle import Bundle, InputSpec
from edge_mil.imaging import GridGeometry, bring_to_tile, resample_cell
from edge_mil.imaging.quality.single_image import QualityReport
from edge_mil.pipeline.ood.reference import REFERENCE_FILE, Reference, exchanged_sentence
from edge_mil.types import Float32Array, Measure, UInt8Array, Verdict
from edge_mil.verdict_text import verdict_sentence


class ExtractorModel(Protocol):
    """What the comparison needs of a model; `edge_mil.pipeline.model.Model` is one."""

    @property
    def input(self) -> InputSpec | None: ...

    @property
    def reference(self) -> Reference | None: ...

    def extract(self, tiles: UInt8Array) -> Float32Array: ...


@dataclass(frozen=True, slots=True)
class OodResult:
    """What was measured of one image.

    Attributes:
        measures: Distance and colours, where they can be measured.
        words: Why the image is unlike the calibration tiles, and what to do; "" where it is not.
    """

    measures: tuple[Measure, ...]
    words: str


class SingleImageOod:
    """Compares images with a bundle's reference, by the bundle's extractor."""

    def __init__(self, model: ExtractorModel, geometry: GridGeometry | None) -> None:
        """Take a loaded model, which the caller closes.

        Args:
            model: Of a bundle that `supports` is true of.
            geometry: The grid of the images; None where the whole image is one instance.

        Raises:
            BundleError: The bundle's reference cannot be read.
        """
        assert model.input is not None
        assert model.reference is not None
        self._extract, self._spec, self._reference = model.extract, model.input, model.reference
        self._geometry = geometry

    @staticmethod
    def supports(bundle: Bundle) -> bool:
        """Return whether images alone can be compared with a bundle's reference.

        They cannot where there is none, or where the bundle normalises stain: that needs the
        calibration of a microscope, which a folder of images has not.
        """
        spec = bundle.manifest.input
        return spec is not None and spec.stain is None and bundle.has(REFERENCE_FILE)

    def evaluate(self, report: QualityReport, pixels: UInt8Array) -> OodResult:
        """Compare the tissue of an accepted image with the reference.

        Args:
            report: The image's quality, with the cells that show tissue.
            pixels: The image as the camera gave it, RGB uint8 (h, w, 3): a session without a
                calibration shows the model no other. The light that an image's own pixels suggest
                is good enough to find tissue by, not to change its colours by.
        """
        measures, words = [], ""
        tiles = self._tiles(report, pixels)
        if tiles is not None and self._reference.has_limit:
            distance = self._reference.evaluate(self._reference.distance(self._extract(tiles)))
            if distance is not None:
                measures.append(distance)
                if not distance.passed:
                    words = verdict_sentence(Verdict.OUT_OF_DISTRIBUTION, "judge")
        colours = self._reference.channels_exchanged(pixels)
        if colours is not None:
            measures.append(colours)
            if not colours.passed:
                words = exchanged_sentence(colours)
        return OodResult(tuple(measures), words)

    def _tiles(self, report: QualityReport, pixels: UInt8Array) -> UInt8Array | None:
        """Return the image's tiles (n, h, w, 3); None where no cell is whole."""
        if self._geometry is None:
            return bring_to_tile(pixels, self._spec.tile_height_px, self._spec.tile_width_px)[None]
        tiles = []
        for i, j in report.cells:
            box = self._geometry.box(i, j)
            part = np.ascontiguousarray(pixels[box.y0 : box.y1, box.x0 : box.x1])
            tiles.append(resample_cell(part, self._geometry, i, j))
        return np.stack(tiles) if tiles else None
