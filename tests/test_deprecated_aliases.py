"""Old public names answer for one release, with a warning, and then they go."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from edge_mil.client import FieldInfo
from edge_mil.renamed import REMOVED_IN
from edge_mil.session import FieldRecord
from edge_mil.types import FieldResult, Frame, InstanceBatch, InstanceOrder, Verdict
from edge_mil.version import __version__

ROOT = Path(__file__).resolve().parents[1]

NAMES = {
    "edge_mil.types": {"HeatMap": "InfluenceMap", "Places": "InstanceOrder"},
    "edge_mil.session": {"HeatMap": "InfluenceMap", "Standing": "SessionStatus"},
    "edge_mil.client": {"HeatMap": "InfluenceMap"},
    "edge_mil.imaging": {
        "FieldView": "CellUpdate",
        "Mosaic": "CellMap",
        "Part": "CellPart",
        "Rank": "ViewRank",
        "Seen": "ViewSharpness",
        "SlotBook": "SlotMap",
        "SlotView": "SlotUpdate",
        "Straight": "AlignedFrame",
        "Straightener": "StageAligner",
    },
    "edge_mil_export.architectures": {"Layout": "StateDictReader"},
}
"""Module -> old name -> new name."""

PIXELS = np.zeros((2, 2, 3), np.uint8)
EMBEDDINGS = np.zeros((1, 3), np.float32)
ORDER = InstanceOrder((b"a",), np.zeros((1, 2), np.int64))
RESULT = FieldResult(1, Verdict.ACCEPTED)

ATTRIBUTES = {
    "Frame.place": (Frame(PIXELS, location_id="A1"), "place", "A1"),
    "InstanceBatch.places": (
        InstanceBatch(EMBEDDINGS, np.zeros((1, 1), np.float32), {}, ORDER),
        "places",
        ORDER,
    ),
    "InstanceBatch.values": (
        InstanceBatch(EMBEDDINGS, np.zeros((1, 1), np.float32), {}, ORDER),
        "values",
        EMBEDDINGS,
    ),
    "FieldInfo.place": (
        FieldInfo(RESULT, 0, None, None, 1.0, 1.0, "A1", "", False, 0.0, None),
        "place",
        "A1",
    ),
    "FieldRecord.place": (
        FieldRecord(RESULT, 0, None, None, 1.0, 1.0, "A1", "", 0.0, False),
        "place",
        "A1",
    ),
}


ALIASES = [(module, old, new) for module, names in NAMES.items() for old, new in names.items()]


@pytest.mark.parametrize(("module", "old", "new"), ALIASES)
def test_an_old_name_is_the_new_object_with_a_warning(module: str, old: str, new: str) -> None:
    imported = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{old} is now {module}\.{new}") as said:
        found = getattr(imported, old)
    assert found is getattr(imported, new)
    # The warning names the line that uses the old name, not one of ours.
    assert said[0].filename == __file__


@pytest.mark.parametrize(("module", "old"), [(module, old) for module, old, _ in ALIASES])
def test_an_old_name_is_no_part_of_the_public_names(module: str, old: str) -> None:
    assert old not in getattr(importlib.import_module(module), "__all__", ())


@pytest.mark.parametrize("module", NAMES)
def test_a_name_that_never_was_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = importlib.import_module(module).Nonsense


@pytest.mark.parametrize(("owner", "old", "value"), ATTRIBUTES.values(), ids=ATTRIBUTES.keys())
def test_an_old_attribute_reads_the_new_one_with_a_warning(
    owner: object, old: str, value: object
) -> None:
    with pytest.warns(DeprecationWarning, match=rf"\.{old} is now ") as said:
        assert getattr(owner, old) is value
    assert said[0].filename == __file__


def test_every_module_with_aliases_is_tested_here() -> None:
    found = set()
    for top in (ROOT / "edge_mil", ROOT / "export" / "edge_mil_export"):
        for path in top.rglob("*.py"):
            if re.search(r"= renamed\(", path.read_text(encoding="utf-8")):
                parts = path.relative_to(top.parent).with_suffix("").parts
                found.add(".".join(part for part in parts if part != "__init__"))
    assert found == set(NAMES)


def test_the_release_that_removes_the_old_names_has_not_come() -> None:
    def release(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.match(r"[\d.]+", text)[0].strip(".").split("."))

    assert release(__version__) < release(REMOVED_IN), (
        f"edge_mil {__version__}: remove the aliases of {', '.join(NAMES)}, the attributes "
        f"{', '.join(ATTRIBUTES)} and this test, or name a later release in REMOVED_IN"
    )
