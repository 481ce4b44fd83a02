"""The interfaces of the parts that can be exchanged: Network, Backend, Camera, Aggregator."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Frame, InstanceBatch, Region, SlideScore, UInt8Array

State = TypeVar("State")

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
"""Name of an input or output -> its array; the first axis is the batch."""

InputTypes: TypeAlias = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Name of each input -> (name of its numpy dtype, shape); None is an axis of any length."""

Progress: TypeAlias = Callable[[float], None]
"""Is called with the share of the work that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An exported network that is not loaded yet.

    Attributes:
        data: The ONNX file's bytes, already verified against the bundle's manifest.
        label: Its name in messages, as "extractor.onnx of demo".
    """

    data: bytes
    label: str


class Network(Protocol):
    """A loaded graph; any thread may run it."""

    @property
    def inputs(self) -> InputTypes:
        """What `run` takes."""

    def run(self, arrays: Arrays) -> dict[str, Float32Array]:
        """Run the network once.

        Args:
            arrays: One array for each of `inputs`, contiguous or not, of any batch size from 1.

        Returns:
            Outputs by name: copies that belong to the caller.

        Raises:
            FrameError: An input's name, dtype or shape does not fit.
            BackendLostError: The device failed, or the network was closed.
        """

    def close(self) -> None:
        """Free what the network holds; a second call does nothing."""


class Backend(ABC):
    """Loads verified ONNX graphs; one class for each library, one instance for each device."""

    name: str
    """As users name it: one of `edge_mil.backends.BACKENDS`."""

    @property
    def unavailable(self) -> str:
        """Why no network can run on this machine, as a clause; "" where networks can run."""
        return ""

    @abstractmethod
    def open(
        self,
        graph: Graph,
        precision: str = "fp32",
        *,
        progress: Progress = lambda share: None,
        cancel: threading.Event | None = None,
    ) -> Network:
        """Load a graph; a backend that compiles for the device does that first, or finds it done.

        Args:
            graph: What to load.
            precision: What the graph computes in: fp32, fp16 or int8.
            progress: Is told the share that is done; 1 at the end.
            cancel: Ends the loading when another thread sets it.

        Raises:
            BundleError: The backend cannot run the graph; the message says why.
            EngineError: The graph cannot be compiled or run on this device, or `cancel` is set.
            BackendLostError: The device does not answer.
            DependencyError: A package is not installed.
        """

    def reject(self, graph: Graph, precision: str, reason: str) -> None:  # noqa: B027 # optional
        """Remember that a loaded graph failed its verification, so that `open` refuses it.

        A backend that keeps nothing between two starts has nothing to do here.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say what runs where, as "ONNX Runtime 1.23 on the CPU, threads: 2"."""


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

    def read_whole(self, long_side_px: int) -> tuple[UInt8Array, float]:
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

    Three kinds (`docs/design/aggregators.md`, "Three kinds"). Mergeable: a state has a fixed size.
    Banked: it keeps a small row for each instance. Whole bag: it keeps the bag, and a score is a
    new run of the head over it.

    For all states a, b and c: ``merge(a, initial_state()) == a``, ``merge(a, b) == merge(b, a)``
    and ``merge(merge(a, b), c) == merge(a, merge(b, c))``, to float64 rounding. So fields may come
    in any order, and parts of a slide may be pooled apart and joined. States are values: no
    method changes one. The laws do not forgive duplicates: an instance is folded once.
    `tests/contracts/test_aggregator.py` holds every implementation to this.
    """

    incremental: str = "mergeable"
    """mergeable, banked or whole-bag; a whole-bag head is scored in the background."""

    needs_instance_order: bool = False
    """Whether batches must bring the canonical order of their instances."""

    @abstractmethod
    def initial_state(self) -> State:
        """Return the state of the empty bag."""

    @abstractmethod
    def update(self, state: State, batch: InstanceBatch) -> State:
        """Return the state after also seeing `batch`; `state` stays as it was.

        Raises:
            InvalidInstancesError: The batch is not of this head: other widths, or no order.
        """

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """Return the state of the two bags taken together."""

    @abstractmethod
    def instances(self, state: State) -> int:
        """Return how many instances the bag holds."""

    @abstractmethod
    def score(self, state: State) -> SlideScore:
        """Return the slide-level score of the bag.

        Raises:
            EmptyBagError: The bag is empty, or smaller than the head needs.
        """

    @abstractmethod
    def scores(self, states: list[State]) -> list[SlideScore | None]:
        """Return the score of each state, None where `score` would raise EmptyBagError."""

    @abstractmethod
    def attention(self, state: State, batch: InstanceBatch) -> Float32Array | None:
        """Return the share of the bag of each instance of a batch that is in it, float32 (n, k).

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
