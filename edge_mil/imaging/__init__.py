"""From a frame to instances: the global grid, tissue, resampling, slots; pictures of results."""

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
