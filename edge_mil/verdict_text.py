"""What each verdict means to the person at the microscope, and what to do about it."""

from __future__ import annotations

from types import MappingProxyType

from edge_mil.types import Verdict

WORDS = MappingProxyType(
    {
        Verdict.ACCEPTED: "good",
        Verdict.DUPLICATE: "nothing new here: go on to the next field",
        Verdict.BLANK: "empty glass: go to tissue",
        Verdict.BLURRED: "out of focus: turn the fine focus",
        Verdict.MOVING: "the slide moved: hold it still, or expose for a shorter time",
        Verdict.SATURATED: "too bright or too dark: turn the lamp or change the exposure time",
        Verdict.UNLOCATED: "place unknown: go back to where the slide was last seen",
        Verdict.OUT_OF_DISTRIBUTION: "unlike what the model was made for: check the stain, the "
        "objective and the colours",
        Verdict.DROPPED: "the device was behind: show the field once more",
    }
)
"""Verdict -> the operator's words, with the mending act where there is one."""


def words_of(verdict: Verdict) -> str:
    """Return the operator's words for a verdict."""
    return WORDS[verdict]
