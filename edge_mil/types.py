"""Values that travel between layers: checked when made, immutable after.

One file for all of them, longer than 300 lines: users import them from `edge_mil.types`, and each
is small.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_mil.errors import FrameError, InvalidInstancesError, PixelSizeError, PositionError
from edge_mil.limits import MAX_EPOCH_S, check_position
from edge_mil.renamed import renamed, renamed_attribute

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(__name__, {"HeatMap": "InfluenceMap", "Places": "InstanceOrder"})

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int64Array: TypeAlias = npt.NDArray[np.int64]

RESEARCH_USE_ONLY = "Research use only. Not for diagnosis."
"""Part of every output that holds a score."""

MIN_MPP, MAX_MPP = 0.01, 20.0
"""Bounds of a possible pixel size, um/px: a 100x objective on a 1 um sensor; a macro lens."""


class Verdict(enum.IntEnum):
    """Verdict on one field; the numbers are those of `edge_mil.v1.Verdict`."""

    ACCEPTED = 1
    DUPLICATE = 2
    BLANK = 3
    BLURRED = 4
    MOVING = 5
    SATURATED = 6
    UNLOCATED = 7
    OUT_OF_DISTRIBUTION = 8
    DROPPED = 9
    WRONG_LIGHT = 20
    NOISY = 21


REFUSED = frozenset(
    {
        Verdict.BLURRED,
        Verdict.MOVING,
        Verdict.SATURATED,
        Verdict.UNLOCATED,
        Verdict.OUT_OF_DISTRIBUTION,
        Verdict.DROPPED,
        Verdict.WRONG_LIGHT,
        Verdict.NOISY,
    }
)
"""Verdicts after which another frame of the same place may be accepted."""


def check_mpp(mpp: float, what: str = "The pixel size") -> float:
    """Return `mpp` where it is a possible pixel size.

    Args:
        mpp: Pixel size, um/px.
        what: What it is, for the message.

    Raises:
        PixelSizeError: It is not finite, not positive, or outside of MIN_MPP to MAX_MPP.
    """
    if not (math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP):
        raise PixelSizeError(
            f"{what} is {mpp:g} µm/px, which is outside of {MIN_MPP:g} to {MAX_MPP:g}; "
            "give the size of one camera pixel on the slide in micrometres (20x is often 0.5).",
            mpp=mpp,
        )
    return mpp


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image with its metadata.

    Attributes:
        pixels: RGB uint8, shape (h, w, 3), C-contiguous.
        x_um: Stage x of the field's centre, um, x right; None without a stage.
        y_um: Stage y of the field's centre, um, y down; None without a stage.
        location_id: Id of the location, for independent fields; "" otherwise. A frame never has
            both a location and a position.
        capture_time_s: Seconds since the epoch; 0 when the camera does not say.
        name: Source of the frame, for people (a file's name); "" when unknown.
        grey: The same pixels in grey, uint8 (h, w), where a gate computed them; else None.

    Raises:
        FrameError: The array is not RGB uint8, or the time is no date.
        PositionError: Half a position, one that is not finite or beyond a metre, or a position and
            a location.
    """

    pixels: UInt8Array
    x_um: float | None = None
    y_um: float | None = None
    location_id: str = ""
    capture_time_s: float = 0.0
    name: str = ""
    grey: UInt8Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise FrameError(
                f"A frame must be RGB uint8 of shape (height, width, 3), got {self.pixels.dtype} "
                f"{shape}; convert it before sending."
            )
        if not 0 <= self.capture_time_s <= MAX_EPOCH_S:
            raise FrameError(
                f"The frame's capture time is {self.capture_time_s:g} s since 1970, which is no "
                "date; send seconds since the epoch, or leave it out.",
                reason="CAPTURE_TIME_INVALID",
            )
        if (self.x_um is None) != (self.y_um is None):
            raise PositionError("A field has only one of stage x and y; send both, or neither.")
        if self.x_um is not None and self.y_um is not None:
            check_position(self.x_um, self.y_um)
            if self.location_id:
                raise PositionError(
                    f"The field has a stage position and the location {self.location_id!r}; send "
                    "one of them."
                )

    place = renamed_attribute("Frame", "place", "location_id")

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the slide, stage um; (x, y) is its top left corner."""

    x_um: float
    y_um: float
    width_um: float
    height_um: float


@dataclass(frozen=True, slots=True, eq=False)
class InstanceOrder:
    """The canonical order of instances, for heads whose score depends on it.

    Attributes:
        keys: A key for each instance, no two alike: the bag's canonical order is that of the keys.
        cells: Grid position (column, row) of each, int64, shape (n, 2); a pseudo-bag is a function
            of it.
        groups: Pseudo-bag of each, int64, shape (n,), where it is given; None: drawn from cells.
        positions: x and y of each as the features file gives them, float64, shape (n, 2); None
            where it gives none, and for cells of a live session.

    Raises:
        InvalidInstancesError: The lengths disagree.
    """

    keys: tuple[bytes, ...]
    cells: Int64Array
    groups: Int64Array | None = None
    positions: Float64Array | None = None

    def __post_init__(self) -> None:
        n = len(self.keys)
        fits = self.cells.shape == (n, 2)
        fits = fits and (self.groups is None or self.groups.shape == (n,))
        if not fits or (self.positions is not None and self.positions.shape != (n, 2)):
            raise InvalidInstancesError(
                f"Got {n} keys, cells {self.cells.shape} and groups "
                f"{None if self.groups is None else self.groups.shape}; they must fit together."
            )

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Int64Array) -> InstanceOrder:
        """Return the order of some of the instances."""
        groups = None if self.groups is None else self.groups[rows]
        positions = None if self.positions is None else self.positions[rows]
        keys = tuple(self.keys[row] for row in rows)
        return InstanceOrder(keys, self.cells[rows], groups, positions)


@dataclass(frozen=True, slots=True, eq=False)
class InstanceBatch:
    """Some instances of one slide, embedded and ready to be pooled.

    Attributes:
        embeddings: What is pooled, one row per instance, shape (n, l), float32. n may be 0.
        attention_logits: Attention before the softmax, shape (n, k), float32; k channels
            (heads, branches or classes), 0 for a pooling without attention (mean, max).
        extra: What else the head keeps of an instance (DSMIL's queries), name -> float32 (n, m).
        instance_order: Their canonical order; None where the head does not need it.

    Raises:
        InvalidInstancesError: The shapes disagree, or a number is not finite.
    """

    embeddings: Float32Array
    attention_logits: Float32Array
    extra: Mapping[str, Float32Array] = field(default_factory=dict)
    instance_order: InstanceOrder | None = None

    def __post_init__(self) -> None:
        """Check the batch here, so that no later layer has to."""
        rows, logits = self.embeddings.shape, self.attention_logits.shape
        if len(rows) != 2 or len(logits) != 2 or rows[0] != logits[0]:
            raise InvalidInstancesError(
                f"Expected embeddings (n, l) and attention logits (n, k), got {rows} and {logits}."
            )
        others = [len(array) for array in self.extra.values()]
        if self.instance_order is not None:
            others.append(len(self.instance_order))
        if any(n != rows[0] for n in others):
            raise InvalidInstancesError(
                f"Expected {rows[0]} instances in every array, got {others}."
            )
        # An overflowed half-precision engine answers inf or NaN, and a single one would spoil
        # the score of the whole slide.
        arrays = (self.embeddings, self.attention_logits, *self.extra.values())
        if not all(np.isfinite(array).all() for array in arrays):
            raise InvalidInstancesError(
                "An embedding or attention logit is not finite; compare this engine with its "
                "FP32 ONNX model before using it, and look for NaN in the features."
            )

    places = renamed_attribute("InstanceBatch", "places", "instance_order")
    values = renamed_attribute("InstanceBatch", "values", "embeddings")

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: Int64Array) -> InstanceBatch:
        """Return some of the instances."""
        return InstanceBatch(
            self.embeddings[rows],
            self.attention_logits[rows],
            {name: array[rows] for name, array in self.extra.items()},
            None if self.instance_order is None else self.instance_order.take(rows),
        )


@dataclass(frozen=True, slots=True)
class SlideScore:
    """The slide-level result of a model over the instances of a bag.

    Attributes:
        classes: Names of the outputs; as many as logits.
        logits: Bag logits before sigmoid or softmax.
        probabilities: Their softmax, or sigmoid; empty for survival and regression.
        instances: How many instances the bag holds.
        value: Regression value or survival risk; None otherwise.
        hazards: Hazard of each interval; survival only.
        survival: Survival curve; survival only.
        pooled: Pooled vector, flat; only where the model has no classifier.
    """

    classes: tuple[str, ...]
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    instances: int
    value: float | None = None
    hazards: tuple[float, ...] = ()
    survival: tuple[float, ...] = ()
    pooled: tuple[float, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the `score` object of the commands' JSON output."""
        if self.pooled:
            return {"pooled": list(self.pooled)}
        out: dict[str, object] = {
            "classes": list(self.classes),
            "logits": list(self.logits),
            "probabilities": list(self.probabilities),
        }
        if self.value is not None:
            out["value"] = self.value
        for name in ("hazards", "survival"):
            if numbers := getattr(self, name):
                out[name] = list(numbers)
        return out


@dataclass(frozen=True, slots=True)
class Measure:
    """One number behind a verdict.

    Attributes:
        name: Name of the number, as "tissue_share"; its unit ends the name where it has one.
        value: The number.
        threshold: Threshold that it was compared with; NaN where it is only reported.
        passed: Whether the field passed.
    """

    name: str
    value: float
    threshold: float = math.nan
    passed: bool = True


class CheckState(str, enum.Enum):
    """Whether what a session takes for granted was seen; the values are those of the wire."""

    UNPROVEN = "unproven"
    AGREES = "agrees"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class SessionCheck:
    """Something that a session takes for granted, compared with what it sees.

    Attributes:
        state: Unproven, agrees or contradicted.
        sentence: Why, and what to do.
        cause: Name of a contradiction's cause, as "x-flipped"; "" without one.
        held: Whether fields are refused until a person lets the session go on.
        since: Sequence of the field at which the contradiction was found; 0 without one.
        pairs: Overlapping fields that the numbers rest on.
        scale: um of the stage per um of the images, and its standard error; None: not known.
        rotation_deg: Angle of the camera against the declared axes, and its standard error.
        backlash_um: The larger of both axes, and its standard error.
    """

    state: CheckState = CheckState.UNPROVEN
    sentence: str = ""
    cause: str = ""
    held: bool = False
    since: int = 0
    pairs: int = 0
    scale: tuple[float, float] | None = None
    rotation_deg: tuple[float, float] | None = None
    backlash_um: tuple[float, float] | None = None

    def as_json(self) -> dict[str, object]:
        """Return it for reports and the commands' JSON output; unknown numbers are left out."""
        out: dict[str, object] = {"state": self.state.value, "sentence": self.sentence}
        if self.cause:
            out.update(cause=self.cause, held=self.held, since=self.since)
        out["pairs"] = self.pairs
        for name in ("scale", "rotation_deg", "backlash_um"):
            if (number := getattr(self, name)) is not None:
                out[name], out[f"{name}_error"] = number
        return out


@dataclass(frozen=True, slots=True)
class FieldResult:
    """The answer to one field.

    Attributes:
        sequence: Number that the client gave the field.
        verdict: The verdict.
        measures: Every gate's number and threshold, also of an accepted field.
        score: Running score after this field; None while the bag is empty.
        revision: Number of changes of the bag so far; the score is a function of it.
        fields_held: Fields whose instances are in the bag.
        coverage: Share held of the tissue cells known so far, 0 to 1.
        cells_added: New instances; 0 with ACCEPTED where the field completed no cell.
        cells_improved: Instances replaced by better ones.
        cells_held: Instances that this field shows and that were held before.
        timings_s: Seconds by stage: receive, queue, decode, gate, extract, fold, commit.
        as_of: Last field that the score covers, where the head is scored in the background;
            None: this one.
        light: Whether the empty glass seen so far agrees with the background: unproven, agrees or
            contradicted; "" where it is not checked.
        explanation: Why a check of the session refused it as UNLOCATED or WRONG_LIGHT; else "".
        geometry: State of the session's check of pixel size and stage, after this field; "" where
            the service does not check.
        slide: State of the check that the slide is still the one of the beginning.
        camera: Whether a passport says what the camera does to the score: "verified" or "not
            verified"; "" in answers of releases without passports.
    """

    sequence: int
    verdict: Verdict
    measures: tuple[Measure, ...] = ()
    score: SlideScore | None = None
    revision: int = 0
    fields_held: int = 0
    coverage: float = 0.0
    cells_added: int = 0
    cells_improved: int = 0
    cells_held: int = 0
    timings_s: dict[str, float] = field(default_factory=dict)
    as_of: int | None = None
    light: str = ""
    explanation: str = ""
    geometry: str = ""
    slide: str = ""
    camera: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class InfluenceMap:
    """Influence of each cell on the score of one class.

    Attributes:
        class_name: The class.
        origin_x_um: Stage x of the top left corner of values[0, 0].
        origin_y_um: Stage y of the same.
        um_per_column: Width of a cell on the slide.
        um_per_row: Height of a cell on the slide.
        values: Logit with the cell minus without it, float32, shape (rows, columns); NaN where
            there is no instance.
        revision: Revision of the bag that it was computed from.
    """

    class_name: str
    origin_x_um: float
    origin_y_um: float
    um_per_column: float
    um_per_row: float
    values: Float32Array
    revision: int


@dataclass(frozen=True, slots=True, eq=False)
class CellLayer:
    """One number for each cell of the slide, or for each slot of fields.

    Attributes:
        name: "focus" or "coverage".
        origin_x_um: Stage x of the top left corner of values[0, 0].
        origin_y_um: Stage y of the same.
        um_per_column: Width of a cell on the slide.
        um_per_row: Height of a cell on the slide.
        values: float32, shape (rows, columns); NaN where there is no number.
    """

    name: str
    origin_x_um: float
    origin_y_um: float
    um_per_column: float
    um_per_row: float
    values: Float32Array
