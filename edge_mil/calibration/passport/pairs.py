"""Pair the tiles of a camera's fields with the same tissue on a scan, or refuse in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge_mil.bundle import InputSpec
from edge_mil.calibration.passport.matching import FieldMatch, ScanSearch
from edge_mil.calibration.passport.sharpness import fine_energy
from edge_mil.errors import CalibrationError
from edge_mil.imaging import GridGeometry, TissueTest, bring_to_tile, resample_cell
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.protocols import SlideImage
from edge_mil.types import Float64Array, Frame, UInt8Array, Verdict

MIN_FIELDS, MAX_FIELDS = 8, 60
"""Fields that must be found, in focus; and those that are taken: 10 to 30 are asked for."""
MIN_CELLS, MAX_CELLS = 24, 600
"""Pairs of cells in all; each is extracted three times."""
MIN_CELLS_OF_FIELDS = 8
"""The same for a bundle whose instances are whole fields."""
FOUND_SHARE = 0.5
"""Share of the fields with tissue that must be found: fewer are another slide."""
HOPELESS = 8
"""When none of so many fields is found, the others are not looked for: each takes seconds."""
SHARP_SHARE = 0.5
"""A field with less than this share of the fine detail, against the scan, that the sharpest fields
have is out of focus. The fields of one camera in focus lie within 0.8 to 1.2 of their median."""
MAX_OUT_OF_FOCUS = 1 / 3


@dataclass(frozen=True, slots=True, eq=False)
class PairedField:
    """One field that was found on the scan.

    Attributes:
        name: Its file.
        camera: Its tiles as a session cuts them, RGB uint8 (n, h, w, 3).
        scan: The same tissue on the scan, likewise.
        match: Where it lies.
        detail: Fine detail of the camera's tiles over the scan's.
    """

    name: str
    camera: UInt8Array
    scan: UInt8Array
    match: FieldMatch
    detail: float


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The fields that a passport is measured on, and what became of the others.

    Attributes:
        fields: Found, in focus, with tissue.
        given: How many fields were given.
        blank: Names of those without tissue.
        lost: Names of those that were not found on the scan.
        unfocused: Names of those that are out of focus.
    """

    fields: tuple[PairedField, ...]
    given: int
    blank: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unfocused: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        return sum(len(one.camera) for one in self.fields)


@dataclass(slots=True, eq=False)
class _Sorted:
    fields: list[PairedField] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    soft: int = 0


def pair_fields(
    frames: Iterable[Frame],
    scan: SlideImage,
    spec: InputSpec,
    mpp: float,
    corrected: Callable[[UInt8Array], UInt8Array],
    *,
    allow_enlargement: bool = False,
) -> Pairs:
    """Find fields on the scan and cut both into tiles.

    Args:
        frames: The camera's fields, as they came.
        scan: The slide file of the same slide.
        spec: Tile and pixel size of the model.
        mpp: Pixel size of the camera, um/px.
        corrected: Applies the calibration's flat field and white balance.
        allow_enlargement: As for a session.

    Raises:
        CalibrationError: The fields are too few, of another slide, or out of focus.
        PixelSizeError: Camera or scan are too coarse for the model.
        SourceError: The scan is damaged.
    """
    cutter = _Cutter(spec, mpp, allow_enlargement)
    # A scan too coarse for the model cannot say what the model should see.
    GridGeometry(scan.mpp, spec.tile_height_px, spec.tile_width_px, spec.mpp)
    search = ScanSearch(scan, spec.mpp)
    tissue = TissueTest(spec.tissue.background, spec.tissue.min_difference, spec.tissue.min_share)
    gate = FrameGate(GateSettings(), tissue)
    found, given, cells = _Sorted(), 0, 0
    for frame in frames:
        given += 1
        if given > MAX_FIELDS:
            raise CalibrationError(
                f"There are more than {MAX_FIELDS} fields; 10 to 30 from different parts of the "
                "slide are enough.",
                reason="PASSPORT_FIELDS",
            )
        pixels = corrected(frame.pixels)
        if tissue.share(pixels) < tissue.min_share:
            found.blank.append(frame.name)
            continue
        match = search.find(cutter.at_model_mpp(pixels))
        if match is None:
            found.lost.append(frame.name)
            found.soft += gate.evaluate(pixels).verdict in (Verdict.BLURRED, Verdict.MOVING)
            if len(found.lost) >= HOPELESS and not found.fields:
                break
            continue
        room = MAX_CELLS - cells
        camera, same = cutter.cut(pixels, match, search, tissue, room)
        if not len(camera):
            found.blank.append(frame.name)
            continue
        cells += len(camera)
        detail = _detail(camera, same)
        found.fields.append(PairedField(frame.name, camera, same, match, detail))
    return _checked(found, given, whole_fields=spec.instances == "field")


def _checked(found: _Sorted, given: int, *, whole_fields: bool) -> Pairs:
    """Return the pairs that can be used.

    Raises:
        CalibrationError: They do not carry a passport.
    """
    with_tissue = len(found.fields) + len(found.lost)
    if with_tissue < MIN_FIELDS:
        raise CalibrationError(
            f"{with_tissue} of {given} fields show tissue and {MIN_FIELDS} are needed; take 10 to "
            "30 fields of different parts of the tissue.",
            reason="PASSPORT_TOO_FEW",
            fields=with_tissue,
        )
    if len(found.fields) < max(FOUND_SHARE * with_tissue, 1):
        if found.soft > len(found.lost) / 2:
            raise CalibrationError(
                f"{len(found.lost)} of {with_tissue} fields are not found on the scan, and "
                f"{found.soft} of these are out of focus; focus each field before it is taken, "
                "and repeat.",
                reason="PASSPORT_OUT_OF_FOCUS",
                lost=len(found.lost),
            )
        raise CalibrationError(
            f"Only {len(found.fields)} of {with_tissue} fields are found on the scan, so it is "
            "another slide, or the pixel size is wrong by more than 5 %; give the scan of this "
            "slide (--slide), and check --mpp.",
            reason="PASSPORT_OTHER_SLIDE",
            found=len(found.fields),
        )
    # Against the sharpest quarter, so that a camera that is soft everywhere passes this test.
    details = np.array([one.detail for one in found.fields])
    best = float(np.quantile(details, 0.75))
    sharp = tuple(f for f in found.fields if f.detail >= SHARP_SHARE * best)
    unfocused = tuple(f.name for f in found.fields if f.detail < SHARP_SHARE * best)
    if len(unfocused) > MAX_OUT_OF_FOCUS * len(found.fields):
        raise CalibrationError(
            f"{len(unfocused)} of {len(found.fields)} fields are out of focus beside the others, "
            f"as {unfocused[0]}; focus each field before it is taken, and repeat.",
            reason="PASSPORT_OUT_OF_FOCUS",
            unfocused=len(unfocused),
        )
    cells = sum(len(one.camera) for one in sharp)
    least = MIN_CELLS_OF_FIELDS if whole_fields else MIN_CELLS
    if len(sharp) < MIN_FIELDS or cells < least:
        raise CalibrationError(
            f"{len(sharp)} fields with {cells} cells pair with the scan, and {MIN_FIELDS} fields "
            f"with {least} cells are needed; take 10 to 30 fields of different parts of the "
            "tissue, in focus, away from the edge of the scan.",
            reason="PASSPORT_TOO_FEW",
            fields=len(sharp),
            cells=cells,
        )
    return Pairs(sharp, given, tuple(found.blank), tuple(found.lost), unfocused)


class _Cutter:
    """Cuts a field and the scan below it into pairs of tiles."""

    def __init__(self, spec: InputSpec, mpp: float, allow_enlargement: bool) -> None:
        self._spec, self._mpp = spec, mpp
        self._tile = (spec.tile_height_px, spec.tile_width_px)
        self._geometry = GridGeometry(mpp, *self._tile, spec.mpp, allow_enlargement)

    def at_model_mpp(self, pixels: UInt8Array) -> UInt8Array:
        """Return a field at the model's pixel size."""
        height, width = self._model_size(pixels)
        shrinks = height < pixels.shape[0]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation))

    def cut(
        self,
        pixels: UInt8Array,
        match: FieldMatch,
        search: ScanSearch,
        tissue: TissueTest,
        most: int,
    ) -> tuple[UInt8Array, UInt8Array]:
        """Return at most `most` pairs of tiles that show tissue, and lie on the scan."""
        from_camera = match.matrix @ self._camera_to_model(pixels)
        camera: list[UInt8Array] = []
        scan: list[UInt8Array] = []
        for tile, matrix in self._tiles(pixels):
            if len(camera) >= most:
                break
            same = search.render(from_camera @ matrix, self._tile)
            if tissue.share(same) >= tissue.min_share and tissue.share(tile) >= tissue.min_share:
                camera.append(tile)
                scan.append(same)
        empty = np.empty((0, *self._tile, 3), np.uint8)
        return (np.stack(camera), np.stack(scan)) if camera else (empty, empty)

    def _tiles(self, pixels: UInt8Array) -> Iterable[tuple[UInt8Array, Float64Array]]:
        """Yield each tile, and the matrix (3 x 3) from its pixels to the camera's."""
        height, width = pixels.shape[:2]
        if self._spec.instances == "field":
            yield bring_to_tile(pixels, *self._tile), _scaling(width, height, self._tile, 0, 0)
            return
        geometry = self._geometry
        for i, j in geometry.cells_touching(0, 0, width, height):
            box = geometry.box(i, j)
            if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
                continue
            tile = resample_cell(pixels[box.y0 : box.y1, box.x0 : box.x1], geometry, i, j)
            across, down = geometry.cell_w_px, geometry.cell_h_px
            yield tile, _scaling(across, down, self._tile, i * across, j * down)

    def _model_size(self, pixels: UInt8Array) -> tuple[int, int]:
        scale = self._mpp / self._spec.mpp
        return max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))

    def _camera_to_model(self, pixels: UInt8Array) -> Float64Array:
        """Return the matrix (3 x 3) from the camera's pixels to `at_model_mpp`'s."""
        height, width = pixels.shape[:2]
        rows, columns = self._model_size(pixels)
        inverse = _scaling(width, height, (rows, columns), 0, 0)
        return np.asarray(np.linalg.inv(inverse))


def _scaling(
    width: float, height: float, size: tuple[int, int], left: float, top: float
) -> Float64Array:
    """Return the matrix (3 x 3) from pixels of an image of `size` to those of its rectangle.

    The rectangle of `width` x `height` has its corner, not its first pixel's centre, at (left,
    top); pixel centres lie at whole numbers on both sides.
    """
    across, down = width / size[1], height / size[0]
    return np.array(
        [
            [across, 0, left + (across - 1) / 2],
            [0, down, top + (down - 1) / 2],
            [0, 0, 1],
        ]
    )


def _detail(camera: UInt8Array, scan: UInt8Array) -> float:
    """Return the fine detail of a field's tiles over that of the scan's, by their contrasts.

    Each is divided by its coarse contrast, so that a pale or a dark camera compares.
    """
    ratios = []
    for tiles in (camera, scan):
        fine = sum(fine_energy(tile.astype(np.float32)) for tile in tiles)
        coarse = sum(float(cv2.blur(tile, (9, 9)).mean(axis=2).var()) for tile in tiles)
        ratios.append(fine / max(coarse, 1e-9))
    ratio = ratios[0] / max(ratios[1], 1e-9)
    return ratio if math.isfinite(ratio) else 0.0
