"""From `edge-mil calibrate` to a live score over a socket: it equals `edge-mil slide`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from painted_field import MPP, painted
from running_service import RunningService
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.bundle import StainSpec
from edge_mil.cameras import Imperfections, ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.imaging.correction.stain import fit_profile
from edge_mil.session import SessionFolder

FIELD_PX = (320, 256)
GLASS = (240.0, 240.0, 240.0)
NAME = ("--name", "20x")


def write(folder: Path, number: int, pixels: object) -> None:
    folder.mkdir(exist_ok=True)
    bgr = cv2.cvtColor(np.asarray(pixels, np.uint8), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / f"{number:03}.png"), bgr)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide of another stain batch, with a margin of glass.

    The tissue thins out over some pixels: an edge cut with a ruler looks like a doubled exposure.
    """
    batch = painted(1024, 896, seed=4) * (0.9, 1.05, 1.15) + (20, 0, -8)
    whole = np.full((1152, 1280, 3), 240.0)
    whole[128:1024, 128:1152] = np.clip(batch, 0, 225)
    tissue = np.zeros((1152, 1280), np.float32)
    tissue[140:1012, 140:1140] = 1.0
    thickness = cv2.GaussianBlur(tissue, (0, 0), 4.0)[..., None]
    pixels = np.rint(240.0 + (whole - 240.0) * thickness).astype(np.uint8)
    return write_tiled_tiff(tmp_path / "slide.tiff", pixels, MPP)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    target = fit_profile(painted(seed=3), GLASS)
    numbers = (target.background, target.mean, target.deviation, target.stains, target.reach)
    path = tmp_path / "bundle"
    write_small_bundle(path, channels=2, stain=StainSpec("reinhard", *numbers))
    return path


def test_a_calibrated_session_ends_on_the_score_of_the_slide(
    slide: Path, bundle: Path, tmp_path: Path, edge_mil: Callable[..., dict[str, Any]]
) -> None:
    state = tmp_path / "state"
    faults = Imperfections(vignette=0.4)
    microscope = VirtualMicroscope(SlideFile(slide), ScanPlan(), FIELD_PX, faults=faults)
    for number, glass in enumerate(microscope.glass_frames(5)):
        write(tmp_path / "glass", number, glass.pixels)
    for number, frame in enumerate(microscope.frames()):
        write(tmp_path / "scan", number, frame.pixels)
    microscope.close()

    for verb, folder in (
        ("flat-field", "glass"),
        ("white-balance", "glass"),
        ("gates", "scan"),
        ("stain", "scan"),
    ):
        edge_mil("calibrate", verb, tmp_path / folder, *NAME, "--mpp", MPP, "--state", state)
    batch = edge_mil("slide", bundle, slide, "--calibration", "20x", "--state", state)
    plain = edge_mil("calibrate", "show", "20x", "--state", state)
    assert set(plain["measured"]) == {"flat-field", "white-balance", "gates", "stain"}

    service = RunningService(bundle, tmp_path)
    try:
        words = ("stream", slide, "--server", service.address, "--calibration", "20x")
        live = edge_mil(*words, "--fov", "320x256", "--vignette", "0.4", "--dwell", "20")
    finally:
        assert service.stop() == 0
    assert live["instances"] == batch["instances"]
    logits = [np.array(found["score"]["logits"]) for found in (live, batch)]
    assert np.abs(logits[0] - logits[1]).max() < 0.01 * np.abs(logits[1]).max()
    assert set(live["fields"]) <= {"ACCEPTED", "DUPLICATE", "BLANK"}

    summary = SessionFolder(state).summary(live["session"])
    assert summary.settings.calibration_id == "20x"
    assert summary.settings.gates is not None
    assert summary.settings.background is not None
    shown = edge_mil("session", "show", live["session"], "--state", state)
    assert (shown["calibration"], shown["mpp_source"]) == ("20x", "calibration")
    assert shown["calibration_digest"] == summary.settings.calibration_digest
