"""Image processing of a session, between the camera's pixels and the extractor's tiles.

RGB uint8 fields with a stage position, or with nothing but their content, go in; instances come
out: model tiles that belong to one cell of the slide's grid each, or to one slot of fields. In the
order in which a frame passes:

| step | file |
| --- | --- |
| flat field, white balance, noise | `correction/shading.py`, `correction/noise.py` |
| quality gate: saturation, motion, focus | `quality/gate.py` |
| compare the stage with the image, or find the field by content | `registration/stage_check.py`, \
`registration/localizer.py` |
| turn the field to the stage's axes | `correction/stage_axes.py` |
| tissue test | `tissue.py` |
| cells, or slots of whole fields | `cells/cell_map.py`, `cells/field_slots.py` |
| resample a cell to the model's pixel size | `resample.py` |
| stain normalisation | `correction/stain.py` |

`grid` holds the geometry that all of them share, `outline` the tissue as rectangles, and `render`
draws results for people. `docs/design/imaging.md` has the measured facts behind the numbers.
"""

from typing import TYPE_CHECKING

from edge_mil.imaging.cells.assembly import CellUpdate
from edge_mil.imaging.cells.cell_map import CellMap
from edge_mil.imaging.cells.field_slots import (
    Slot,
    SlotMap,
    SlotUpdate,
    ViewRank,
    bring_to_tile,
    check_field_mpp,
    sharpness,
)
from edge_mil.imaging.cells.pending import CellPart
from edge_mil.imaging.cells.replacement import Sharpness, ViewSharpness, clearly_sharper
from edge_mil.imaging.correction.stage_axes import AlignedFrame, StageAligner
from edge_mil.imaging.grid import Box, Cell, GridGeometry
from edge_mil.imaging.outline import cells_inside, tissue_outline
from edge_mil.imaging.render.thumbnail import thumbnail_jpeg
from edge_mil.imaging.resample import resample_cell
from edge_mil.imaging.tissue import TissueTest, tissue_share
from edge_mil.renamed import renamed

__all__ = [
    "AlignedFrame",
    "Box",
    "Cell",
    "CellMap",
    "CellPart",
    "CellUpdate",
    "GridGeometry",
    "Sharpness",
    "Slot",
    "SlotMap",
    "SlotUpdate",
    "StageAligner",
    "TissueTest",
    "ViewRank",
    "ViewSharpness",
    "bring_to_tile",
    "cells_inside",
    "check_field_mpp",
    "clearly_sharper",
    "resample_cell",
    "sharpness",
    "thumbnail_jpeg",
    "tissue_outline",
    "tissue_share",
]

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(
        __name__,
        {
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
    )
