"""One field in place of an earlier one: both in one durable step, or neither."""

from __future__ import annotations

import dataclasses
import json

from edge_mil.errors import NotThereYetError, SequenceError
from edge_mil.pipeline import Model
from edge_mil.session.instances.base import Removal
from edge_mil.session.instances.factory import open_instances
from edge_mil.session.restore import SessionState
from edge_mil.store import Change, SessionFile


class Replacement:
    """An earlier field that leaves the bag when the one that is being processed comes.

    It leaves the instances at once, so that the new field is planned without it; `undo` brings it
    back where the new field is refused, or fails.

    Attributes:
        sequence: The earlier field.
        removal: What leaves with it.
    """

    def __init__(
        self, model: Model, state: SessionState, store: SessionFile, sequence: int
    ) -> None:
        """Take the earlier field out of the instances.

        Raises:
            SequenceError: There is no such field.
            NotThereYetError: Fields of this session are found by their images, and one that leaves
                may be what others were found by.
            StoreError: What was queued before could not be written.
        """
        if sequence not in state.answers:
            raise SequenceError(
                f"The session has no field {sequence} to replace; list its fields first.",
                reason="FIELD_NOT_FOUND",
                sequence=sequence,
            )
        if not (state.settings.stage or state.settings.independent):
            raise NotThereYetError(
                "Replacing a field needs stage positions: remove the old one (RemoveField), then "
                "send the new one."
            )
        self._model, self._state, self._store = model, state, store
        self.sequence = sequence
        store.flush()
        removed_before = sequence in state.removed
        self.removal = Removal() if removed_before else state.instances.remove(sequence)

    def undo(self) -> None:
        """Bring the earlier field back, from the records."""
        state = self._state
        _, instances = open_instances(self._model, state.settings, state.frame_size)
        instances.restore(self._store, state.removed)
        state.instances = instances
        state.processor.use(instances)

    def commit(self) -> None:
        """Note that the earlier field has left."""
        self._state.removed.add(self.sequence)

    def added_to(self, change: Change) -> Change:
        """Return the change of the new field with what the earlier one takes along."""
        body = {"sequence": self.sequence, "by": change.field and change.field.sequence}
        return dataclasses.replace(
            change,
            kinds={**self.removal.kinds, **change.kinds},
            dropped_keys=self.removal.dropped,
            removed=self.sequence,
            event=change.event or ("replace", json.dumps(body)),
        )
