"""The demo's bundle, a painted slide, and cameras that look at it: what passports are tested on."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from array_slide import ArraySlide
from simulated_camera import SimulatedCamera

from edge_mil.bundle import InputSpec, open_bundle
from edge_mil.calibration.passport import (
    BundleIdentity,
    CameraPassport,
    Pairs,
    measure_passport,
    pair_fields,
)
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import BUNDLE
from edge_mil.pipeline import Model, load_model
from edge_mil.pipeline.tile_scorer import ModelTileScorer
from edge_mil.types import Frame, UInt8Array

SLIDE_PX = (1200, 1600)
FIELD_PX = (400, 512)
FIELDS = 12
NOW = 1e9


@functools.cache
def painted_slide(seed: int) -> UInt8Array:
    """Return a painted slide with tissue on about half of it."""
    height, width = SLIDE_PX
    return paint_slide(seed, positive=True, height_px=height, width_px=width).pixels


@functools.cache
def demo_model() -> Model:
    """Return the demo's model on one thread; it is never closed."""
    return load_model(open_bundle(BUNDLE), threads=1)


def demo_spec() -> InputSpec:
    """Return what the demo's bundle takes."""
    spec = demo_model().input
    assert spec is not None
    return spec


def corners(slide: UInt8Array, count: int = FIELDS, seed: int = 3) -> Iterator[tuple[int, int]]:
    """Yield the corners (x, y) of fields with tissue, at random places."""
    chance = np.random.default_rng(seed)
    height, width = FIELD_PX
    while count:
        x = int(chance.integers(0, slide.shape[1] - width))
        y = int(chance.integers(0, slide.shape[0] - height))
        if float((slide[y : y + height, x : x + width].min(axis=2) < 200).mean()) > 0.5:
            count -= 1
            yield x, y


def fields(
    camera: SimulatedCamera, slide: UInt8Array, count: int = FIELDS, seed: int = 3
) -> Iterator[Frame]:
    """Yield a camera's fields of a slide, without positions."""
    for number, (x, y) in enumerate(corners(slide, count, seed)):
        yield Frame(camera.field(slide, x, y, FIELD_PX), name=f"{number:02}.png")


def pairs_of(frames: Iterator[Frame] | list[Frame], slide: UInt8Array) -> Pairs:
    """Pair frames with a slide."""
    return pair_fields(frames, ArraySlide(slide, MPP), demo_spec(), MPP, lambda pixels: pixels)


def passport_of(pairs: Pairs) -> CameraPassport:
    """Measure a passport with the demo's bundle."""
    bundle = demo_model().bundle
    identity = BundleIdentity(bundle.digest, bundle.manifest.name, "fp32")
    scorer = ModelTileScorer(demo_model())
    return measure_passport(pairs, scorer, identity, mpp=MPP, now=NOW)
