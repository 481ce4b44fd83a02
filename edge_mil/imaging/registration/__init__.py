"""Align images with each other: pairs of frames, chains of key frames, the stage against both.

`pairwise` finds the offset between two images (`shift_search` proposes offsets, `pyramid` holds an
image at several sizes); `localizer` finds a frame among the `key_frames`, `pose_graph` solves their
positions together when a path closes a loop; `stage_check` and `stage_offset` compare the stage
with the images, and `magnification` asks whether another objective explains a failure.
"""

from edge_mil.imaging.registration.key_frames import KeyField, KeyFields, key_field
from edge_mil.imaging.registration.localizer import Location, Locator
from edge_mil.imaging.registration.pose_graph import Link, settle
from edge_mil.imaging.registration.stage_check import StageCheck, StagePlace, check_affine
from edge_mil.imaging.registration.stage_offset import StageOffset
from edge_mil.imaging.registration.unlocated_text import why_unlocated

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
