"""Whether a picture judged alone is what the bundle's model was made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mil.bundle import Bundle, InputSpec
from edge_mil.imaging import GridGeometry, bring_to_tile, resample_cell
from edge_mil.imaging.quality.single_image import QualityReport
from edge_mil.pipeline.model import Model
from edge_mil.pipeline.ood.reference import Reference, exchanged_sentence
from edge_mil.types import Measure, UInt8Array, Verdict
from edge_mil.verdict_text import verdict_sentence


@dataclass(frozen=True, slots=True)
class OodResult:
    """What the reference says of one picture.

    Attributes:
        measures: Distance and colours, where they can be measured.
        words: Why it is unlike the calibration's, and what to do; "" where it is alike.
    """

    measures: tuple[Measure, ...]
    words: str


class SingleImageOod:
    """A bundle's reference and its extractor, for pictures without a session."""

    def __init__(
        self, model: Model, reference: Reference, taken: InputSpec, geometry: GridGeometry | None
    ) -> None:
        self._model, self._reference = model, reference
        self._taken, self._geometry = taken, geometry

    @classmethod
    def load(cls, bundle: Bundle, geometry: GridGeometry | None) -> SingleImageOod | None:
        """Return the likeness to a bundle's reference.

        Args:
            bundle: From `open_bundle`.
            geometry: The grid of the pictures; None where the whole picture is one instance.

        Returns:
            None where the bundle has no reference, or normalises stain: that needs the calibration
            of a microscope, which a folder of images has not.

        Raises:
            BundleError: The reference or the extractor cannot be read.
        """
        taken = bundle.manifest.input
        if taken is None or taken.stain is not None:
            return None
        reference = Reference.load(bundle)
        if reference is None:
            return None
        return cls(Model.load(bundle), reference, taken, geometry)

    def of(self, found: QualityReport, pixels: UInt8Array) -> OodResult:
        """Compare the tissue of an accepted picture with the reference.

        Args:
            found: What the gates said of it.
            pixels: The picture as the camera gave it, RGB uint8 (h, w, 3): a session without a
                calibration shows the model no other. The light that a picture's own pixels
                suggest is good enough to find tissue by, not to change its colours by.
        """
        measures, words = [], ""
        tiles = self._tiles(found, pixels)
        if tiles is not None and self._reference.judges:
            distance = self._reference.judge(self._reference.distance(self._model.extract(tiles)))
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

    def close(self) -> None:
        """Let the networks go."""
        self._model.close()

    def _tiles(self, found: QualityReport, pixels: UInt8Array) -> UInt8Array | None:
        """Return the tiles of the picture (n, h, w, 3); None where no cell is whole."""
        size = self._taken.tile_height_px, self._taken.tile_width_px
        if self._geometry is None:
            return bring_to_tile(pixels, *size)[None]
        tiles = []
        for i, j in found.cells:
            box = self._geometry.box(i, j)
            part = np.ascontiguousarray(pixels[box.y0 : box.y1, box.x0 : box.x1])
            tiles.append(resample_cell(part, self._geometry, i, j))
        return np.stack(tiles) if tiles else None
