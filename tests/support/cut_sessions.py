"""What a session is after a cut of the power, compared with the one that was never cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_mil.errors import EdgeMilError
from edge_mil.pipeline import Model
from edge_mil.session import SessionFolder
from edge_mil.session.answers import read_answer
from edge_mil.store import examine
from edge_mil.types import SlideScore


@dataclass
class CutCheck:
    """Checks a state directory after a cut.

    Attributes:
        model: The model of the session.
        answers: Sequence -> the answer, as the run that was not cut has stored it.
        scores: Number of fields -> score after them.
    """

    model: Model
    answers: dict[int, bytes]
    scores: dict[int, SlideScore | None]

    @staticmethod
    def of(state: Path, model: Model) -> CutCheck:
        """Read what a run that was not cut has stored."""
        folder = SessionFolder(state)
        rows = folder.reader(folder.ids()[0]).fields()
        answers = {row.sequence: row.answer for row in rows}
        scores = {s: read_answer(answer).score for s, answer in answers.items()}
        return CutCheck(model, answers, {0: None, **scores})

    def __call__(self, state: Path, acknowledged: set[int]) -> str:
        """Return what became of it; WRONG where an acknowledged answer is lost or another one."""
        folder = SessionFolder(state)
        ids = folder.ids()
        if not ids:
            return "no session yet" if not acknowledged else "WRONG: the session is lost"
        try:
            whole = examine(folder.file(ids[0])).is_whole
            session = folder.open(ids[0], lambda _: self.model)
        except EdgeMilError as error:
            return f"WRONG: {error}"
        try:
            fields = folder.reader(ids[0]).fields()
            stored = {row.sequence: row.answer for row in fields}
            lost = acknowledged - stored.keys() - {0}
            if not whole or lost or list(stored) != list(range(1, len(stored) + 1)):
                return f"WRONG: whole {whole}, lost {sorted(lost)}, stored {sorted(stored)}"
            if any(answer != self.answers[s] for s, answer in stored.items()):
                return "WRONG: another answer"
            if session.score() != self.scores[len(stored)]:
                return "WRONG: another score"
        finally:
            session.release()
        kept = len(stored) - len(acknowledged - {0})
        return "all acknowledged fields" if kept == 0 else "these, and one that was on its way"
