"""Every way in which a session finds positions and counts instances, each with fields to send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from painted_field import MPP, field, painted
from small_bundle import write_small_bundle
from textured_slide import textured_slide

from edge_mil.pipeline import Model, load_model
from edge_mil.session import SessionSettings
from edge_mil.types import Frame

PAINTED = painted()
CORNERS = [(0, 0), (150, 0), (300, 0), (300, 160), (150, 160), (0, 160)]
"""Top left corners of fields of 192 x 128 px, each overlapping the one before."""
TEXTURED = textured_slide(700, 500)
PATH = [(0, 0), (110, 10), (220, 20), (225, 120), (115, 130), (5, 120)]
"""Top left corners of fields of 256 x 192 px along the path of a hand."""


@dataclass(frozen=True)
class LiveCase:
    """A kind of session.

    Attributes:
        instances: Of the bundle: grid or field.
        settings: Of the session.
        frame: Returns field 0 to 5.
        wrong: A frame whose position this session cannot take.
    """

    instances: str
    settings: SessionSettings
    frame: Callable[[int], Frame]
    wrong: Frame

    def model(self, folder: Path) -> Model:
        """Return a small model of that kind."""
        return load_model(write_small_bundle(folder, instances=self.instances))


def _staged(number: int) -> Frame:
    return field(PAINTED, *CORNERS[number])


def _by_hand(number: int) -> Frame:
    x, y = PATH[number]
    return Frame(TEXTURED[y : y + 192, x : x + 256].copy())


def _named(number: int) -> Frame:
    return Frame(_staged(number).pixels, location_id=f"field {number}")


CASES = {
    "cells on a stage": LiveCase("grid", SessionSettings(MPP), _staged, _by_hand(0)),
    "cells without a stage": LiveCase(
        "grid", SessionSettings(MPP, stage=False), _by_hand, _staged(0)
    ),
    "fields on a stage": LiveCase("field", SessionSettings(MPP), _staged, _by_hand(0)),
    "independent fields": LiveCase(
        "field", SessionSettings(MPP, independent=True), _named, _by_hand(0)
    ),
}
