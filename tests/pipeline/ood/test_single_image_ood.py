"""`judge` with a bundle's reference: pictures unlike it are refused, in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from small_bundle import FEATURES, write_small_bundle

from edge_mil.bundle import Bundle
from edge_mil.demo.painted_slide import paint_slide
from edge_mil.imaging import GridGeometry
from edge_mil.imaging.quality.single_image import ImageQuality
from edge_mil.pipeline import load_model
from edge_mil.pipeline.ood.reference import DISTANCE, REFERENCE_FILE
from edge_mil.pipeline.ood.single_image_ood import SingleImageOod
from edge_mil.types import UInt8Array, Verdict

TILE_PX, MPP = 64, 0.5


@pytest.fixture(scope="module")
def field() -> UInt8Array:
    slide = paint_slide(3, positive=True, height_px=1024, width_px=1280).pixels
    return np.ascontiguousarray(slide[300:780, 300:940])


def bundle_with_limit(folder: Path, limit: float) -> Bundle:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        tiles=np.zeros((1, TILE_PX, TILE_PX, 3), np.uint8),
        features=np.zeros((1, FEATURES), np.float32),
        distance_mean=np.zeros(FEATURES),
        distance_axes=np.eye(FEATURES)[:2],
        distance_bank=np.zeros((8, 2)),
        distance_limit=limit,
        distance_field_limit=limit,
        distance_false_alarm=0.01,
        distance_field_false_alarm=0.01,
    )
    return write_small_bundle(folder, tile_px=TILE_PX, more={REFERENCE_FILE: buffer.getvalue()})


@pytest.mark.parametrize(("limit", "alike"), [(1e9, True), (0.0, False)])
def test_the_distance_to_the_reference_decides(
    tmp_path: Path, field: UInt8Array, limit: float, alike: bool
) -> None:
    judged = ImageQuality(GridGeometry(MPP, TILE_PX, TILE_PX, MPP)).evaluate(field)
    assert judged.verdict is Verdict.ACCEPTED
    model = load_model(bundle_with_limit(tmp_path / "bundle", limit))
    assert SingleImageOod.supports(model.bundle)
    found = SingleImageOod(model, GridGeometry(MPP, TILE_PX, TILE_PX, MPP)).evaluate(judged, field)
    model.close()
    assert [measure.name for measure in found.measures] == [DISTANCE]
    assert found.measures[0].threshold == limit
    assert (found.words == "") is alike


def test_images_alone_cannot_be_compared_with_a_bundle_without_a_reference(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", tile_px=TILE_PX)
    assert not SingleImageOod.supports(bundle)
