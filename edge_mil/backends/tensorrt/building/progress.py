"""How far a build is: nested phases of steps to one number that only grows."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 0.99
"""Until the plan is there."""


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
    """Follows what TensorRT's progress monitor tells: phases inside of steps of phases."""

    def __init__(self) -> None:
        self.share = 0.0
        self._open: dict[str, _Phase] = {}
        self._first = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase began, inside of a step of its parent."""
        self._first = self._first or name
        self._open[name] = _Phase(parent, steps)

    def step(self, name: str, number: int) -> float:
        """Note that a step is done; return the share of the whole."""
        phase = self._open.get(name)
        if phase is not None:
            phase.done = max(phase.done, number + 1.0)
            phase.children.clear()
            self._tell_parents(name)
        return self.share

    def finish(self, name: str) -> float:
        """Note that a phase ended; return the share of the whole."""
        phase = self._open.get(name)
        if phase is not None:
            phase.done = float(phase.steps)
            phase.children.clear()
            self._tell_parents(name)
            del self._open[name]
        return self.share

    def _tell_parents(self, name: str) -> None:
        phase = self._open[name]
        while phase.parent is not None and phase.parent in self._open:
            parent = self._open[phase.parent]
            parent.children[name] = max(parent.children.get(name, 0.0), phase.share)
            name, phase = phase.parent, parent
        if name == self._first:
            self.share = max(self.share, min(MOST, phase.share))
