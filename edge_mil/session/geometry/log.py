"""The evidence of a session in the order of arrival, and the state of both checks after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_mil.imaging.registration import PairOutcome
from edge_mil.imaging.registration.stage_check import DIFFERING_OVERLAP
from edge_mil.imaging.registration.stage_comparison import MAX_STAGE_ERROR_UM
from edge_mil.session.geometry.causes import NOTHING_FITS, Cause, small_cause_of
from edge_mil.session.geometry.continuity import Continuity, other_slide
from edge_mil.session.geometry.contradictions import (
    MIN_UNEXPLAINED,
    Entry,
    explained_cause,
    objective_cause,
    pushed_cause,
    unexplained_cause,
)
from edge_mil.session.geometry.evidence import Evidence, Vector
from edge_mil.session.geometry.stage_fit import Estimate, Move, StageFit, fit_stage
from edge_mil.types import CheckState, SessionCheck

MAX_MOVES = 48
"""Newest moves that the fit rests on: more add no accuracy that a session needs."""

RECENT = 12
"""Newest fields among which a contradiction must gather, so that a slip of a stage is forgotten."""

MIN_PROOF = 2
"""Fields that must agree along each axis before the stage counts as proven."""

MAX_CREDIT, AGREEING_CREDIT, FIELDS_PER_CREDIT = 16, 2, 8
"""Searches over all shifts (12 ms each) that a session may take: MAX_CREDIT at the beginning, more
for each field that agrees and for every so many fields, so that a session whose fields never
overlap pays for them once."""

LEAST_STEP_UM = 1.0
"""Way of the stage from which it has a direction."""

MIN_DIFFERING_UNPROVEN = 5
"""Fields that must differ before the slide is doubted, where an axis of the stage is unproven."""

RELEASE_SAME, RELEASE_INSIST = "same-slide", "insist"


@dataclass(frozen=True, slots=True)
class _State:
    """What is known after some evidence; bounded, so that it is cheap to replace."""

    fields: int = 0
    recent: tuple[Entry, ...] = ()
    moves: tuple[Move, ...] = ()
    agreeing: int = 0
    axes: tuple[int, int] = (0, 0)
    differing: int = 0
    credit: int = MAX_CREDIT
    continuity: Continuity = field(default_factory=Continuity)
    insisted: bool = False
    suspects_from: int = 0
    geometry: SessionCheck = field(default_factory=SessionCheck)
    slide: SessionCheck = field(default_factory=SessionCheck)


class GeometryLog:
    """Folds evidence; `after` says what would follow from a field, `add` keeps it."""

    def __init__(self, mpp: float, *, insist: bool = False) -> None:
        """Begin with no evidence.

        Args:
            mpp: The declared pixel size, um/px.
            insist: Never hold the session; the states still say what contradicts.
        """
        self._mpp = mpp
        self._at: dict[int, tuple[int, Vector, Vector]] = {}
        self._last: tuple[Vector, Vector] | None = None
        self._newest = 0
        self._state = _State(insisted=insist)
        self._state = dataclasses.replace(self._state, geometry=self._proof(self._state))

    @property
    def geometry(self) -> SessionCheck:
        """Whether pixel size, axes and units are those that were declared."""
        return self._state.geometry

    @property
    def slide(self) -> SessionCheck:
        """Whether the slide is still the one of the beginning."""
        return self._state.slide

    @property
    def hold(self) -> SessionCheck | None:
        """The check that holds the session; None where none does."""
        return next((check for check in (self.geometry, self.slide) if check.held), None)

    @property
    def proven(self) -> bool:
        """Whether fields have agreed, so that one that does not is no fault of the settings."""
        return self._state.agreeing >= MIN_PROOF

    @property
    def searches(self) -> int:
        """Searches over all shifts that the next field may take."""
        return self._state.credit

    def is_suspect(self, sequence: int) -> bool:
        """Return whether a field was taken before a contradiction was found that concerns it."""
        since = [check.since for check in (self.geometry, self.slide) if check.since]
        if not since or sequence not in self._at:
            return False
        index = self._at[sequence][0]
        return self._state.suspects_from <= index < self._at[min(since)][0]

    def moves_of(self, evidence: Evidence) -> tuple[Move, ...]:
        """Return the registered pairs of a field, as moves by the stage and by the images."""
        entry = self._entry(evidence)
        return (*entry.wrong, *entry.moves)

    def fit(self) -> StageFit:
        """Return what the moves that the stage does not contradict say of it."""
        return fit_stage(self._state.moves)

    def after(self, evidence: Evidence) -> tuple[SessionCheck, SessionCheck]:
        """Return the checks of geometry and of the slide as one more field would leave them."""
        state = self._step(self._entry(evidence))
        return state.geometry, state.slide

    def add(self, evidence: Evidence) -> None:
        """Keep the evidence of one field, or of a release."""
        if evidence.release:
            self._state = self._released(evidence.release)
            return
        entry = self._entry(evidence)
        self._state = self._step(entry)
        direction = self._direction(evidence.at_um)
        self._at[evidence.sequence] = (entry.index, evidence.at_um, direction)
        self._last = evidence.at_um, direction
        self._newest = evidence.sequence

    def restore(self, rows: Iterable[str]) -> None:
        """Fold stored evidence, in the order in which it was added.

        Raises:
            StoreError: A row cannot be read.
        """
        for row in rows:
            self.add(Evidence.from_json(row))

    def _direction(self, at: Vector) -> Vector:
        """Return in which direction the stage arrives on each axis: -1, 0 or 1."""
        if self._last is None:
            return 0.0, 0.0
        before, last = self._last
        found = [
            last[axis]
            if abs(at[axis] - before[axis]) < LEAST_STEP_UM
            else (1.0 if at[axis] > before[axis] else -1.0)
            for axis in (0, 1)
        ]
        return found[0], found[1]

    def _entry(self, evidence: Evidence) -> Entry:
        moves: list[Move] = []
        wrong: list[Move] = []
        agrees: list[int] = []
        differs: list[int] = []
        direction = self._direction(evidence.at_um)
        for pair in evidence.pairs:
            if pair.earlier not in self._at:
                continue
            index, at, before = self._at[pair.earlier]
            if pair.outcome is PairOutcome.DIFFERS:
                differs.append(index)
            if pair.image_um is None:
                continue
            (x, y), (u, v) = evidence.at_um, at
            # Without a direction before, there was no change of it.
            turn = [(d - b) / 2 if b else 0.0 for d, b in zip(direction, before, strict=True)]
            move = Move(
                pair.earlier, evidence.sequence, (x - u, y - v), pair.image_um, (turn[0], turn[1])
            )
            if move.error_um > MAX_STAGE_ERROR_UM:
                wrong.append(move)
            else:
                moves.append(move)
                agrees.append(index)
        return Entry(
            self._state.fields,
            self._newest,
            evidence,
            tuple(moves),
            tuple(wrong),
            tuple(agrees),
            tuple(differs),
        )

    def _step(self, entry: Entry) -> _State:
        """Return the state after one more field."""
        state, evidence = self._state, entry.evidence
        says = bool(entry.moves or entry.wrong or entry.differs or evidence.scale_ratio != 1.0)
        agrees = bool(entry.agrees)
        axes = tuple(
            count + any(abs(move.image_um[axis]) > MAX_STAGE_ERROR_UM for move in entry.moves)
            for axis, count in enumerate(state.axes)
        )
        overlaps = [p.overlap for p in evidence.pairs if p.outcome is PairOutcome.DIFFERS]
        alone = not agrees and bool(overlaps) and max(overlaps) >= DIFFERING_OVERLAP
        fields = state.fields + 1
        credit = state.credit - evidence.searches + AGREEING_CREDIT * agrees
        credit += fields % FIELDS_PER_CREDIT == 0
        state = dataclasses.replace(
            state,
            fields=fields,
            recent=((*state.recent, entry) if says else state.recent)[-RECENT:],
            moves=(*state.moves, *entry.moves)[-MAX_MOVES:],
            agreeing=state.agreeing + agrees,
            axes=(axes[0], axes[1]),
            differing=state.differing + alone,
            credit=max(0, min(MAX_CREDIT, credit)),
            continuity=state.continuity.after(entry.index, entry.agrees, entry.differs),
        )
        if not says:
            return state
        return self._checked(state, evidence.sequence)

    def _checked(self, state: _State, sequence: int) -> _State:
        """Return the state with what follows for the stage and for the slide."""
        if state.geometry.cause or state.slide.cause:
            return state
        fit = fit_stage(state.moves)
        settled = state.geometry.state is CheckState.AGREES
        # 1. Another objective, or a slide that was pushed: only against fields that had agreed.
        found = objective_cause(state.recent)
        if found is None and settled:
            found = pushed_cause(state.recent)
        # 2. A stage that one cause explains. 3. Another slide. 4. A stage that nothing explains.
        wrong = None if found is not None else explained_cause(state.recent, self._mpp)
        if found is None and wrong is None:
            found = self._exchanged_cause(state, settled=settled)
        if found is None and wrong is None:
            wrong = unexplained_cause(state.recent)
        if found is None and wrong is None:
            if state.differing >= MIN_UNEXPLAINED and not state.agreeing:
                wrong = Cause("positions", NOTHING_FITS)
            else:
                wrong = small_cause_of(fit, self._mpp)
        geometry, slide = self._proof(state), _same_slide(state)
        if found is not None:
            cause, first = found
            slide = self._contradicted(cause, sequence, state)
            state = dataclasses.replace(state, suspects_from=first)
        elif wrong is not None:
            geometry = self._contradicted(wrong, sequence, state)
        return dataclasses.replace(state, geometry=_with_numbers(geometry, fit), slide=slide)

    def _exchanged_cause(self, state: _State, *, settled: bool) -> tuple[Cause, int] | None:
        """Name another slide; with the index of the first field that shows it."""
        first = state.continuity.boundary
        # An axis that is not proven may be flipped, and then nothing fits along it either.
        doubtful = not settled and state.continuity.differing < MIN_DIFFERING_UNPROVEN
        if first is None or not state.continuity.broken or doubtful:
            return None
        sequence = next((s for s, (i, _, _) in self._at.items() if i == first), 0)
        return other_slide(state.continuity.differing, sequence), first

    def _contradicted(self, cause: Cause, sequence: int, state: _State) -> SessionCheck:
        return SessionCheck(
            CheckState.CONTRADICTED,
            cause.sentence,
            cause.name,
            held=not state.insisted,
            since=sequence,
            pairs=len(state.moves),
        )

    def _proof(self, state: _State) -> SessionCheck:
        """Return the check of a stage that nothing contradicts."""
        missing = [name for name, count in zip("xy", state.axes, strict=True) if count < MIN_PROOF]
        if not missing:
            return SessionCheck(
                CheckState.AGREES, "Overlapping fields fit where the stage says, along x and y."
            )
        if len(missing) == 1:
            words = f"Fields overlap along {'y' if missing == ['x'] else 'x'} only so far"
        else:
            words = "No two fields overlap so far"
        return SessionCheck(
            CheckState.UNPROVEN,
            f"{words}, so pixel size and axes of the stage are unproven: let a few fields overlap "
            "by a third, along x and along y.",
        )

    def _released(self, how: str) -> _State:
        state = self._state
        if how == RELEASE_INSIST:
            return dataclasses.replace(
                state,
                insisted=True,
                geometry=dataclasses.replace(state.geometry, held=False),
                slide=dataclasses.replace(state.slide, held=False),
            )
        # The same slide again: it is compared anew, and held again where it differs again.
        return dataclasses.replace(
            state,
            recent=(),
            continuity=Continuity(agreeing=state.continuity.agreeing),
            slide=SessionCheck(CheckState.UNPROVEN, NO_REVISIT),
            suspects_from=0,
        )


NO_REVISIT = "No place was seen twice so far, so nothing shows that the slide is still the same."


def _same_slide(state: _State) -> SessionCheck:
    """Return the check of a slide that nothing contradicts."""
    agrees = state.agreeing >= MIN_PROOF and state.continuity.boundary is None
    return SessionCheck(
        CheckState.AGREES if agrees else CheckState.UNPROVEN,
        "Places that were seen again look alike." if agrees else NO_REVISIT,
        pairs=state.agreeing,
    )


def _with_numbers(check: SessionCheck, fit: StageFit) -> SessionCheck:
    """Return a check with the numbers of the fit."""
    found = [b for b in fit.backlash_um if b is not None]
    largest = max(found, key=lambda one: abs(one.value), default=None)
    return dataclasses.replace(
        check,
        pairs=fit.moves,
        scale=_numbers(fit.scale),
        rotation_deg=_numbers(fit.rotation_deg),
        backlash_um=_numbers(largest),
    )


def _numbers(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None else (estimate.value, estimate.error)
