"""Damages that a disk does to a file, drawn at random."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path

from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.errors import StoreError
from edge_mil.pipeline import Model, load_model
from edge_mil.session import SessionFolder, SessionSettings
from edge_mil.store import examine, recover
from edge_mil.types import SlideScore

SECTOR = 512
PAGE = 4096


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in one of five ways; return which."""
    data = bytearray(path.read_bytes())
    kind = draw.choice(["bit", "byte", "sector of zeros", "sector of noise", "page moved", "cut"])
    at = draw.randrange(len(data))
    sector = at // SECTOR * SECTOR
    if kind == "bit":
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        data[at] = (data[at] + draw.randrange(1, 256)) % 256
    elif kind == "sector of zeros":
        data[sector : sector + SECTOR] = bytes(len(data[sector : sector + SECTOR]))
    elif kind == "sector of noise":
        data[sector : sector + SECTOR] = draw.randbytes(len(data[sector : sector + SECTOR]))
    elif kind == "page moved":
        other = draw.randrange(len(data) // PAGE) * PAGE
        page = at // PAGE * PAGE
        data[page : page + PAGE] = data[other : other + PAGE]
    else:
        del data[at:]
    path.write_bytes(data)
    return f"{kind} at {at}"


@dataclass(frozen=True)
class Stored:
    """A whole session, and what each part of it says."""

    folder: Path
    session_id: str
    model: Model
    states: dict[int, bytes]
    score: SlideScore | None

    def score_without(self, lost: tuple[int, ...]) -> SlideScore | None:
        """Return the score of the other fields, folded from the states that were stored."""
        aggregator = self.model.aggregator
        total = aggregator.initial_state()
        for sequence, data in sorted(self.states.items()):
            if sequence not in lost:
                total = aggregator.merge(total, aggregator.from_bytes(data))
        return aggregator.scores([total])[0]


def store_session(work: Path, fields: int = 12) -> Stored:
    """Write a session of a small bundle: cells, unfinished cells, one field removed."""
    slide = painted(700, 500)
    model = load_model(write_small_bundle(work / "bundle"), threads=1)
    folder = work / "state"
    session = SessionFolder(folder).create(model, SessionSettings(mpp=MPP, slide_label="a slide"))
    places = [(x, y) for y in (0, 150, 300) for x in (0, 140, 280, 420)]
    for x, y in places[:fields]:
        session.add(field(slide, x, y))
    session.remove(2, "by hand")
    score, session_id = session.score(), session.session_id
    session.release()
    states = dict(SessionFolder(folder).reader(session_id).states())
    return Stored(folder, session_id, model, states, score)


def outcome(stored: Stored, damaged: Path) -> str:
    """Return what became of a damaged state directory: same, told, told and recovered, or WRONG."""
    path = damaged / "sessions" / stored.session_id / "session.db"
    try:
        score = _score(stored, damaged)
    except StoreError:
        pass
    else:
        return "same score" if score == stored.score else "WRONG score in silence"
    try:
        recovery = recover(path)
    except StoreError:
        return "told; only a back-up helps"
    if _score(stored, damaged) != stored.score_without(recovery.lost_fields):
        return "WRONG score after the recovery"
    if not examine(path).is_whole:
        return "WRONG: damaged after the recovery"
    lost = sum(sequence in stored.states for sequence in recovery.lost_fields)
    return "told; every field kept" if not lost else "told; the other fields kept"


def _score(stored: Stored, folder: Path) -> SlideScore | None:
    """Open a session, ask it everything, and return its score."""
    session = SessionFolder(folder).open(stored.session_id, lambda _: stored.model)
    try:
        score = session.score()
        # Damage that opening does not meet is told by the call that meets it.
        for ask in (session.fields, session.influence_map, session.mosaic):
            with contextlib.suppress(StoreError):
                ask()
        return score
    finally:
        session.release()
