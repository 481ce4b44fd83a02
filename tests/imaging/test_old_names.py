"""Names of the release before: they warn, and give the objects under their new names."""

from __future__ import annotations

import pytest

from edge_mil import imaging

RENAMED = {
    "FieldView": imaging.CellUpdate,
    "Mosaic": imaging.CellMap,
    "Part": imaging.CellPart,
    "Rank": imaging.ViewRank,
    "Seen": imaging.ViewSharpness,
    "SlotBook": imaging.SlotMap,
    "SlotView": imaging.SlotUpdate,
    "Straight": imaging.AlignedFrame,
    "Straightener": imaging.StageAligner,
}


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_warns_and_gives_the_new_object(old: str) -> None:
    with pytest.deprecated_call(match=RENAMED[old].__name__):
        assert getattr(imaging, old) is RENAMED[old]


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Palette"):
        imaging.Palette  # noqa: B018
