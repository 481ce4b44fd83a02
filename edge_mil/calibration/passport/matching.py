"""Find the fields of a camera on the scan of the same slide, without any position.

It is one search from coarse to fine, and so longer than 300 lines.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from edge_mil.errors import CalibrationError
from edge_mil.imaging.registration.pairwise import register_pair
from edge_mil.imaging.registration.pyramid import RegistrationPyramid
from edge_mil.imaging.registration.template_match import match_scores
from edge_mil.imaging.resample import MAX_STEP_PX
from edge_mil.protocols import SlideImage
from edge_mil.types import Float32Array, Float64Array, UInt8Array

BoolArray: TypeAlias = "npt.NDArray[np.bool_]"

OVERVIEW_UM = 2.0
"""Pixel size at which a field is looked for, um: a field of 300 um is a template of 75 pixels."""
OVERVIEW_PX = 6000
"""Longest side of the overview of a large slide; its pixels are then larger."""
LEAST_TEMPLATE_PX = 24
"""Shorter side of a field in the overview below which it has too little structure to be found."""
CANDIDATES = 3
"""Peaks of the coarse search in each orientation; tissue repeats itself at 2 um."""
TRIED_CANDIDATES = 6
"""Of all peaks, those that are registered: the right one is nearly always the first."""
SURE = 5
"""Fields after which all lie in the orientation of most of them."""
ORIENTATIONS = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""Quarter turns, and whether the camera sees the slide as in a mirror."""
LIGHT_SIGMA_PX = 12.0
"""Sigma of the blur that is taken off the overview and the fields: uneven light and stain."""
BLOCK_PX, BLOCK_STEP_PX = 64, 64
"""Side and distance of the blocks that refine the position of a field, pixels of the model."""
BLOCK_REACH_PX = 6
"""Pixels by which a block may be off: 2 % of scale over a field of 600 pixels."""
BLOCK_RESPONSE = 0.5
LEAST_RESPONSE, LEAST_OVERLAP = 0.25, 0.5
"""Of the registration before the blocks: a camera turned by 2 degrees reaches 0.4."""
LEAST_BLOCKS = 8
"""Blocks that must agree: an affine has six numbers, and each block gives two. They are the proof
that a field lies there; of a foreign slide hardly any block correlates."""
BLOCK_ERROR_PX = 0.75
MAX_RESIDUAL_PX = 0.6
"""Root mean square error of the blocks that agree, beyond which pixels do not pair."""
ROUNDS = 4
MAX_SCALE_ERROR = 0.06
"""Relative error of the camera's pixel size that is taken up: 5 %, and rounding."""
MAX_ROTATION_DEG = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class FieldMatch:
    """Where a field lies on the scan.

    Attributes:
        matrix: From model pixels of the field (x, y) to level-0 pixels of the scan, 2 x 3; pixel
            centres lie at whole numbers.
        response: Correlation of the field with the scan, -1 to 1.
        residual_px: Root mean square error of the blocks, model pixels.
        scale: Camera pixel on the scan over the declared one.
        rotation_deg: Angle of the camera on the scan beyond quarter turns, degrees.
    """

    matrix: Float64Array
    response: float
    residual_px: float
    scale: float
    rotation_deg: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Where a field may lie: its corner, level-0 pixels of the scan."""

    score: float
    orientation: tuple[int, bool]
    x: float
    y: float


class ScanSearch:
    """Finds fields on one scan; keeps its overview."""

    def __init__(self, scan: SlideImage, mpp: float) -> None:
        """Read the overview.

        Args:
            scan: The slide file.
            mpp: Pixel size at which fields are compared, um/px: the model's.

        Raises:
            SourceError: A part of the file is damaged.
        """
        self._scan, self.mpp = scan, mpp
        long_side = max(scan.width_px, scan.height_px)
        wanted = max(OVERVIEW_UM / scan.mpp, long_side / OVERVIEW_PX, 1.0)
        # Twice as fine as wanted, then averaged: `read_whole` leaves pixels out.
        image, _ = scan.read_whole(math.ceil(2 * long_side / wanted))
        size = (max(1, round(scan.width_px / wanted)), max(1, round(scan.height_px / wanted)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self._zoom = wanted
        self._overview = _flattened(np.asarray(small, np.uint8))
        self._orientations: Sequence[tuple[int, bool]] = ORIENTATIONS
        # How the last field lay on the scan, after its quarter turns: the next is alike.
        self._linear = np.eye(2) * (mpp / scan.mpp)
        self._seen: Counter[tuple[int, bool]] = Counter()

    def find(self, field: UInt8Array) -> FieldMatch | None:
        """Find a field on the scan.

        Args:
            field: RGB uint8 (h, w, 3) at `mpp`.

        Returns:
            None where it is not found for sure.

        Raises:
            CalibrationError: The field is too small to be looked for.
            SourceError: The scan is damaged there.
        """
        # 1. The likeliest places in every orientation, by the correlation of the overview.
        candidates = [one for turn in self._orientations for one in self._candidates(field, turn)]
        candidates.sort(key=lambda one: -one.score)
        for candidate in candidates[:TRIED_CANDIDATES]:
            # 2. Register the field with the scan's same place, and refine it by blocks.
            turned = np.ascontiguousarray(_turned(field, *candidate.orientation))
            found = self._matched(turned, candidate)
            if found is None:
                continue
            # Half of its blocks fit to a part of a pixel: no other place would.
            self._seen[candidate.orientation] += 1
            if self._seen.total() >= SURE:
                self._orientations = [self._seen.most_common(1)[0][0]]
            back = _turn_matrix(field.shape[:2], *candidate.orientation)
            return dataclasses.replace(found, matrix=found.matrix @ np.vstack([back, [0, 0, 1]]))
        return None

    def render(self, matrix: Float64Array, size: tuple[int, int]) -> UInt8Array:
        """Return the scan as a field sees it.

        Args:
            matrix: From pixels of the result to level-0 pixels of the scan, 2 x 3.
            size: Height and width of the result.

        Raises:
            SourceError: That part of the scan is damaged.
        """
        height, width = size
        # Linear samples, averaged, as `resample_cell` takes them: so that the result is what an
        # offline score of this scan sees.
        step = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
        samples = max(1, math.ceil(step / MAX_STEP_PX))
        inner = matrix.copy()
        inner[:, :2] /= samples
        inner[:, 2] += matrix[:, :2] @ np.full(2, (1 / samples - 1) / 2)
        # Read the rectangle that holds the four corners, with room for the interpolation.
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
        at = corners @ matrix.T
        left, top = (int(x) for x in np.floor(at.min(axis=0)) - 4)
        right, bottom = (int(x) for x in np.ceil(at.max(axis=0)) + 5)
        part = self._read(left, top, right - left, bottom - top)
        inner[:, 2] -= (left, top)
        sampled = cv2.warpAffine(
            part,
            inner,
            (width * samples, height * samples),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if samples > 1:
            sampled = cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(sampled, np.uint8)

    def _read(self, left: int, top: int, width: int, height: int) -> UInt8Array:
        """Return a part of level 0; beyond the slide its edge is repeated."""
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self._scan.width_px, left + width), min(self._scan.height_px, top + height)
        if x1 <= x0 or y1 <= y0:
            return np.full((height, width, 3), 255, np.uint8)
        part = self._scan.read(x0, y0, x1 - x0, y1 - y0)
        around = ((y0 - top, top + height - y1), (x0 - left, left + width - x1), (0, 0))
        return np.pad(part, around, mode="edge")

    def _candidates(self, field: UInt8Array, orientation: tuple[int, bool]) -> list[_Candidate]:
        """Return where a field may lie in one orientation.

        Raises:
            CalibrationError: The field is too small to be looked for.
        """
        height, width = field.shape[:2]
        scale = self.mpp / self._scan.mpp / self._zoom
        small = (round(width * scale), round(height * scale))
        if min(small) < LEAST_TEMPLATE_PX:
            raise CalibrationError(
                f"A field covers {width * self.mpp:.0f} x {height * self.mpp:.0f} µm, which is too "
                "little to be found on a scan; use whole fields of the camera.",
                reason="PASSPORT_FIELD_SIZE",
            )
        shrunk = np.asarray(cv2.resize(field, small, interpolation=cv2.INTER_AREA), np.uint8)
        template = _flattened(np.ascontiguousarray(_turned(shrunk, *orientation)))
        return [
            _Candidate(score, orientation, x * self._zoom, y * self._zoom)
            for score, x, y in _peaks(self._overview, template)
        ]

    def _matched(self, field: UInt8Array, candidate: _Candidate) -> FieldMatch | None:
        """Match a field, turned as the scan, at one place; None where it does not fit."""
        height, width = field.shape[:2]
        per_px = self.mpp / self._scan.mpp
        middle = np.array([width - 1, height - 1]) / 2
        corner = np.array([candidate.x, candidate.y]) + (np.eye(2) * per_px - self._linear) @ middle
        matrix = np.column_stack([self._linear, corner])
        shown = self.render(matrix, (height, width))
        found = register_pair(RegistrationPyramid.of(shown), RegistrationPyramid.of(field))
        if found is None or found.response < LEAST_RESPONSE or found.overlap < LEAST_OVERLAP:
            return None
        matrix[:, 2] += matrix[:, :2] @ np.array([found.dx, found.dy])
        match = self._refined(field, matrix, per_px)
        if match is not None:
            self._linear = match.matrix[:, :2]
        return match

    def _refined(self, field: UInt8Array, matrix: Float64Array, per_px: float) -> FieldMatch | None:
        height, width = field.shape[:2]
        grey = np.ascontiguousarray(field[:, :, 1])
        residual, response = math.inf, 0.0
        for _ in range(ROUNDS):
            shown = np.ascontiguousarray(self.render(matrix, (height, width))[:, :, 1])
            at, shifts, scores = _block_shifts(shown, grey)
            fitted = _fit_affine(at, shifts)
            if fitted is None:
                return None
            # The field's pixel p lies at p + shift(p) of the place.
            change, residual, agreeing = fitted
            response = float(np.median(scores[agreeing]))
            matrix = matrix @ np.vstack([change, [0, 0, 1]])
        linear = matrix[:, :2] / per_px
        axes = np.linalg.svd(linear, compute_uv=False)
        angle = math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
        scale = float(np.sqrt(axes[0] * axes[1]))
        wrong = (
            residual > MAX_RESIDUAL_PX
            or axes[0] > axes[1] * (1 + MAX_SCALE_ERROR)
            or abs(scale - 1) > MAX_SCALE_ERROR
            or abs(angle) > MAX_ROTATION_DEG
        )
        return None if wrong else FieldMatch(matrix, response, residual, scale, angle)


def _flattened(pixels: UInt8Array) -> Float32Array:
    """Return the green channel without its slow variation, float32 (h, w)."""
    green = pixels[:, :, 1].astype(np.float32)
    return green - cv2.GaussianBlur(green, (0, 0), LIGHT_SIGMA_PX)


def _peaks(overview: Float32Array, template: Float32Array) -> list[tuple[float, float, float]]:
    """Return the likeliest corners of a template (score, x, y), pixels of the overview."""
    # A field at the edge may reach a little beyond the scan.
    margin = min(template.shape) // 8
    padded = np.pad(overview, margin)
    if padded.shape[0] < template.shape[0] or padded.shape[1] < template.shape[1]:
        return []
    scores = cv2.matchTemplate(padded, template, cv2.TM_CCOEFF_NORMED)
    scores = np.nan_to_num(scores, nan=-1.0, posinf=-1.0, neginf=-1.0)
    found = []
    apart = max(2, min(template.shape) // 8)
    for _ in range(CANDIDATES):
        _, highest, _, (x, y) = cv2.minMaxLoc(scores)
        if highest <= 0:
            break
        found.append((float(highest), float(x - margin), float(y - margin)))
        scores[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -1.0
    return found


def _block_shifts(
    shown: UInt8Array, field: UInt8Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return the centres of blocks of a field, their shifts on the place, and their scores."""
    centres, shifts, scores = [], [], []
    height, width = field.shape
    reach = BLOCK_REACH_PX
    for top in range(reach, height - BLOCK_PX - reach + 1, BLOCK_STEP_PX):
        for left in range(reach, width - BLOCK_PX - reach + 1, BLOCK_STEP_PX):
            block = field[top : top + BLOCK_PX, left : left + BLOCK_PX]
            found = match_scores(shown, block, left, top, reach, BLOCK_PX)
            if found is None:
                continue
            _, highest, _, (column, row) = cv2.minMaxLoc(found)
            inside = 0 < column < 2 * reach and 0 < row < 2 * reach
            if highest < BLOCK_RESPONSE or not inside:
                continue
            fine = _vertex(found, column, row)
            centres.append((left + (BLOCK_PX - 1) / 2, top + (BLOCK_PX - 1) / 2))
            shifts.append((fine[0] - reach, fine[1] - reach))
            scores.append(highest)
    return (
        np.array(centres).reshape(-1, 2),
        np.array(shifts).reshape(-1, 2),
        np.array(scores, dtype=np.float64),
    )


def _vertex(scores: Float32Array, column: int, row: int) -> tuple[float, float]:
    """Return the vertex (x, y) of the paraboloid through a maximum and its neighbours.

    Source:
        As `template_match.refined_shift`: a parabola across and one down.
    """
    out = []
    for line, at in ((scores[row], column), (scores[:, column], row)):
        before, here, after = (float(line[at + k]) for k in (-1, 0, 1))
        curvature = before - 2 * here + after
        out.append(at + 0.5 * (before - after) / curvature if curvature < 0 else float(at))
    return out[0], out[1]


def _fit_affine(
    at: Float64Array, shifts: Float64Array
) -> tuple[Float64Array, float, BoolArray] | None:
    """Return the affine p -> p + shift(p), 2 x 3, its residual, and the blocks that agree."""
    if len(at) < LEAST_BLOCKS:
        return None
    terms = np.column_stack([at, np.ones(len(at))])
    # Begin with the median shift; blocks that miss the fit by too much leave it.
    centre = np.median(shifts, axis=0)
    agreeing = np.hypot(*(shifts - centre).T) <= BLOCK_REACH_PX
    solution = np.zeros((3, 2))
    for limit in (4.0, 2.0, 1.0, BLOCK_ERROR_PX, BLOCK_ERROR_PX):
        if agreeing.sum() < LEAST_BLOCKS:
            return None
        solution = np.linalg.lstsq(terms[agreeing], shifts[agreeing], rcond=None)[0]
        errors = np.hypot(*(terms @ solution - shifts).T)
        agreeing = errors <= limit
    if agreeing.sum() < max(LEAST_BLOCKS, len(at) // 2):
        return None
    residual = float(np.sqrt((errors[agreeing] ** 2).mean()))
    change = solution.T + np.array([[1.0, 0, 0], [0, 1.0, 0]])
    return change, residual, agreeing


def _turned(field: UInt8Array, turns: int, mirrored: bool) -> UInt8Array:
    """Return a field after a mirror (left to right) and quarter turns against the clock."""
    return np.rot90(field[:, ::-1] if mirrored else field, turns)


def _turn_matrix(shape: tuple[int, ...], turns: int, mirrored: bool) -> Float64Array:
    """Return where `_turned` puts pixel (x, y) of a field of this (height, width), 2 x 3."""
    height, width = shape
    matrix = np.eye(3)
    if mirrored:
        matrix = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    for _ in range(turns):
        # rot90: (x, y) -> (y, width - 1 - x).
        matrix = np.array([[0.0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]) @ matrix
        height, width = width, height
    return matrix[:2]
