"""Write sessions as this release stores them, to be opened by every later one.

Run it once for a release, before its code changes::

    .venv-dev/bin/python tests/data/make_stored_sessions.py tests/data/stored_sessions/RELEASE

Each folder holds the bundle, the session's file in the middle of its work, and what was answered.
`tests/session/test_stored_sessions.py` opens them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from live_heads import exported
from msgspec import structs
from painted_field import MPP, field, painted
from small_bundle import write_small_bundle
from textured_slide import textured_slide

from edge_mil.bundle import Bundle, pack_bundle, write_bundle
from edge_mil.pipeline import load_model
from edge_mil.session import Session, SessionFolder, SessionSettings
from edge_mil.types import Frame

PAINTED = painted()
GRID = [(x, y) for y in (0, 200) for x in (0, 150, 300)]
NO_STAGE_PATH = [(0, 0), (120, 20), (240, 30), (250, 140), (130, 150), (10, 130), (0, 10), (60, 60)]


def on_a_stage(step: int) -> Frame:
    """Return a field whose stage position is known."""
    x, y = GRID[step % len(GRID)]
    return field(PAINTED, x, y)


def by_hand(step: int) -> Frame:
    """Return a field of a slide that is moved by hand."""
    x, y = NO_STAGE_PATH[step % len(NO_STAGE_PATH)]
    slide = textured_slide(700, 500)
    return Frame(slide[y : y + 192, x : x + 256].copy())


def independent(step: int) -> Frame:
    """Return a field that has the name of its location."""
    x, y = GRID[step % len(GRID)]
    frame = field(PAINTED, x, y)
    return Frame(frame.pixels, location_id=f"field-{step % len(GRID)}")


def banked_bundle(folder: Path) -> Bundle:
    """Return a small extractor with a DSMIL head of fresh weights."""
    plain = write_small_bundle(folder / "plain")
    head = exported("dsmil", {"value_activation": "relu"}, folder)
    files = {"extractor.onnx": plain.read("extractor.onnx"), **head.graphs}
    manifest = structs.replace(plain.manifest, aggregator=head.spec, task=head.task, files={})
    return write_bundle(manifest, files, folder / "whole")


CASES: dict[
    str, tuple[Callable[[Path], Bundle], SessionSettings, Callable[[int], Frame], int, int]
] = {
    "grid_on_a_stage": (
        lambda p: write_small_bundle(p / "b", channels=2),
        SessionSettings(mpp=MPP, slide_label="label"),
        on_a_stage,
        5,
        2,
    ),
    "grid_by_hand": (
        lambda p: write_small_bundle(p / "b"),
        SessionSettings(mpp=MPP, stage=False),
        by_hand,
        7,
        0,
    ),
    "fields_on_a_stage": (
        lambda p: write_small_bundle(p / "b", instances="field"),
        SessionSettings(mpp=MPP),
        on_a_stage,
        5,
        1,
    ),
    "independent_fields": (
        lambda p: write_small_bundle(p / "b", instances="field"),
        SessionSettings(mpp=MPP, independent=True),
        independent,
        5,
        3,
    ),
    "banked_head": (banked_bundle, SessionSettings(mpp=MPP), on_a_stage, 5, 0),
}
"""Name -> (bundle, settings, field of a step, fields before the file was kept, field removed)."""


def numbers(session: Session) -> dict[str, object]:
    """Return what must be the same to the bit after the session is opened again."""
    score = session.score()
    assert score is not None
    return {
        "logits": [value.hex() for value in score.logits],
        "probabilities": [value.hex() for value in score.probabilities],
        "instances": score.instances,
        "coverage": session.status().coverage.hex(),
        "answers": [
            {
                "sequence": f.sequence,
                "verdict": f.verdict.name,
                "cells": f.cells,
                "x_um": f.x_um,
                "y_um": f.y_um,
                "logits": [v.hex() for v in f.result.score.logits] if f.result.score else None,
            }
            for f in session.fields()
        ],
    }


def main(out: Path) -> None:
    """Write every case."""
    for name, (make, settings, frame, count, removed) in CASES.items():
        kept = out / name
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            bundle = make(Path(work))
            model = load_model(bundle)
            folder = SessionFolder(Path(work) / "state")
            session = folder.create(model, settings)
            for step in range(count):
                session.add(frame(step))
            if removed:
                session.remove(removed, "by hand")
            expected: dict[str, object] = {"session": session.session_id, "kept": numbers(session)}
            session._store.flush()
            path = folder.summary(session.session_id).path
            session.release()
            shutil.copy(path, kept / "session.db")
            session = folder.open(session.session_id, lambda _, model=model: model)
            for step in range(count, count + 3):
                session.add(frame(step))
            expected["gone_on"] = numbers(session)
            session.release()
            model.close()
            pack_bundle(bundle, kept / "bundle.milb")
        (kept / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
