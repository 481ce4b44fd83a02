"""The base of every aggregator: a count, scores of bags that are large enough, a batch's check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol, TypeVar

from edge_mil.errors import EmptyBagError, InvalidInstancesError
from edge_mil.protocols import Aggregator
from edge_mil.types import InstanceBatch, SlideScore

NO_EXTRA: Mapping[str, int] = {}


class Counted(Protocol):
    """A state with the number of instances of its bag."""

    @property
    def count(self) -> int: ...


CountedState = TypeVar("CountedState", bound=Counted)


class CountedAggregator(Aggregator[CountedState]):
    """An aggregator that has no score below a number of instances.

    Attributes:
        smallest: Bags of fewer instances have no score yet.
    """

    smallest: int = 1

    @abstractmethod
    def score_all(self, states: list[CountedState]) -> list[SlideScore]:
        """Return the score of each state; there is one at least, and all are large enough."""

    def instances(self, state: CountedState) -> int:
        return state.count

    def score(self, state: CountedState) -> SlideScore:
        found = self.scores([state])[0]
        if found is None:
            raise EmptyBagError
        return found

    def scores(self, states: list[CountedState]) -> list[SlideScore | None]:
        enough = [state for state in states if state.count >= self.smallest]
        found = iter(self.score_all(enough) if enough else [])
        return [next(found) if state.count >= self.smallest else None for state in states]


def check_batch(
    batch: InstanceBatch,
    width: int,
    *,
    channels: int | None = None,
    ordered: bool = False,
    extra: Mapping[str, int] = NO_EXTRA,
) -> None:
    """Check that a batch is of this head.

    Args:
        batch: Some instances.
        width: Of an embedding.
        channels: Attention channels; None where the head reads no attention logits.
        ordered: Whether the head needs the instances' order.
        extra: Name of each further array that the head needs -> its width.

    Raises:
        InvalidInstancesError: A width differs, or something is missing.
    """
    got = batch.embeddings.shape[1]
    if got != width or (channels is not None and batch.attention_logits.shape[1] != channels):
        raise InvalidInstancesError(
            f"Expected embeddings of width {width}"
            f"{'' if channels is None else f' and {channels} attention channels'}, got {got} and "
            f"{batch.attention_logits.shape[1]}; the graphs are of another bundle."
        )
    if len(batch) == 0:
        return
    if ordered and batch.instance_order is None:
        raise InvalidInstancesError(
            "The instances come without their order, which this head needs; the graphs are of "
            "another bundle."
        )
    for name, wanted in extra.items():
        if name not in batch.extra or batch.extra[name].shape[1] != wanted:
            raise InvalidInstancesError(
                f"Expected {name} of width {wanted}; the graphs are of another bundle."
            )
