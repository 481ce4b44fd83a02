"""Positions from pair offsets: the ones that disagree least with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Position = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PoseEdge:
    """One registration of two key fields.

    Attributes:
        start: Sequence number of the one that stayed.
        end: Of the one that was placed on it.
        dx: Column of the placed one's left edge in the other, camera pixels.
        dy: Row of its top edge.
        weight: How much it counts, > 0.
    """

    start: int
    end: int
    dx: float
    dy: float
    weight: float


def settle(positions: Mapping[int, Position], links: Sequence[PoseEdge]) -> dict[int, Position]:
    """Return the positions with the least weighted sum of squares over all links.

    The key field of the smallest number, the origin, stays. What no chain of links joins to it
    stays too.

    Args:
        positions: Sequence number -> where its top left corner is thought to be, camera pixels.
        links: Offsets between them.
    """
    origin = min(positions)
    joined = _joined(origin, links)
    free = [key for key in positions if key in joined and key != origin]
    row = {key: number for number, key in enumerate(free)}
    matrix, right = np.zeros((len(free), len(free))), np.zeros((len(free), 2))
    for link in links:
        if link.start not in joined:
            continue
        offset = np.array([link.dx, link.dy])
        for here, there, sign in ((link.start, link.end, -1.0), (link.end, link.start, 1.0)):
            if here not in row:
                continue
            matrix[row[here], row[here]] += link.weight
            right[row[here]] += sign * link.weight * offset
            if there in row:
                matrix[row[here], row[there]] -= link.weight
            else:
                right[row[here]] += link.weight * np.array(positions[there])
    settled = dict(positions)
    if free:
        solved = np.linalg.solve(matrix, right)
        settled.update(
            {key: (float(x), float(y)) for key, (x, y) in zip(free, solved, strict=True)}
        )
    return settled


def _joined(origin: int, links: Sequence[PoseEdge]) -> set[int]:
    neighbours: dict[int, list[int]] = {}
    for link in links:
        neighbours.setdefault(link.start, []).append(link.end)
        neighbours.setdefault(link.end, []).append(link.start)
    joined, waiting = {origin}, [origin]
    while waiting:
        for other in neighbours.get(waiting.pop(), ()):
            if other not in joined:
                joined.add(other)
                waiting.append(other)
    return joined
