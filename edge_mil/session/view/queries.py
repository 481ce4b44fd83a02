"""What a session shows of itself: its fields, why the score is what it is, pictures and layers."""

from __future__ import annotations

from edge_mil.errors import SequenceError
from edge_mil.pipeline import Model
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.settings import SessionSettings
from edge_mil.session.status import StatusBoard
from edge_mil.session.view.influence import InfluenceAnalysis
from edge_mil.session.view.layers import lay_out
from edge_mil.session.view.mosaic_view import FINEST_UM, MOST_PX, MosaicView
from edge_mil.session.view.records import FieldRecord, SlideMosaic
from edge_mil.store import SessionFile
from edge_mil.types import CellLayer, InfluenceMap


class SessionQueries:
    """Reads only, so any thread may ask while the session's own goes on.

    Attributes:
        model: The networks and the pooling.
        settings: What it was opened with.
    """

    model: Model
    settings: SessionSettings
    _store: SessionFile
    _survey: InstanceMap
    _painter: MosaicView
    _board: StatusBoard

    def fields(self) -> list[FieldRecord]:
        """Return every field in the order of sequence numbers; from any thread."""
        return self._evidence().fields()

    def top_fields(self, count: int, class_name: str = "") -> list[FieldRecord]:
        """Return the fields that moved the logit of a class most, largest influence first."""
        return self._evidence().top_fields(count, class_name)

    def heat_map(self, class_name: str = "") -> InfluenceMap:
        """Return each cell's influence on the logit of a class."""
        return self._evidence().heat_map(class_name, self._board.get().revision)

    def mosaic(self, um_per_px: float = FINEST_UM, most_px: int = MOST_PX) -> SlideMosaic | None:
        """Return the slide as far as it was seen; None while no accepted field has a position.

        Args:
            um_per_px: Size of its pixels; coarser where its long side would be above `most_px`.
            most_px: See there.
        """
        self._store.flush()
        return self._painter.paint(um_per_px, most_px)

    def focus_map(self) -> CellLayer:
        """Return how sharply each held cell was seen, grey levels squared; from any thread."""
        return lay_out("focus", self._survey.focus(), self._survey.extent)

    def coverage_map(self) -> CellLayer:
        """Return the share seen of each cell that was met or is expected; from any thread."""
        return lay_out("coverage", self._survey.shares(), self._survey.extent)

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

    def _evidence(self) -> InfluenceAnalysis:
        self._store.flush()
        survey = self._survey
        return InfluenceAnalysis(
            self.model, self._store, survey.extent, survey.order, self.settings.mpp
        )
