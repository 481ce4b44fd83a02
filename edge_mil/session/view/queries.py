"""What a session answers: status, score, fields, influence, mosaic and layers."""

from __future__ import annotations

import dataclasses

from edge_mil.errors import SequenceError
from edge_mil.pipeline import Model
from edge_mil.renamed import renamed_attribute
from edge_mil.session.answer_log import StoredAnswer
from edge_mil.session.restore import SessionState
from edge_mil.session.settings import SessionSettings
from edge_mil.session.status import SessionStatus, StatusBoard
from edge_mil.session.view.influence import InfluenceAnalysis
from edge_mil.session.view.layers import grid_layer
from edge_mil.session.view.mosaic_view import FINEST_UM, LARGEST_PX, MosaicView
from edge_mil.session.view.records import FieldRecord, SlideMosaic
from edge_mil.store import SessionFile
from edge_mil.types import CellLayer, InfluenceMap, SlideScore


class SessionQueries:
    """Reads a session and changes nothing; from any thread.

    Attributes:
        model: The networks and the pooling.
        settings: What the session was opened with.
    """

    model: Model
    settings: SessionSettings
    _store: SessionFile
    _state: SessionState
    _mosaic: MosaicView
    _board: StatusBoard

    @property
    def precisions(self) -> str:
        """The precisions that extracted its fields: "fp32", or "fp32,int8" after a change."""
        return self._state.runners.precisions

    def status(self) -> SessionStatus:
        """Return what was read so far, with the newest score."""
        return self._with_durability(self._board.get())

    def score(self) -> SlideScore | None:
        """Return the score of the bag, None while there is none; waits for a whole-bag head."""
        return self._board.final().score

    def replay(self, sequence: int, payload_crc: int) -> StoredAnswer | None:
        """Return the earlier answer to a field that is sent again; None for a new number.

        Raises:
            SequenceError: The number was used for another payload.
        """
        return self._state.answers.replay(sequence, payload_crc)

    def has_field(self, sequence: int) -> bool:
        """Return whether a field of that number was answered."""
        return sequence in self._state.answers

    def fields(self) -> list[FieldRecord]:
        """Return every field in the order of sequence numbers."""
        suspect = self._state.localizer.is_suspect
        return [
            dataclasses.replace(record, suspect=suspect(record.sequence))
            for record in self._influence().fields()
        ]

    def top_fields(self, count: int, class_name: str = "") -> list[FieldRecord]:
        """Return the fields with the largest influence on the logit of a class, largest first."""
        return self._influence().top_fields(count, class_name)

    def influence_map(self, class_name: str = "") -> InfluenceMap:
        """Return each cell's influence on the logit of a class."""
        return self._influence().influence_map(class_name, self._board.get().revision)

    def mosaic(
        self, um_per_px: float = FINEST_UM, largest_px: int = LARGEST_PX
    ) -> SlideMosaic | None:
        """Return the slide as far as it was seen; None while no accepted field has a position.

        Args:
            um_per_px: Size of a pixel on the slide; doubled until the long side fits.
            largest_px: Long side at most.
        """
        self._store.flush()
        return self._mosaic.paint(um_per_px, largest_px)

    def focus_map(self) -> CellLayer:
        """Return the sharpness at which each held cell was seen, grey levels squared."""
        instances = self._state.instances
        return grid_layer("focus", instances.focus(), instances.extent)

    def coverage_map(self) -> CellLayer:
        """Return the share seen of each cell that was met or is expected, 0 to 1."""
        instances = self._state.instances
        return grid_layer("coverage", instances.shares(), instances.extent)

    def thumbnail(self, sequence: int) -> bytes:
        """Return a small JPEG of an accepted field.

        Raises:
            SequenceError: None is kept of that field.
        """
        jpeg = self._store.thumbnail(sequence)
        if jpeg is None:
            raise SequenceError(
                f"No picture is kept of field {sequence}; accepted fields have one.",
                sequence=sequence,
            )
        return jpeg

    standing = renamed_attribute("Session", "standing", "status")
    heat_map = renamed_attribute("Session", "heat_map", "influence_map")

    def _with_durability(self, status: SessionStatus) -> SessionStatus:
        contiguous, beyond = self._state.answers.durable()
        return dataclasses.replace(status, durable_sequence=contiguous, durable_beyond=beyond)

    def _influence(self) -> InfluenceAnalysis:
        self._store.flush()
        return InfluenceAnalysis(self.model, self._store, self._state.instances, self.settings.mpp)
