"""Where fields lie, found or checked by what they show."""

from edge_mil.imaging.locate.key_fields import KeyField, KeyFields, key_field
from edge_mil.imaging.locate.locator import Location, Locator
from edge_mil.imaging.locate.pose_graph import Link, settle
from edge_mil.imaging.locate.stage_check import StageCheck, StagePlace, check_affine

__all__ = [
    "KeyField",
    "KeyFields",
    "Link",
    "Location",
    "Locator",
    "StageCheck",
    "StagePlace",
    "check_affine",
    "key_field",
    "settle",
]
