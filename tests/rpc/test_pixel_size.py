"""The pixel size from what a client says: precedence, agreement, nonsense."""

from __future__ import annotations

import pytest

from edge_mil.errors import PixelSizeError
from edge_mil.rpc.pixel_size import resolve_mpp
from edge_mil.v1.edge_mil_pb2 import Optics

GOOD = {
    "declared": (Optics(mpp=0.25), 0.25, "declared"),
    "optics": (Optics(camera_pixel_um=3.45, objective_magnification=10), 0.345, "optics"),
    "binning": (Optics(camera_pixel_um=5, objective_magnification=20, binning=2), 0.5, "optics"),
    "tube": (Optics(camera_pixel_um=5, objective_magnification=20, tube_factor=0.5), 0.5, "optics"),
    "both agree": (
        Optics(mpp=0.26, camera_pixel_um=5, objective_magnification=20),
        0.26,
        "declared",
    ),
}


@pytest.mark.parametrize(("optics", "mpp", "source"), GOOD.values(), ids=GOOD.keys())
def test_the_first_source_given_counts(optics: Optics, mpp: float, source: str) -> None:
    assert resolve_mpp(optics) == (pytest.approx(mpp), source)


BAD = {
    "nothing": (Optics(), "PIXEL_SIZE_UNKNOWN"),
    "half": (Optics(camera_pixel_um=5), ""),
    "negative": (Optics(camera_pixel_um=-5, objective_magnification=20), ""),
    "zero": (Optics(mpp=0.0), ""),
    "infinite": (Optics(mpp=float("inf")), ""),
    "disagree": (
        Optics(mpp=0.5, camera_pixel_um=5, objective_magnification=20),
        "OPTICS_MISMATCH",
    ),
    "just too far": (
        Optics(mpp=1.0, camera_pixel_um=10.51, objective_magnification=10),
        "OPTICS_MISMATCH",
    ),
}


@pytest.mark.parametrize(("optics", "reason"), BAD.values(), ids=BAD.keys())
def test_it_is_never_guessed(optics: Optics, reason: str) -> None:
    with pytest.raises(PixelSizeError) as caught:
        resolve_mpp(optics)
    assert caught.value.details.get("reason", "") == reason


def test_a_client_that_insists_gets_its_pixel_size() -> None:
    optics = Optics(mpp=0.5, camera_pixel_um=20, objective_magnification=10, insist_mpp=True)
    assert resolve_mpp(optics) == (0.5, "insisted")
    assert resolve_mpp(Optics(mpp=0.5, insist_mpp=True), 0.25) == (0.5, "insisted")
    with pytest.raises(PixelSizeError, match="outside of"):
        resolve_mpp(Optics(mpp=500, insist_mpp=True))


@pytest.mark.parametrize("label", ["40x/0.65", "40 X Plan", " 40×"])
def test_an_objective_whose_label_contradicts_its_magnification_is_refused(label: str) -> None:
    optics = Optics(camera_pixel_um=5, objective_magnification=20, objective_label=label)
    with pytest.raises(PixelSizeError, match=r"40.*20") as caught:
        resolve_mpp(optics)
    assert caught.value.details["reason"] == "OPTICS_MISMATCH"
    for same in ("20x/0.5", "Plan Apo", "the right one"):
        optics.objective_label = same
        assert resolve_mpp(optics) == (0.25, "optics")


def test_a_calibrations_pixel_size_wins() -> None:
    assert resolve_mpp(Optics(mpp=0.5), 0.49) == (0.49, "calibration")
    assert resolve_mpp(Optics(), 0.49) == (0.49, "calibration")


def test_a_calibration_without_a_pixel_size_leaves_it_to_the_client() -> None:
    assert resolve_mpp(Optics(mpp=0.5, calibration_id="c"), None) == (0.5, "declared")
    with pytest.raises(PixelSizeError):
        resolve_mpp(Optics(calibration_id="c"), None)
