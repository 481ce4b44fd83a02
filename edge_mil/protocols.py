"""What a newcomer implements: Network, Camera, Aggregator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edge_mil.types import Float32Array, Frame, InstanceBatch, Region, SlideScore

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


class Camera(Protocol):
    """A source of frames, on a stage or not."""

    @property
    def mpp(self) -> float | None:
        """Pixel size on the slide, um/px; None when the source does not know it."""

    @property
    def tissue(self) -> tuple[Region, ...]:
        """Outline of the tissue where it is known, else empty."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the order of capture."""

    def close(self) -> None:
        """Let the source go."""


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
