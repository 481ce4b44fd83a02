"""How a camera lies on the stage, from what the client says."""

from __future__ import annotations

import math

import pytest

from edge_mil.errors import PixelSizeError, UsageError
from edge_mil.rpc.pixel_size import resolve_stage_affine
from edge_mil.v1 import edge_mil_pb2 as pb

MPP = 0.5


def test_a_straight_camera_has_no_affine() -> None:
    assert resolve_stage_affine(pb.StageFrame(unit="um"), MPP) is None


CASES = {
    "x flipped": (pb.StageFrame(x_flipped=True), (-0.5, 0, 0, 0.5)),
    "y flipped": (pb.StageFrame(y_flipped=True), (0.5, 0, 0, -0.5)),
    "a quarter turn": (pb.StageFrame(rotation_deg=90), (0, -0.5, 0.5, 0)),
    "a turn after a flip": (pb.StageFrame(x_flipped=True, rotation_deg=90), (0, -0.5, -0.5, 0)),
    "Micro-Manager's": (
        pb.StageFrame(pixel_size_affine=[0.49, 0.02, 700, -0.02, 0.51, 9]),
        (0.49, 0.02, -0.02, 0.51),
    ),
}


@pytest.mark.parametrize(("stage", "affine"), CASES.values(), ids=CASES.keys())
def test_flips_rotation_and_affine(stage: pb.StageFrame, affine: tuple[float, ...]) -> None:
    assert resolve_stage_affine(stage, MPP) == pytest.approx(affine, abs=1e-12)


@pytest.mark.parametrize("numbers", [[1, 0, 0, 0, 1, 0], [0.5, 0, 0, 0, 0.37, 0], [0] * 6])
def test_a_scale_that_is_not_the_pixel_size_is_refused_with_both(numbers: list[float]) -> None:
    with pytest.raises(PixelSizeError, match=r"scale of .* pixel size is 0\.5.*25%"):
        resolve_stage_affine(pb.StageFrame(pixel_size_affine=numbers), MPP)
    near = [0.5 * 1.24 * math.cos(1), -0.3, 0, 0.3, 0.5 * 1.24 * math.cos(1), 0]
    assert resolve_stage_affine(pb.StageFrame(pixel_size_affine=near), MPP) is not None


@pytest.mark.parametrize("numbers", [[0.5] * 4, [math.nan, 0, 0, 0, 0.5, 0]])
def test_an_affine_is_six_finite_numbers(numbers: list[float]) -> None:
    with pytest.raises(UsageError, match="six finite numbers"):
        resolve_stage_affine(pb.StageFrame(pixel_size_affine=numbers), MPP)
