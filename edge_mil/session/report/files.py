"""Write a session's records as files for other programs: CSV, NumPy, JPEG, JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.errors import StoreError
from edge_mil.session.answers import read_answer
from edge_mil.session.catalog import SessionSummary
from edge_mil.session.stored_fields import CELL_UM, FRAME_SIZE, FieldHeaders
from edge_mil.store import InstanceKind, InstanceRow, SessionReader
from edge_mil.types import RESEARCH_USE_ONLY, FieldResult, Float32Array

FIELD_COLUMNS = (
    "sequence",
    "verdict",
    "removed",
    "x_um",
    "y_um",
    "width_um",
    "height_um",
    "place",
    "name",
    "capture_time_s",
    "cells_added",
    "cells_improved",
    "cells_held",
    "coverage",
    "revision",
    "instances",
)
CELL_COLUMNS = ("row", "place", "column", "line", "x_um", "y_um", "width_um", "height_um", "field")


def export_session(reader: SessionReader, summary: SessionSummary, out: Path) -> list[Path]:
    """Write the records into a folder; it is made when missing, and earlier files are replaced.

    Needs no bundle and takes no lock, so it works beside a service that goes on writing.

    Args:
        reader: The session's records.
        summary: What the session was opened with.
        out: The folder.

    Returns:
        The paths: `session.json`; `fields.csv` (one row for each field, the position that of its
        centre, stage um); `cells.csv` and `features.npz` (one row for each instance in the bag, in
        the same order; x and y are its top left corner, stage um); the folder `thumbnails`, which
        holds SEQUENCE.jpg of each accepted field.

    Raises:
        StoreError: The records cannot be read, or the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return list(_write(reader, summary, out))
    except OSError as error:
        raise StoreError(
            f"The export cannot be written to {out} ({error.strerror}); name another --out."
        ) from error


def _write(reader: SessionReader, summary: SessionSummary, out: Path) -> Iterator[Path]:
    held = [row for row in reader.instances() if row.kind is InstanceKind.HELD]
    held.sort(key=lambda row: _canonical(row.instance_key))

    about = {
        "session": summary.session_id,
        "bundle": summary.bundle_digest,
        "bundle_name": summary.bundle_name,
        "created": summary.created,
        "closed": summary.closed,
        "settings": dataclasses.asdict(summary.settings),
        "use": RESEARCH_USE_ONLY,
    }
    (out / "session.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    yield out / "session.json"

    rows = list(_field_rows(reader, summary.settings.mpp))
    extra = sorted({name for row in rows for name in row} - set(FIELD_COLUMNS))
    yield _csv(out / "fields.csv", (*FIELD_COLUMNS, *extra), rows)

    cell_um = _cell_um(reader.meta(), summary.settings.mpp)
    yield _csv(out / "cells.csv", CELL_COLUMNS, _cell_rows(held, cell_um))

    arrays: dict[str, Any] = {"features": _stack([row.features for row in held])}
    positions = [_grid_position(row.instance_key) for row in held]
    if held and None not in positions:
        arrays["positions"] = np.array(positions, dtype=np.int64)
    np.savez_compressed(out / "features.npz", **arrays)
    yield out / "features.npz"

    thumbnails = out / "thumbnails"
    thumbnails.mkdir(exist_ok=True)
    for row in rows:
        jpeg = reader.thumbnail(row["sequence"])
        if jpeg:
            (thumbnails / f"{row['sequence']}.jpg").write_bytes(jpeg)
    yield thumbnails


def _field_rows(reader: SessionReader, mpp: float) -> Iterator[dict[str, Any]]:
    headers = FieldHeaders(reader, mpp)
    for row in reader.fields():
        result = read_answer(row.answer)
        yield {
            "sequence": row.sequence,
            "verdict": result.verdict.name,
            "removed": int(row.removed),
            **headers.read(row.sequence, row.header),
            **_numbers(result),
        }


def _numbers(result: FieldResult) -> dict[str, Any]:
    """Return the running score after a field, and the measures that its verdict rests on."""
    numbers: dict[str, Any] = {
        "cells_added": result.cells_added,
        "cells_improved": result.cells_improved,
        "cells_held": result.cells_held,
        "coverage": result.coverage,
        "revision": result.revision,
        "instances": result.score.instances if result.score else 0,
    }
    numbers.update({f"measure_{m.name}": m.value for m in result.measures})
    if result.score is not None:
        # prob_<class> is what QuPath users search for.
        named = zip(result.score.classes, result.score.probabilities, strict=False)
        numbers.update({f"prob_{name}": value for name, value in named})
        if result.score.value is not None:
            numbers["score_value"] = result.score.value
        numbers.update(
            {
                f"logit_{name}": value
                for name, value in zip(result.score.classes, result.score.logits, strict=False)
            }
        )
    return numbers


def _cell_rows(
    held: list[InstanceRow], cell_um: tuple[float, float] | None
) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(held):
        cell: dict[str, Any] = {"row": number, "place": row.instance_key, "field": row.sequence}
        position = _grid_position(row.instance_key)
        if position is not None:
            cell["column"], cell["line"] = position
        if position is not None and cell_um is not None:
            width, height = cell_um
            cell.update(
                x_um=position[0] * width,
                y_um=position[1] * height,
                width_um=width,
                height_um=height,
            )
        yield cell


def _cell_um(meta: dict[str, str], mpp: float) -> tuple[float, float] | None:
    """Return width and height of a cell; where fields are instances, those of a field."""
    if (cell := json.loads(meta.get(CELL_UM, "null"))) is not None:
        return float(cell[0]), float(cell[1])
    if FRAME_SIZE in meta:
        height, width = json.loads(meta[FRAME_SIZE])
        return width * mpp, height * mpp
    return None


def _grid_position(instance_key: str) -> tuple[int, int] | None:
    """Return (column, row) of the instance key "3:-1" or "slot:3:-1"; None for a named location."""
    parts = instance_key.split(":")
    if parts[0] == "place":
        return None
    return int(parts[-2]), int(parts[-1])


def _canonical(instance_key: str) -> tuple[int, int, str]:
    """Return what the bag is sorted by: row and column of the grid, else the location's name."""
    position = _grid_position(instance_key)
    return (0, 0, instance_key) if position is None else (position[1], position[0], "")


def _stack(arrays: list[bytes | None]) -> Float32Array:
    if not arrays:
        return np.empty((0, 0), dtype=np.float32)
    return np.stack([np.frombuffer(data or b"", dtype="<f4") for data in arrays])


def _csv(path: Path, columns: tuple[str, ...], rows: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
