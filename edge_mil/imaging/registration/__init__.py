"""Registration: align images with each other, and the stage with the images.

Fields go in as `RegistrationPyramid`s, prepared by `pyramid`; positions on the session's lattice
come out, or a refusal with the numbers behind it.

| step | file |
| --- | --- |
| try every whole shift of two images | `shift_search.py` |
| refine a shift to a part of a pixel | `template_match.py` |
| register a pair, and say whether it is reliable | `pairwise.py` |
| locate a frame among the key frames, without a stage | `localizer.py`, `key_frames.py` |
| combine registrations to several key frames | `consensus.py` |
| solve all positions together where a loop closes | `pose_graph.py` |
| compare a stage with the images | `stage_check.py`, `stage_comparison.py` |
| estimate its offset | `stage_offset.py` |
| set a field against an earlier one | `field_pair.py` |
| recognise another objective | `magnification.py` |
"""

from edge_mil.imaging.registration.field_pair import FieldPair, PairOutcome
from edge_mil.imaging.registration.key_frames import KeyFrame, KeyFrames, make_key_frame
from edge_mil.imaging.registration.localizer import FrameLocation, KeyFrameLocalizer
from edge_mil.imaging.registration.pose_graph import PoseEdge, optimise_poses
from edge_mil.imaging.registration.stage_check import StageCheck
from edge_mil.imaging.registration.stage_comparison import StageComparison, check_affine
from edge_mil.imaging.registration.stage_offset import StageOffset

__all__ = [
    "FieldPair",
    "FrameLocation",
    "KeyFrame",
    "KeyFrameLocalizer",
    "KeyFrames",
    "PairOutcome",
    "PoseEdge",
    "StageCheck",
    "StageComparison",
    "StageOffset",
    "check_affine",
    "make_key_frame",
    "optimise_poses",
]
