"""Optimise the positions of key frames so that they disagree least with their registrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Position = tuple[float, float]
"""Top left corner of a field (x, y) on the session's lattice, camera pixels."""


@dataclass(frozen=True, slots=True)
class PoseEdge:
    """One registration of two key frames.

    Attributes:
        start: Sequence number of the fixed one.
        end: Sequence number of the one that was registered to it.
        dx: Column of the registered one's left edge in the fixed one, camera pixels.
        dy: Row of its top edge.
        weight: Weight of the registration, > 0.
    """

    start: int
    end: int
    dx: float
    dy: float
    weight: float


def optimise_poses(
    positions: Mapping[int, Position], edges: Sequence[PoseEdge]
) -> dict[int, Position]:
    """Return the positions with the least weighted sum of squared errors over all edges.

    The key frame of the smallest number, the origin, stays, and so does every key frame that no
    chain of edges joins to it.

    Args:
        positions: Sequence number -> assumed position.
        edges: Registrations between them.

    Source:
        A pose graph of translations only (Lu and Milios, Auton. Robots 4:333, 1997): the errors
        are linear, so one solution of the normal equations is exact. Their matrix is the graph's
        weighted Laplacian without the row and column of the origin.
    """
    origin = min(positions)
    joined = _joined(origin, edges)
    free = [key for key in positions if key in joined and key != origin]
    row = {key: number for number, key in enumerate(free)}
    # Each edge adds its weight to the diagonal of both ends, minus it between them, and its offset
    # to the right-hand side; a fixed neighbour moves to the right-hand side.
    matrix, right = np.zeros((len(free), len(free))), np.zeros((len(free), 2))
    for edge in edges:
        if edge.start not in joined:
            continue
        offset = np.array([edge.dx, edge.dy])
        for here, there, sign in ((edge.start, edge.end, -1.0), (edge.end, edge.start, 1.0)):
            if here not in row:
                continue
            matrix[row[here], row[here]] += edge.weight
            right[row[here]] += sign * edge.weight * offset
            if there in row:
                matrix[row[here], row[there]] -= edge.weight
            else:
                right[row[here]] += edge.weight * np.array(positions[there])
    optimised = dict(positions)
    if free:
        solved = np.linalg.solve(matrix, right)
        optimised.update(
            {key: (float(x), float(y)) for key, (x, y) in zip(free, solved, strict=True)}
        )
    return optimised


def _joined(origin: int, edges: Sequence[PoseEdge]) -> set[int]:
    """Return the key frames that a chain of edges joins to the origin."""
    neighbours: dict[int, list[int]] = {}
    for edge in edges:
        neighbours.setdefault(edge.start, []).append(edge.end)
        neighbours.setdefault(edge.end, []).append(edge.start)
    joined, waiting = {origin}, [origin]
    while waiting:
        for other in neighbours.get(waiting.pop(), ()):
            if other not in joined:
                joined.add(other)
                waiting.append(other)
    return joined
