"""What a newcomer implements: Network, Camera, Aggregator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Frame, InstanceBatch, Region, SlideScore, UInt8Array

State = TypeVar("State")


class Network(Protocol):
    """An exported network that runs on this device."""

    @property
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Name of each input -> (numpy dtype name, shape); None is a dynamic axis."""

    def run(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Float32Array]:
        """Run once; inputs and outputs by name. Outputs are the caller's own copies.

        Raises:
            FrameError: An input's name, dtype or shape does not fit.
        """

    def close(self) -> None:
        """Give back what the network holds; further runs are errors."""


class Backend(ABC):
    """Turns a verified ONNX graph into a `Network`; one per library and device."""

    name: str
    """As the user names it: "cpu", "tensorrt"."""

    @abstractmethod
    def load(self, model: bytes, *, label: str) -> Network:
        """Load a serialised ONNX model.

        Args:
            model: The file's bytes, already verified against the bundle's manifest.
            label: What it is, for messages, as "extractor.onnx of demo".

        Raises:
            BundleError: This backend cannot run the model; the message says why.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words what runs where, as "ONNX Runtime 1.23 on the CPU, 2 threads"."""


class SlideImage(Protocol):
    """A whole-slide image; coordinates are pixels of its full resolution, level 0."""

    @property
    def mpp(self) -> float:
        """Pixel size of level 0, um/px."""

    @property
    def width_px(self) -> int:
        """Columns of level 0."""

    @property
    def height_px(self) -> int:
        """Rows of level 0."""

    def read(self, x: int, y: int, width_px: int, height_px: int) -> UInt8Array:
        """Return a part of level 0, RGB uint8 (height_px, width_px, 3).

        Raises:
            SourceError: That part is damaged.
        """

    def overview(self, long_side_px: int) -> tuple[UInt8Array, float]:
        """Return the whole slide, RGB uint8 (h, w, 3), and level-0 pixels per pixel of it."""


class Camera(ABC):
    """A source of frames: a microscope, or files that are played as one.

    `edge-mil stream` opens a camera with `edge_mil.cameras.open_camera`, declares its properties
    when it opens the session, sends every frame of `frames`, takes refused fields again as often as
    `retakes` says, and closes the camera. Only `mpp` and `frames` have no default.
    `tests/contracts/test_camera.py` says what holds for every camera.
    """

    @property
    @abstractmethod
    def mpp(self) -> float | None:
        """Pixel size on the slide, um/px; None where the camera does not know it."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the order of capture; called again, begin anew.

        Either all frames have a stage position, or all have a `location_id`, or none has either.

        Raises:
            SourceError: A frame cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Release the source; calling it twice does no harm."""

    @property
    def hand_moved(self) -> bool:
        """Whether frames have no position, so that the session locates them by content."""
        return False

    @property
    def stage_affine(self) -> tuple[float, float, float, float] | None:
        """Camera pixel to stage um, row-major 2 x 2; None: mpp times the identity."""
        return None

    @property
    def area(self) -> Region | None:
        """Area that is read, stage um, where frames reach beyond it; None: no limit."""
        return None

    @property
    def tissue(self) -> tuple[Region, ...]:
        """Outline of the tissue, stage um, where it is known; else empty."""
        return ()

    @property
    def slide(self) -> SlideImage | None:
        """The whole-slide image behind the frames, at the camera's pixel size; None without one."""
        return None

    @property
    def calibration_name(self) -> str:
        """Name under which a service keeps what `glass_frames` show of these optics.

        Empty where the light is even and the sensor without noise, so that nothing is calibrated.
        """
        return ""

    def glass_frames(self, count: int) -> Iterator[Frame]:
        """Yield frames of clean glass; only called with a `calibration_name`."""
        raise NotImplementedError

    @property
    def retakes(self) -> int:
        """How often refused fields are taken again; 0 where the camera cannot go back."""
        return 0

    def retake(self, frame: Frame) -> Frame:
        """Return a new frame of the place of an earlier one, whose pixels may be gone.

        Only called where `retakes` is not 0.
        """
        raise NotImplementedError


class Aggregator(ABC, Generic[State]):
    """Instances to a slide-level score: a commutative monoid of states.

    Three kinds (`design.md`, section 4). Mergeable: a state has a fixed size. Banked: it keeps a
    small row for each instance. Whole bag: it keeps the bag, and a score is a new run of the
    network over it.

    For all states a, b and c: ``merge(a, initial_state()) == a``, ``merge(a, b) == merge(b, a)``
    and ``merge(merge(a, b), c) == merge(a, merge(b, c))``, to float64 rounding. So fields may come
    in any order, and parts of a slide may be pooled apart and joined. States are values: no
    method changes one. The laws do not forgive duplicates: a place is folded once.
    """

    incremental: str = "mergeable"
    """mergeable, banked or whole-bag; a whole-bag head is scored in the background."""

    needs_instance_order: bool = False
    """Whether batches must say where their instances lie."""

    @abstractmethod
    def initial_state(self) -> State:
        """Return the state of the empty bag."""

    @abstractmethod
    def update(self, state: State, batch: InstanceBatch) -> State:
        """Return the state after also seeing `batch`.

        Raises:
            InvalidInstancesError: The batch's widths are not this aggregator's.
        """

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """Return the state of the two bags taken together."""

    @abstractmethod
    def instances(self, state: State) -> int:
        """Return how many instances the bag holds."""

    @abstractmethod
    def score(self, state: State) -> SlideScore:
        """Return the slide-level score of the instances seen so far.

        Raises:
            EmptyBagError: The bag is empty, or smaller than the head needs.
        """

    @abstractmethod
    def scores(self, states: list[State]) -> list[SlideScore | None]:
        """Return the score of each state, None for an empty one, in one run of the classifier."""

    @abstractmethod
    def attention(self, state: State, batch: InstanceBatch) -> Float32Array | None:
        """Return the share of the bag of each instance of a batch that is in it, (n, k).

        Over the whole bag each channel sums to 1. None where the model has no attention.
        """

    @abstractmethod
    def to_bytes(self, state: State) -> bytes:
        """Serialise a state; `from_bytes` gives it back to the bit."""

    @abstractmethod
    def from_bytes(self, data: bytes) -> State:
        """Read what `to_bytes` wrote.

        Raises:
            StoreError: The bytes are not a state of this aggregator.
        """
