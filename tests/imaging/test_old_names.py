"""Names of the release before: they warn, and give the objects under their new names."""

from __future__ import annotations

from types import ModuleType

import pytest

from edge_mil import imaging, types

RENAMED = [
    (imaging, "FieldView", imaging.CellUpdate),
    (imaging, "Mosaic", imaging.CellMap),
    (imaging, "Part", imaging.CellPart),
    (imaging, "Rank", imaging.ViewRank),
    (imaging, "Seen", imaging.ViewSharpness),
    (imaging, "SlotBook", imaging.SlotMap),
    (imaging, "SlotView", imaging.SlotUpdate),
    (imaging, "Straight", imaging.AlignedFrame),
    (imaging, "Straightener", imaging.StageAligner),
    (types, "HeatMap", types.InfluenceMap),
    (types, "Places", types.InstanceOrder),
]


@pytest.mark.parametrize(("module", "old", "new"), RENAMED)
def test_an_old_name_warns_and_gives_the_new_object(
    module: ModuleType, old: str, new: type
) -> None:
    with pytest.deprecated_call(match=new.__name__):
        assert getattr(module, old) is new


@pytest.mark.parametrize("module", [imaging, types])
def test_a_name_that_never_was_is_an_attribute_error(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="Palette"):
        _ = module.Palette
