"""What runs the extractor now, and what runs it when that is lost: changed between two fields."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from edge_mil.errors import BackendLostError
from edge_mil.protocols import Network
from edge_mil.types import Float32Array, UInt8Array

LOG = logging.getLogger("edge_mil.backends")

CPU = "cpu"
MAX_BATCH = 32
"""Tiles of one run: ONNX Runtime is as fast at 8 as at 32 (`runtime.md`, section 4)."""


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """One way to run the extractor.

    Attributes:
        network: Tiles to features.
        precision: fp32, fp16 or int8.
        backend: What runs it where, for people.
        on: As users name the backend: cpu, openvino, cuda, ort-tensorrt or tensorrt.
    """

    network: Network
    precision: str
    backend: str
    on: str = CPU

    @property
    def name(self) -> str:
        """For people and for the session's record: "int8, ONNX Runtime 1.23 on the CPU ..."."""
        return f"{self.precision}, {self.backend}"


class _Held:
    """A runner, how many fields it works on now, and whether it is to go when it is done."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.users, self.leaving = runner, 0, False


class Extractor:
    """The extractor of one model: a runner at work, and the first one behind it.

    A field is extracted by one runner alone. A switch takes effect with the next field; a runner
    that fails costs none, since the same field is extracted by the one behind. From any thread.
    """

    def __init__(self, first: Runner) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._stack = [_Held(first)]

    @property
    def current(self) -> Runner:
        """What runs the next field."""
        return self._stack[-1].runner

    def features(self, tiles: UInt8Array) -> tuple[Float32Array, Runner]:
        """Return the features (n, d) of tiles (n, h, w, 3), n > 0, and what made all of them.

        Raises:
            BackendLostError: The last runner is lost too.
        """
        while True:
            try:
                with self._using() as runner, self._turn_of(runner):
                    return _run(runner.network, tiles), runner
            except BackendLostError as error:
                if not self._lose(runner, error):
                    raise

    def switch(self, runner: Runner) -> None:
        """Run fields that start from now on with another runner; the one before is closed.

        The first runner stays, to take over when this one is lost. To go back to it, name it.
        """
        with self._lock:
            first = self._stack[0]
            gone = self._stack[1:]
            self._stack = [first] if runner is first.runner else [first, _Held(runner)]
        self._leave(gone)

    @property
    def first(self) -> Runner:
        """The runner that stays."""
        return self._stack[0].runner

    def close(self) -> None:
        """Close every runner."""
        for held in reversed(self._stack):
            held.runner.network.close()

    @contextmanager
    def _using(self) -> Iterator[Runner]:
        with self._lock:
            held = self._stack[-1]
            held.users += 1
        try:
            yield held.runner
        finally:
            with self._lock:
                held.users -= 1
                last = held.leaving and held.users == 0
            if last:
                held.runner.network.close()

    def _turn_of(self, runner: Runner) -> AbstractContextManager[object]:
        """Return what to hold while a runner works: on a CPU one field at a time is fastest."""
        return self._turn if runner.on == CPU else nullcontext()

    def _lose(self, runner: Runner, error: BackendLostError) -> bool:
        """Go back to the first runner; False when there is none behind the lost one."""
        with self._lock:
            lost = [held for held in self._stack[1:] if held.runner is runner]
            if not lost:
                # Another field found it out first, or the first runner itself is lost.
                return self._stack[-1].runner is not runner
            self._stack = self._stack[:1]
        LOG.error("%s; fields go on with %s", str(error).rstrip("."), self.current.name)
        self._leave(lost)
        return True

    def _leave(self, gone: list[_Held]) -> None:
        for held in gone:
            with self._lock:
                held.leaving = True
                idle = held.users == 0
            if idle:
                held.runner.network.close()


def _run(network: Network, tiles: UInt8Array) -> Float32Array:
    parts = [
        network.run({"tiles": tiles[at : at + MAX_BATCH]})["features"]
        for at in range(0, len(tiles), MAX_BATCH)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
