"""Gather the fields that contradict a stage, and find the one cause that explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_mil.session.geometry.causes import Cause, cause_of, late_cause, unexplained
from edge_mil.session.geometry.continuity import moved_slide, other_objective
from edge_mil.session.geometry.evidence import Evidence
from edge_mil.session.geometry.stage_fit import Move

MIN_WRONG = 2
"""Fields that must contradict the stage alike: a single registration can be wrong."""

MIN_UNEXPLAINED = 3
"""The same where no one cause explains them, or where nothing fits at all."""

SAME_RATIO_FIELDS = 2
"""Fields in a row that must fit at the same other magnification."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The evidence of one field, with what is derived of the fields that it was set against.

    Attributes:
        index: Number of the field in the order of arrival, from 0.
        before: Sequence of the field that arrived before it; 0 for the first.
        evidence: As it is stored.
        moves: Pairs that the stage does not contradict.
        wrong: Pairs that it contradicts.
        agrees: Indices of the earlier fields of `moves`.
        differs: Indices of earlier fields that it should share a place with, and does not.
    """

    index: int
    before: int
    evidence: Evidence
    moves: tuple[Move, ...]
    wrong: tuple[Move, ...]
    agrees: tuple[int, ...]
    differs: tuple[int, ...]


def objective_cause(recent: Sequence[Entry]) -> tuple[Cause, int] | None:
    """Name another objective, where the newest fields fit at the same other magnification."""
    newest = recent[-SAME_RATIO_FIELDS:]
    ratios = {entry.evidence.scale_ratio for entry in newest}
    if len(newest) < SAME_RATIO_FIELDS or len(ratios) > 1 or 1.0 in ratios:
        return None
    first = newest[0]
    return other_objective(ratios.pop(), first.evidence.sequence), first.index


def explained_cause(recent: Sequence[Entry], mpp: float) -> Cause | None:
    """Name the one cause that explains the registrations that contradict the stage."""
    entries = [entry for entry in recent if entry.wrong]
    if len(entries) < MIN_WRONG:
        return None
    since = [entry for entry in recent if entry.index >= entries[0].index]
    wrong = [move for entry in entries for move in entry.wrong]
    right = [move for entry in since for move in entry.moves]
    cause = cause_of([*wrong, *right], mpp)
    if cause is None:
        steps = [m for e in since for m in (*e.wrong, *e.moves) if m.earlier == e.before]
        cause = late_cause(steps)
    if cause is None and len(entries) >= MIN_UNEXPLAINED:
        # One registration may be wrong.
        for left_out in wrong:
            rest = [move for move in wrong if move is not left_out]
            cause = cause or cause_of([*rest, *right], mpp)
    return cause


def unexplained_cause(recent: Sequence[Entry]) -> Cause | None:
    """Name a stage that more fields contradict than agree with, each in another manner."""
    entries = [entry for entry in recent if entry.wrong]
    if len(entries) < MIN_UNEXPLAINED:
        return None
    agreeing = sum(bool(e.agrees) for e in recent if e.index >= entries[0].index)
    wrong = [move for entry in entries for move in entry.wrong]
    return unexplained(wrong) if len(entries) > agreeing else None


def pushed_cause(recent: Sequence[Entry]) -> tuple[Cause, int] | None:
    """Name a slide that was pushed; with the index of the first field that shows it."""
    entries = [entry for entry in recent if entry.wrong and not entry.agrees]
    if len(entries) < MIN_UNEXPLAINED:
        return None
    # Only against fields of before: those since then are displaced alike.
    since = {entry.evidence.sequence for entry in entries}
    moves = [move for entry in entries for move in entry.wrong if move.earlier not in since]
    if len({move.later for move in moves}) < MIN_UNEXPLAINED:
        return None
    cause = moved_slide(moves)
    return None if cause is None else (cause, entries[0].index)
