"""A slide read without a stage along a hand's path: what was counted, against the truth.

usage: python tests/benchmarks/hand_moved.py [SEEDS]
"""

from __future__ import annotations

import argparse
import itertools
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import repository_path
from small_bundle import write_small_bundle
from textured_slide import with_noise

from edge_mil.bundle import Bundle
from edge_mil.cameras.hand_path import hand_path
from edge_mil.cameras.slide_file import SlideFile
from edge_mil.session import Session, SessionSettings
from edge_mil.store import InstanceKind, SessionFile
from edge_mil.types import Frame, UInt8Array, Verdict

TWICE = 0.5
DATA = repository_path.ROOT.parent / "shared/data/slides"


@dataclass(frozen=True)
class Truth:
    """What a session without a stage holds, against where its fields were.

    Attributes:
        places: Keys of the cells held.
        twice: Pairs of cells that show the same place by half or more.
        astray: Largest distance of a cell from where it says, cells.
        end_error: Of the last located field, cells.
        largest_error: Of any located field, cells.
    """

    places: frozenset[str]
    twice: int
    astray: float
    end_error: float
    largest_error: float


@dataclass(frozen=True)
class HandPass:
    """What a hand-moved session came to.

    Attributes:
        verdicts: How many fields of each.
        truth: What is held, against the truth.
        clean: Cells held by a session with a perfect stage over the same fields.
        seconds: For each field, the median.
        score_difference: Of the first probability, to that of the perfect stage.
    """

    verdicts: Counter[Verdict]
    truth: Truth
    clean: frozenset[str]
    seconds: float
    score_difference: float


def against_truth(store: SessionFile, path: list[tuple[int, int]], cell_px: float) -> Truth:
    """Compare what a session holds with the path that its fields 1, 2, ... were taken along."""
    store.flush()
    located = {row.sequence: row for row in store.located()}
    keys = {key.sequence: key for key in store.key_frames()}
    origin = path[min(located) - 1]

    def astray(sequence: int) -> tuple[float, float]:
        """Return how far a field's cells lie from where they say, cells (x, y)."""
        row, (x, y) = located[sequence], path[sequence - 1]
        key = keys[row.anchor]
        wrong = row.x - (x - origin[0]), row.y - (y - origin[1])
        since = round(key.x + row.dx) - row.x, round(key.y + row.dy) - row.y
        dx, dy = (e / cell_px + round(m / cell_px) for e, m in zip(wrong, since, strict=True))
        return dx, dy

    def error(sequence: int) -> float:
        row, (x, y) = located[sequence], path[sequence - 1]
        key = keys[row.anchor]
        wrong = key.x + row.dx - (x - origin[0]), key.y + row.dy - (y - origin[1])
        return max(map(abs, wrong)) / cell_px

    rows = [row for row in store.instances() if row.kind is InstanceKind.HELD]
    shown = []
    for row in rows:
        (i, j), off = map(int, row.instance_key.split(":")), astray(row.sequence)
        shown.append((i - off[0], j - off[1]))
    errors = {sequence: error(sequence) for sequence in located}
    return Truth(
        places=frozenset(row.instance_key for row in rows),
        twice=_twice(shown),
        astray=max((max(map(abs, astray(row.sequence))) for row in rows), default=0.0),
        end_error=errors[max(errors)],
        largest_error=max(errors.values()),
    )


def read_by_hand(
    slide: UInt8Array,
    path: list[tuple[int, int]],
    field_px: tuple[int, int],
    bundle: Bundle,
    *,
    mpp: float,
    deviation: float = 0.0,
) -> HandPass:
    """Read a slide along a path, without a stage and with a perfect one."""
    width, height = field_px
    fields = [
        with_noise(np.ascontiguousarray(slide[y : y + height, x : x + width]), deviation, n)
        for n, (x, y) in enumerate(path)
    ]
    spec = bundle.manifest.input
    assert spec is not None
    with tempfile.TemporaryDirectory() as folder:
        store = SessionFile(Path(folder) / "session.db")
        settings = SessionSettings(mpp=mpp, stage=False)
        with Session(bundle, settings=settings, store=store) as session:
            times, verdicts = [], []
            for pixels in fields:
                started = time.perf_counter()
                verdicts.append(session.add(Frame(pixels)).verdict)
                times.append(time.perf_counter() - started)
            score = session.score()
            truth = against_truth(store, path, spec.tile_width_px * spec.mpp / mpp)
            first = min(row.sequence for row in store.located())
    clean, clean_score = _with_stage(fields, path, path[first - 1], field_px, bundle, mpp)
    assert score is not None
    return HandPass(
        verdicts=Counter(verdicts),
        truth=truth,
        clean=clean,
        seconds=float(np.median(times)),
        score_difference=abs(score.probabilities[0] - clean_score),
    )


def _with_stage(
    fields: list[UInt8Array],
    path: list[tuple[int, int]],
    origin: tuple[int, int],
    field_px: tuple[int, int],
    bundle: Bundle,
    mpp: float,
) -> tuple[frozenset[str], float]:
    with tempfile.TemporaryDirectory() as folder:
        store = SessionFile(Path(folder) / "session.db")
        with Session(bundle, mpp, store=store) as session:
            for pixels, (x, y) in zip(fields, path, strict=True):
                x_um = (x - origin[0] + field_px[0] / 2) * mpp
                y_um = (y - origin[1] + field_px[1] / 2) * mpp
                session.add(Frame(pixels, x_um, y_um))
            held = [row for row in store.instances() if row.kind is InstanceKind.HELD]
            score = session.score()
            assert score is not None
            return frozenset(row.instance_key for row in held), score.probabilities[0]


def _twice(places: list[tuple[float, float]]) -> int:
    count = 0
    for (x, y), (u, v) in itertools.combinations(places, 2):
        if max(0.0, 1 - abs(x - u)) * max(0.0, 1 - abs(y - v)) >= TWICE:
            count += 1
    return count


def tissue_of(slide: UInt8Array) -> np.ndarray:
    """Return where tissue is, at a sixteenth of the slide."""
    size = (slide.shape[1] // 16, slide.shape[0] // 16)
    small = cv2.resize(slide, size, interpolation=cv2.INTER_AREA)
    return small.min(axis=2) < 215


def read_slide(path: Path) -> UInt8Array:
    """Return all of a slide that OpenSlide reads."""
    slide = SlideFile(path)
    pixels = slide.read(0, 0, slide.width_px, slide.height_px)
    slide.close()
    return pixels


def read_tiled_tiff(path: Path) -> UInt8Array:
    """Return the picture of `os1_detail_he.ome.tif`: JPEG tiles of 512 px, complete each."""
    data = path.read_bytes()
    entries, place = {}, struct.unpack(">I", data[4:8])[0]
    for k in range(struct.unpack(">H", data[place : place + 2])[0]):
        tag, _, count, value = struct.unpack(
            ">HHII", data[place + 2 + 12 * k : place + 14 + 12 * k]
        )
        entries[tag] = (count, value)
    width, height, side = entries[256][1], entries[257][1], entries[322][1]
    count, starts = entries[324]
    lengths = entries[325][1]
    columns = -(-width // side)
    whole = np.zeros((-(-height // side) * side, columns * side, 3), np.uint8)
    for k in range(count):
        start, length = (
            struct.unpack(">I", data[a + 4 * k : a + 4 * k + 4])[0] for a in (starts, lengths)
        )
        tile = cv2.imdecode(np.frombuffer(data[start : start + length], np.uint8), cv2.IMREAD_COLOR)
        row, column = divmod(k, columns)
        whole[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile[:, :, ::-1]
    return whole[:height, :width]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Read real slides without a stage, by hand paths.")
    parser.add_argument("seeds", type=int, nargs="?", default=3, help="paths of each (default: 3)")
    seeds, out = range(parser.parse_args().seeds), sys.stdout
    cmu, os1 = (
        read_slide(DATA / "cmu1_small_region.svs"),
        read_tiled_tiff(DATA / "os1_detail_he.ome.tif"),
    )
    sets = [
        ("cmu1", cmu, 0.499, 224, (512, 384), 200),
        ("cmu1", cmu, 0.499, 224, (1024, 768), 200),
        ("os1", os1, 0.2271, 128, (320, 240), 200),
    ]
    out.write(
        "slide field      sd seed  fields accepted dup unlocated other  cells clean common twice"
        "  astray  error end/max (cells)  ms/field  score diff\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for (name, slide, mpp, tile, field, count), sd, seed in itertools.product(
            sets, (0.0, 3.0), seeds
        ):
            bundle = write_small_bundle(
                Path(folder) / f"{name}-{field[0]}-{sd}-{seed}", tile_px=tile, mpp=mpp
            )
            height, width = slide.shape[:2]
            path = hand_path(width, height, *field, count, seed, tissue_of(slide))
            r = read_by_hand(slide, path, field, bundle, mpp=mpp, deviation=sd)
            v, t = r.verdicts, r.truth
            main_ones = v[Verdict.ACCEPTED], v[Verdict.DUPLICATE], v[Verdict.UNLOCATED]
            out.write(
                f"{name:5s} {field[0]:4d}x{field[1]:<4d}  {sd:2.0f} {seed:4d}  {count:6d} "
                f"{main_ones[0]:8d} {main_ones[1]:3d} {main_ones[2]:9d} "
                f"{count - sum(main_ones):5d}  {len(t.places):5d} {len(r.clean):5d} "
                f"{len(t.places & r.clean):6d} {t.twice:5d}  {t.astray:6.3f}  "
                f"{t.end_error:9.4f} {t.largest_error:7.4f}  "
                f"{1000 * r.seconds:12.0f}  {r.score_difference:10.1e}\n"
            )
            out.flush()


if __name__ == "__main__":
    main()
