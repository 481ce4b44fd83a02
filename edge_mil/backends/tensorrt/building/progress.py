"""The share of a build that is done, from TensorRT's nested phases of steps; it only grows."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_SHARE = 0.99
"""Reported at most until the plan is there."""


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: float = 0.0
    children: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        inside = max(self.children.values(), default=0.0)
        return min(1.0, (self.done + min(inside, 1.0)) / max(1, self.steps))


class BuildProgress:
    """Follows what TensorRT's progress monitor reports: phases inside of steps of phases."""

    def __init__(self) -> None:
        self.share = 0.0
        self._open: dict[str, _Phase] = {}
        self._first = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase began, inside of a step of its parent."""
        self._first = self._first or name
        self._open[name] = _Phase(parent, steps)

    def step(self, name: str, number: int) -> float:
        """Note that a step is done; return the share of the whole build."""
        phase = self._open.get(name)
        if phase is not None:
            self._advance(name, max(phase.done, number + 1.0))
        return self.share

    def finish(self, name: str) -> float:
        """Note that a phase ended; return the share of the whole build."""
        phase = self._open.get(name)
        if phase is not None:
            self._advance(name, float(phase.steps))
            del self._open[name]
        return self.share

    def _advance(self, name: str, done: float) -> None:
        """Set the steps that a phase has done, and carry its share up to the first phase."""
        phase = self._open[name]
        phase.done = done
        phase.children.clear()
        while phase.parent is not None and phase.parent in self._open:
            parent = self._open[phase.parent]
            parent.children[name] = max(parent.children.get(name, 0.0), phase.share)
            name, phase = phase.parent, parent
        if name == self._first:
            self.share = max(self.share, min(MAX_SHARE, phase.share))
