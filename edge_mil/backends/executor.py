"""What one thread drives to run batches on an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_mil.protocols import Arrays, InputTypes
from edge_mil.types import Float32Array


class Executor(Protocol):
    """Runs batches on a device; one thread makes it, uses it and closes it.

    Attributes:
        inputs: As `Network.inputs`.
        max_batch: Rows of one batch, at most.
        slots: Batches that may be under way at once.
    """

    inputs: InputTypes
    max_batch: int
    slots: int

    def start(self, slot: int, parts: Sequence[Arrays]) -> None:
        """Start one batch, the rows of all parts one after the other; need not wait for it.

        Raises:
            BackendLostError: The device does not answer.
        """

    def finish(self, slot: int) -> dict[str, Float32Array]:
        """Wait for a batch and return its outputs, which are the caller's own copies.

        Raises:
            BackendLostError: The device does not answer.
        """

    def close(self) -> None:
        """Free the device's memory."""
