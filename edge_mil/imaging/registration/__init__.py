"""Align images with each other: pairs of frames, chains of key frames, the stage against both.

`pairwise` finds the offset between two images (`shift_search` proposes offsets, `pyramid` holds an
image at several sizes); `localizer` finds a frame among the `key_frames`, `pose_graph` solves their
positions together when a path closes a loop; `stage_check` and `stage_offset` compare the stage
with the images, and `magnification` asks whether another objective explains a failure.
"""

from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, key_frame
from edge_mil.imaging.registration.localizer import FrameLocation, KeyFrameLocalizer
from edge_mil.imaging.registration.pose_graph import PoseEdge, settle
from edge_mil.imaging.registration.stage_check import StageCheck, StageComparison, check_affine
from edge_mil.imaging.registration.stage_offset import StageOffset

__all__ = [
    "FrameLocation",
    "KeyFrame",
    "KeyFrameLocalizer",
    "KeyFrames",
    "PoseEdge",
    "StageCheck",
    "StageComparison",
    "StageOffset",
    "check_affine",
    "key_frame",
    "settle",
]
