"""`edge-mil bench imaging`: milliseconds of a field of 2448 x 2048 px from camera to tiles.

Everything runs on one core and is timed by the processor time of its thread, step by step and next
to the bare OpenCV calls of the step; of several rounds the fastest counts, so that a busy machine
does not decide. The whole path is timed separately, by the session's own code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_mil.cli.arguments import Subparsers, add_json
from edge_mil.cli.bench.imaging_fields import (
    FIELD_PX,
    MPP,
    SPEC,
    large_image,
    path,
    shading,
    without_positions,
)
from edge_mil.cli.bench.imaging_steps import STEPS, SteppedPath, StepTimer
from edge_mil.cli.console import print_table
from edge_mil.errors import UsageError
from edge_mil.imaging import GridGeometry, TissueTest, resample_cell, thumbnail_jpeg
from edge_mil.imaging.correction.noise import noise_reduction
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import StainTransform, fit_profile
from edge_mil.imaging.quality.gate import FrameGate, GateSettings
from edge_mil.imaging.quality.motion import displacement_px
from edge_mil.imaging.render.mosaic_canvas import MosaicCanvas
from edge_mil.session.field.gate import FieldGate
from edge_mil.session.instances.base import Localizer
from edge_mil.session.instances.grid_instances import GridInstances
from edge_mil.session.instances.registration_localizer import RegistrationLocalizer
from edge_mil.session.instances.stage_localizer import StageLocalizer
from edge_mil.session.settings import SessionSettings
from edge_mil.session.view.mosaic_view import FINEST_UM
from edge_mil.types import Frame, UInt8Array

ROUNDS = 12
"""Repetitions of which the fastest counts."""

WHOLE = "the whole path"

GOAL_MS, GOAL_RATIO = 25.0, 1.3
"""Goals for the path on one core: milliseconds, and the ratio to the bare calls."""

OBJECTIVES = {"4x": 2.52, "10x": 1.01, "20x": 0.504, "40x": 0.252, "63x": 0.101}
"""Objective -> pixel size, µm/px: never a whole number of pixels to a cell, which costs most."""

Rows = dict[str, float]


def add_parser(subparsers: Subparsers) -> None:
    """Add `imaging`."""
    line = "measure the milliseconds of a camera field on one core, step by step"
    parser = subparsers.add_parser("imaging", help=line, description=line)
    parser.add_argument(
        "--slide",
        type=Path,
        metavar="SLIDE",
        help="a slide of real tissue (default: the demo's painted slide)",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", default=ROUNDS, help="default: %(default)s"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print the tables.

    Raises:
        EdgeMilError: The slide cannot be read or is too small, or there is no round.
    """
    if args.rounds < 1:
        raise UsageError("--rounds must be 1 or more.")
    image, light = large_image(args.slide), shading()
    with _one_core():
        paths = {
            "nine tenths seen before": path(image, light, dense=True),
            "all new": path(image, light, dense=False),
        }
        measured = {name: _measured(frames, light, args.rounds) for name, frames in paths.items()}
        apart = _apart(paths["nine tenths seen before"], light, args.rounds)
    if args.json:
        print(json.dumps({"field_px": FIELD_PX[::-1], "mpp": MPP, **_document(measured, apart)}))
    else:
        _print(measured, apart)
    return 0


@contextmanager
def _one_core() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _measured(
    frames: Sequence[Frame], light: ShadingCorrection, rounds: int
) -> tuple[Rows, Rows, float]:
    """Return the milliseconds of each step and of its bare calls, and the number of fields.

    Of each field the fastest round counts, and of the path the mean without the first field, which
    opens the session.
    """
    steps: list[list[Rows]] = []
    bare: list[list[Rows]] = []
    for _ in range(rounds):
        stepped, whole = SteppedPath(light), _whole(frames, light)
        taken = [stepped.take(number, frame) for number, frame in enumerate(frames, start=1)]
        steps.append([{**ours, WHOLE: ms} for (ours, _), ms in zip(taken, whole, strict=True)])
        bare.append([theirs for _, theirs in taken])
    return _fastest(steps), _fastest(bare), float(len(frames))


def _fastest(rounds: Sequence[Sequence[Rows]]) -> Rows:
    fields = range(1 if len(rounds[0]) > 1 else 0, len(rounds[0]))
    return {
        step: float(np.mean([min(taken[k][step] for taken in rounds) for k in fields]))
        for step in rounds[0][0]
    }


def _whole(frames: Sequence[Frame], light: ShadingCorrection, *, stage: bool = True) -> list[float]:
    """Return the milliseconds of each field by the session's own code."""
    tissue, settings = SPEC.tissue, SessionSettings(mpp=MPP, stage=stage)
    test = TissueTest(tissue.background, tissue.min_difference, tissue.min_share)
    gate = FieldGate(FrameGate(GateSettings(), test), light, MPP)

    instances = GridInstances(SPEC, settings, None)
    localizer: Localizer[Any] = (
        StageLocalizer(settings)
        if stage
        else RegistrationLocalizer(instances.geometry, instances.tissue)
    )

    def take(sequence: int, frame: Frame) -> None:
        gated = gate.evaluate(frame)
        placement = localizer.locate(sequence, gated.frame)
        if placement.verdict is None:
            plan = instances.plan(sequence, gated.frame, placement)
            localizer.commit(placement)
            instances.commit(plan)
        thumbnail_jpeg(gated.frame.pixels)

    spent = []
    for number, frame in enumerate(frames, start=1):
        timer = StepTimer()
        timer.time(WHOLE, lambda n=number, f=frame: take(n, f))  # type: ignore[misc]
        spent.append(timer.spent_ms[WHOLE])
    return spent


def _apart(frames: Sequence[Frame], light: ShadingCorrection, rounds: int) -> Rows:
    """Return the milliseconds of the steps that only some sessions have."""
    tissue = SPEC.tissue
    pixels = light.apply(frames[0].pixels)
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    tile = np.ascontiguousarray(pixels[:448:2, :448:2])[None]
    profile = fit_profile(pixels[::4, ::4], tissue.background)
    stains = {name: StainTransform(name, profile, profile) for name in ("macenko", "reinhard")}
    noise, thumbnail = noise_reduction(2.0, light), thumbnail_jpeg(pixels)
    assert noise is not None
    unit = np.diag((FIELD_PX[1] * MPP / 256, FIELD_PX[0] * MPP / 214))

    def add_to_mosaic() -> None:
        small = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR)
        MosaicCanvas(FINEST_UM).paint(np.asarray(small, np.uint8), 306.0, 256.0, unit)

    work: dict[str, Callable[[], object]] = {
        f"all cells of a field resampled, {objective}": _resampling(pixels, mpp)
        for objective, mpp in OBJECTIVES.items()
    }
    work |= {
        "motion between two frames of one place": lambda: displacement_px(grey, grey),
        "stain of one tile, macenko": lambda: stains["macenko"].apply(tile),
        "stain of one tile, reinhard": lambda: stains["reinhard"].apply(tile),
        "noise reduction, where noise was calibrated": lambda: noise.apply(pixels),
        "a field laid on the mosaic, when it is asked for": add_to_mosaic,
    }
    apart: Rows = {}
    for name, call in work.items():
        spent = []
        for _ in range(rounds):
            timer = StepTimer()
            timer.time(name, call)
            spent.append(timer.spent_ms[name])
        apart[name] = min(spent)
    hand = without_positions(frames)
    whole = [_whole(hand, light, stage=False) for _ in range(rounds)]
    fields = np.min(np.array(whole), axis=0)
    apart["the whole path without a stage"] = float(
        fields[1:].mean() if len(fields) > 1 else fields[0]
    )
    return apart


def _resampling(pixels: UInt8Array, mpp: float) -> Callable[[], object]:
    """Return a function that resamples every cell that lies wholly in a field."""
    geometry = GridGeometry(mpp, SPEC.tile_height_px, SPEC.tile_width_px, SPEC.mpp, True)
    height, width = pixels.shape[:2]
    boxes = [(cell, geometry.box(*cell)) for cell in geometry.cells_touching(0, 0, width, height)]
    inside = [
        (cell, pixels[box.y0 : box.y1, box.x0 : box.x1])
        for cell, box in boxes
        if min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height
    ]
    tile = np.empty((SPEC.tile_height_px, SPEC.tile_width_px, 3), np.uint8)
    return lambda: [resample_cell(part, geometry, *cell, out=tile) for cell, part in inside]


def _document(found: dict[str, tuple[Rows, Rows, float]], apart: Rows) -> dict[str, Any]:
    paths = {}
    for name, (ours, bare, fields) in found.items():
        total = sum(bare.values())
        paths[name] = {
            "fields": int(fields),
            "steps": [
                {"step": step, "ms": ours[step], "bare_ms": bare[step], "bare_calls": calls}
                for step, calls in STEPS.items()
            ],
            "whole_ms": ours[WHOLE],
            "bare_ms": total,
            "ratio": ours[WHOLE] / total,
        }
    return {"goal_ms": GOAL_MS, "goal_ratio": GOAL_RATIO, "paths": paths, "apart_ms": apart}


def _print(found: dict[str, tuple[Rows, Rows, float]], apart: Rows) -> None:
    print(
        f"fields of {FIELD_PX[1]} x {FIELD_PX[0]} px at {MPP:g} µm/px, tiles of "
        f"{SPEC.tile_width_px} px at {SPEC.mpp:g}; one core, ms of processor time"
    )
    for name, (ours, bare, fields) in found.items():
        total, steps = sum(bare.values()), sum(ours[step] for step in STEPS)
        rows = [
            (step, f"{ours[step]:.2f}", f"{bare[step]:.2f}", calls) for step, calls in STEPS.items()
        ]
        whole = (
            f"{ours[WHOLE] / total:.2f} x the bare calls (goal: {GOAL_MS:g} ms, {GOAL_RATIO:g} x)"
        )
        rows.append(("sum of the steps", f"{steps:.2f}", f"{total:.2f}", ""))
        rows.append((WHOLE, f"{ours[WHOLE]:.2f}", "", whole))
        print(f"\n{name} ({fields:.0f} fields)")
        print_table(rows, ("step", "ms", "bare", "bare calls"), right={1, 2})
    print("\napart")
    print_table([(what, f"{ms:.2f}") for what, ms in apart.items()], right={1})
