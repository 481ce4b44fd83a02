"""Positions that are taken as declared: by the stage, or by the name of a location."""

from __future__ import annotations

from edge_mil.errors import PositionError
from edge_mil.session.instances.base import Localizer, Placement
from edge_mil.types import Frame


class DeclaredLocalizer(Localizer[Placement]):
    """Takes the position of a field as it was sent; for bundles whose instance is a whole field."""

    def __init__(self, *, independent: bool) -> None:
        """Start.

        Args:
            independent: Fields have the name of a location in place of a position.
        """
        self._independent = independent

    def check(self, frame: Frame) -> None:
        if self._independent and not frame.location_id:
            raise PositionError(
                "The session is for independent fields, and the field has no place; give each "
                "field a place, a name that is the same when the same place is seen again."
            )
        if not self._independent and frame.location_id:
            raise PositionError(
                f"The field has the place {frame.location_id!r} and this session's fields have "
                "stage positions; open a session for independent fields to send places."
            )
        if not self._independent and frame.x_um is None:
            raise PositionError(
                "The field has no stage position; send its position, or open the session for "
                "independent fields and give each a place (edge-mil stream --independent)."
            )

    def locate(self, sequence: int, frame: Frame) -> Placement:
        """Return the declared position."""
        return Placement(frame.x_um, frame.y_um)
