"""Cells of the global grid as instances."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_mil.bundle import InputSpec
from edge_mil.errors import FrameError, StoreError
from edge_mil.imaging import CellMap, CellUpdate, GridGeometry, StageAligner, TissueTest
from edge_mil.imaging.cells.replacement import sharpness_of
from edge_mil.imaging.quality.cell_focus import BlurTest
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.session.instances.base import (
    InstanceChanges,
    InstanceMap,
    InstancePlan,
    Placement,
    Removal,
)
from edge_mil.session.instances.relocation import Relocation, relocate
from edge_mil.session.instances.rows import cell_of, key_of, note_of, part_from, part_row, seen_in
from edge_mil.session.settings import SessionSettings
from edge_mil.store import InstanceKind, InstanceRow, PartRow, SessionFile, SessionReader
from edge_mil.types import Frame, InstanceOrder, Measure, Region


def check_size(frame: Frame, size: tuple[int, int] | None) -> None:
    """Check that a frame has the (height, width) of the session's first field.

    Raises:
        FrameError: It has another.
    """
    found = (frame.height_px, frame.width_px)
    if size is not None and found != size:
        raise FrameError(
            f"The field is {found[1]} x {found[0]} px and this session's fields are {size[1]} x "
            f"{size[0]}; was the camera's binning or region changed? Open a new session for it.",
            width=found[1],
            height=found[0],
        )


@dataclass(slots=True, eq=False)
class _HeldCells:
    """The cells that are held, and the field that owns each."""

    cells: CellMap
    owner: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class GridPlan(InstancePlan):
    """The plan of a field that was cut into cells.

    Attributes:
        update: What `CellMap` takes over.
        held_cells: The cells that it was planned against: after a closed loop, the moved ones.
        size: (height, width) of the field, px.
    """

    update: CellUpdate | None = None
    held_cells: _HeldCells | None = None
    size: tuple[int, int] | None = None


class GridInstances(InstanceMap[GridPlan]):
    """Counts each cell of the grid once; `edge_mil.imaging.CellMap` knows which are held."""

    def __init__(
        self, spec: InputSpec, settings: SessionSettings, frame_size: tuple[int, int] | None
    ) -> None:
        """Start without any cell.

        Args:
            spec: Tile size and MPP of the model, and its tissue test.
            settings: The session's.
            frame_size: (height, width) of the session's fields, px; None before the first.

        Raises:
            PixelSizeError: The camera is too coarse for the model.
        """
        self.geometry = GridGeometry(
            settings.mpp,
            spec.tile_height_px,
            spec.tile_width_px,
            spec.mpp,
            settings.allow_enlargement,
        )
        self._spec, self._settings, self._size = spec, settings, frame_size
        self._aligner: StageAligner | None = None
        self._records: SessionReader | None = None
        self._held = self._empty()

    @property
    def tissue(self) -> TissueTest:
        """The tissue test that the session began with."""
        return self._held.cells.tissue

    def check(self, frame: Frame) -> None:
        check_size(frame, self._size)

    def restore(self, records: SessionReader, removed: Collection[int]) -> None:
        self._records = records
        rows = [row for row in records.instances(arrays=False) if row.sequence not in removed]
        self._held = self._filled(rows, records.parts())

    def plan(
        self, sequence: int, frame: Frame, placement: Placement, blurred: BlurTest | None = None
    ) -> GridPlan:
        """See `InstanceMap.plan`.

        Raises:
            StoreError: A loop was closed and the records cannot be read.
        """
        assert placement.x_um is not None  # a localizer of a grid gives every field a position
        assert placement.y_um is not None
        held, relocation = self._held, None
        if placement.moved:
            relocation = self._relocation(placement)
            held = self._filled(relocation.rows, relocation.parts)
        aligner = self._aligner_for(frame)
        aligned = aligner.align(frame.pixels)

        def sharpness(x0: int, y0: int, x1: int, y1: int) -> float:
            # Measured in the camera's own pixels: resampling removes noise and sharpness.
            pixels = frame.pixels if frame.grey is None else frame.grey
            return sharpness_of(pixels, *aligner.camera_box(x0, y0, x1, y1))

        def out_of_focus(x0: int, y0: int, x1: int, y1: int) -> bool:
            return blurred is not None and blurred(*aligner.camera_box(x0, y0, x1, y1))

        update = held.cells.plan(
            aligned.pixels,
            placement.x_um,
            placement.y_um,
            sequence,
            sharpness,
            aligned.mask,
            out_of_focus,
        )
        changes, measures = _changes(update, sequence, held.owner), placement.measures
        if relocation is not None:
            changes = _with_relocation(changes, relocation)
            measures += (Measure("cells_counted_twice", len(relocation.dropped)),)
        return GridPlan(
            verdict=update.verdict,
            measures=update.measures + measures,
            tiles=update.tiles,
            changes=changes,
            added=len(update.cells) - len(update.improved),
            improved=len(update.improved),
            held=update.held,
            update=update,
            held_cells=held,
            size=(frame.height_px, frame.width_px),
        )

    def commit(self, plan: GridPlan) -> None:
        assert plan.update is not None
        assert plan.held_cells is not None
        self._size, self._held = plan.size, plan.held_cells
        self._held.cells.commit(plan.update)
        self._held.owner.update((row.instance_key, row.sequence) for row in plan.changes.rows)

    def remove(self, sequence: int) -> Removal:
        """Remove every cell to which the field gave pixels, whichever field completed it."""
        # Cells without tissue too: with its pixels gone, what they show is unknown again.
        _, unknown = self._held.cells.remove(sequence)
        dropped = tuple(key_of(cell) for cell in unknown)
        owners = {self._held.owner.pop(key) for key in dropped if key in self._held.owner}
        return Removal(dropped=dropped, touched=tuple(sorted(owners - {sequence})))

    def order(self, keys: Sequence[str]) -> InstanceOrder:
        return grid_order([cell_of(key) for key in keys])

    def coverage(self) -> float:
        """Return the number of held cells over that of the known tissue cells."""
        return self._held.cells.coverage()

    def shares(self) -> Mapping[str, float]:
        return {key_of(cell): share for cell, share in self._held.cells.shares().items()}

    def focus(self) -> Mapping[str, float]:
        """Return the sharpness of the worst part of each held cell."""
        return {key_of(cell): sharp for cell, sharp in self._held.cells.focus().items()}

    def extent(self, key: str) -> Region | None:
        i, j = cell_of(key)
        width, height = self.geometry.cell_w_um, self.geometry.cell_h_um
        return Region(i * width, j * height, width, height)

    def _empty(self) -> _HeldCells:
        tissue = self._spec.tissue
        cells = CellMap(
            self.geometry,
            background=tissue.background,
            min_difference=tissue.min_difference,
            min_share=tissue.min_share,
            outline=self._settings.tissue,
            area=self._settings.area,
        )
        return _HeldCells(cells, {})

    def _filled(self, rows: Iterable[InstanceRow], parts: Iterable[PartRow]) -> _HeldCells:
        """Return the cells that these records say are held."""
        held = self._empty()
        for row in rows:
            tissue = row.kind is InstanceKind.HELD
            cell = cell_of(row.instance_key)
            held.cells.restore_cell(*cell, tissue, row.sources, seen_in(row.note))
            if tissue:
                held.owner[row.instance_key] = row.sequence
        for part in parts:
            held.cells.restore_part(part.sequence, part_from(part))
        return held

    def _aligner_for(self, frame: Frame) -> StageAligner:
        """Return what turns fields of this size onto the axes of the stage."""
        size = (frame.width_px, frame.height_px)
        if self._aligner is None or self._aligner.field_px != size:
            self._aligner = StageAligner(self._settings.stage_affine, self._settings.mpp, *size)
        return self._aligner

    def _relocation(self, placement: Placement) -> Relocation:
        """Return where everything that is held lies after a loop was closed."""
        if not isinstance(self._records, SessionFile):
            raise StoreError("The records of this session cannot be read while it goes on.")
        self._records.flush()
        rows, parts = self._records.instances(arrays=False), self._records.parts()
        return relocate(self.geometry, rows, parts, placement.moved)


def _changes(update: CellUpdate, sequence: int, owner: Mapping[str, int]) -> InstanceChanges:
    rows = tuple(
        InstanceRow(
            key_of(cell),
            sequence,
            InstanceKind.HELD,
            update.sources[cell],
            note_of(update.sharpness[cell]),
        )
        for cell in update.cells
    )
    glass = tuple(
        InstanceRow(key_of(cell), sequence, InstanceKind.GLASS, update.sources[cell])
        for cell in update.glass
    )
    return InstanceChanges(
        rows=rows,
        glass=glass,
        parts=tuple(part_row(sequence, part) for part in update.parts),
        finished=tuple(row.instance_key for row in rows + glass if len(row.sources) > 1),
        dropped=tuple((key_of(cell), owner[key_of(cell)]) for cell in sorted(update.improved)),
    )


def _with_relocation(changes: InstanceChanges, relocation: Relocation) -> InstanceChanges:
    """Add what a closed loop moves and drops to what the field itself changes."""
    # The store still has the records under their keys of before.
    before = {(new, owner): key for (key, owner), new in relocation.moved.items()}
    improved = tuple((before.get((key, owner), key), owner) for key, owner in changes.dropped)
    return InstanceChanges(
        rows=changes.rows,
        glass=changes.glass,
        parts=changes.parts,
        finished=changes.finished,
        dropped=(*relocation.dropped, *improved),
        moved=relocation.moved,
        replaced_parts=relocation.parts,
    )
