"""Cells of the global grid as places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_mil.bundle import InputSpec
from edge_mil.errors import FrameError, PositionError
from edge_mil.imaging import CellMap, CellUpdate, GridGeometry, StageAligner, TissueTest
from edge_mil.imaging.cells.replacement import sharpness_of
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.session.instances.base import InstanceMap, InstancePlan, Removal
from edge_mil.session.instances.rows import (
    cell_of,
    note_of,
    part_from,
    part_row,
    place_of,
    seen_in,
)
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceKind, InstanceRow, PartRow
from edge_mil.types import Frame, InstanceOrder, Region


def check_size(frame: Frame, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the frame's (height, width), which is that of the session's first field.

    Raises:
        FrameError: It is another.
    """
    found = (frame.height_px, frame.width_px)
    if size is not None and found != size:
        raise FrameError(
            f"The field is {found[1]} x {found[0]} px and this session's fields are {size[1]} x "
            f"{size[0]}; was the camera's binning or region changed? Open a new session for it.",
            width=found[1],
            height=found[0],
        )
    return found


@dataclass(frozen=True, slots=True)
class _Seen:
    view: CellUpdate
    size: tuple[int, int]


class GridInstances(InstanceMap):
    """Counts cells; `edge_mil.imaging.CellMap` knows which are held."""

    def __init__(
        self, spec: InputSpec, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> None:
        self._geometry = GridGeometry(
            settings.mpp,
            spec.tile_height_px,
            spec.tile_width_px,
            spec.mpp,
            settings.allow_enlargement,
        )
        tissue = spec.tissue
        self._mosaic = CellMap(
            self._geometry,
            background=tissue.background,
            min_difference=tissue.min_difference,
            min_share=tissue.min_share,
            outline=settings.tissue,
            area=settings.area,
        )
        self._settings = settings
        self._straightener: StageAligner | None = None
        self._size = frame_size
        self._owner: dict[str, int] = {}

    @property
    def geometry(self) -> GridGeometry:
        """The session's grid."""
        return self._geometry

    @property
    def tissue(self) -> TissueTest:
        """The test of tissue, as the session began with it."""
        return self._mosaic.tissue

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the session's fields; None before the first."""
        return self._size

    def check(self, frame: Frame) -> None:
        """Check size and position."""
        check_size(frame, self._size)
        if self._settings.stage and frame.x_um is None:
            raise PositionError(
                "The field has no stage position and this session has a stage; send the stage "
                "position of the field's centre, um, or open a session without a stage."
            )

    def look(self, sequence: int, frame: Frame) -> InstancePlan:
        """Judge a field; see `InstanceMap.look`."""
        check_size(frame, self._size)
        if frame.x_um is None or frame.y_um is None:
            raise PositionError(
                "The field has no stage position; send that of the field's centre, um."
            )
        lying = self._straight(frame)
        straight = lying.align(frame.pixels)

        def sharpness(x0: int, y0: int, x1: int, y1: int) -> float:
            # Of the camera's own pixels: straightening takes noise and sharpness away.
            seen = frame.pixels if frame.grey is None else frame.grey
            return sharpness_of(seen, *lying.camera_box(x0, y0, x1, y1))

        view = self._mosaic.plan(
            straight.pixels, frame.x_um, frame.y_um, sequence, sharpness, straight.mask
        )
        rows = tuple(
            InstanceRow(
                place_of(cell),
                sequence,
                InstanceKind.HELD,
                view.sources[cell],
                note_of(view.sharpness[cell]),
            )
            for cell in view.cells
        )
        glass = tuple(
            InstanceRow(place_of(cell), sequence, InstanceKind.GLASS, view.sources[cell])
            for cell in view.glass
        )
        return InstancePlan(
            verdict=view.verdict,
            measures=view.measures,
            tiles=view.tiles,
            rows=rows,
            glass=glass,
            parts=tuple(part_row(sequence, part) for part in view.parts),
            finished=tuple(row.instance_key for row in rows + glass if len(row.sources) > 1),
            dropped=tuple((place_of(c), self._owner[place_of(c)]) for c in sorted(view.improved)),
            added=len(rows) - len(view.improved),
            improved=len(view.improved),
            held=view.held,
            token=_Seen(view, (frame.height_px, frame.width_px)),
        )

    def _straight(self, frame: Frame) -> StageAligner:
        """Return what lays this session's fields on the stage's axes."""
        size = (frame.width_px, frame.height_px)
        if self._straightener is None or self._straightener.field_px != size:
            affine, mpp = self._settings.stage_affine, self._settings.mpp
            self._straightener = StageAligner(affine, mpp, *size)
        return self._straightener

    def apply(self, look: InstancePlan) -> None:
        """Hold what the field brought."""
        seen = look.token
        assert isinstance(seen, _Seen)
        self._size = seen.size
        self._mosaic.commit(seen.view)
        for row in look.rows:
            self._owner[row.instance_key] = row.sequence

    def remove(self, sequence: int) -> Removal:
        """Forget every cell that the field gave pixels to, whoever completed it."""
        # Not only tissue cells: glass that it helped to see is unknown again too.
        _, again = self._mosaic.remove(sequence)
        dropped = tuple(place_of(cell) for cell in again)
        owners = {self._owner.pop(place) for place in dropped if place in self._owner}
        return Removal(dropped=dropped, touched=tuple(sorted(owners - {sequence})))

    def restore(self, instances: Sequence[InstanceRow], parts: Sequence[PartRow]) -> None:
        """Hold again what is stored."""
        for row in instances:
            tissue = row.kind is InstanceKind.HELD
            self._mosaic.restore_cell(
                *cell_of(row.instance_key), tissue, row.sources, seen_in(row.note)
            )
            if tissue:
                self._owner[row.instance_key] = row.sequence
        for part in parts:
            self._mosaic.restore_part(part.sequence, part_from(part))

    def order(self, places: Sequence[str]) -> InstanceOrder:
        """Return the canonical order of cells."""
        return grid_order([cell_of(place) for place in places])

    def coverage(self) -> float:
        """Return held over known tissue cells."""
        return self._mosaic.coverage()

    def shares(self) -> Mapping[str, float]:
        """Return the share seen of each cell."""
        return {place_of(cell): share for cell, share in self._mosaic.shares().items()}

    def focus(self) -> Mapping[str, float]:
        """Return the sharpness of each held cell's worst part."""
        return {place_of(cell): sharp for cell, sharp in self._mosaic.focus().items()}

    def extent(self, place: str) -> Region | None:
        """Return where a cell lies."""
        i, j = cell_of(place)
        width, height = self._geometry.cell_w_um, self._geometry.cell_h_um
        return Region(i * width, j * height, width, height)
