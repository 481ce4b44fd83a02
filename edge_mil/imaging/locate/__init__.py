"""Where fields lie, found or checked by what they show."""

from edge_mil.imaging.locate.key_fields import KeyField, KeyFields, key_field
from edge_mil.imaging.locate.locator import Location, Locator
from edge_mil.imaging.locate.pose_graph import Link, settle
from edge_mil.imaging.locate.stage_check import StageCheck, StagePlace, check_affine
from edge_mil.imaging.locate.stage_offset import StageOffset
from edge_mil.imaging.locate.words import why_unlocated

__all__ = [
    "KeyField",
    "KeyFields",
    "Link",
    "Location",
    "Locator",
    "StageCheck",
    "StageOffset",
    "StagePlace",
    "check_affine",
    "key_field",
    "settle",
    "why_unlocated",
]
