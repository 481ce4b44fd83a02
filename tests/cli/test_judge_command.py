"""`edge-mil judge`: one entry for each image, in name order, whatever is in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_bundle import write_small_bundle

from edge_mil.cli import main
from edge_mil.demo.painted_slide import paint_slide
from edge_mil.types import UInt8Array


def write(path: Path, pixels: UInt8Array) -> None:
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good field, the same out of focus, shaded glass, too much light, and no image at all."""
    root = tmp_path_factory.mktemp("frames")
    slide = paint_slide(3, positive=True, height_px=1024, width_px=1280).pixels
    field = np.ascontiguousarray(slide[300:780, 300:940])
    rng = np.random.default_rng(0)
    blurred = cv2.blur(cv2.blur(field, (13, 13)), (7, 7)).astype(np.float32)
    noisy = np.clip(np.rint(blurred + rng.normal(0, 4, field.shape)), 0, 255).astype(np.uint8)
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    light = 235.0 * (1.0 - 0.3 * (x**2 + y**2) / 2)
    glass = np.repeat(light[..., None], 3, axis=2) + rng.normal(0, 2, field.shape)
    write(root / "a_good.png", field)
    write(root / "b_blurred.png", noisy)
    write(root / "c_glass.png", np.clip(np.rint(glass), 0, 255).astype(np.uint8))
    write(root / "d_bright.png", np.clip(field * 1.8, 0, 255).astype(np.uint8))
    (root / "e_torn.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def run(*words: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["judge", *map(str, words), "--json"]) == 0
        frames: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["frames"]
        return frames

    return run


def test_each_image_gets_its_verdict_in_name_order(
    judge: Callable[..., list[dict[str, Any]]], folder: Path
) -> None:
    frames = judge(folder)
    assert [(frame["file"][0], frame["verdict"]) for frame in frames] == [
        ("a", "ACCEPTED"),
        ("b", "BLURRED"),
        ("c", "BLANK"),
        ("d", "SATURATED"),
        ("e", None),
    ]
    assert "truncated or no image" in frames[-1]["error"]


def test_numbers_have_thresholds_and_sharpness_is_comparable(
    judge: Callable[..., list[dict[str, Any]]], folder: Path
) -> None:
    good, blurred = judge(folder)[:2]
    assert good["focus"] >= good["focus_threshold"] > blurred["focus"]
    assert good["sharpness"] > blurred["sharpness"]


def test_a_bundle_gives_its_cells(
    judge: Callable[..., list[dict[str, Any]]], folder: Path, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", tile_px=64)
    frames = judge(folder, "--bundle", bundle.path, "--mpp", 0.5)
    assert frames[0]["verdict"] == "ACCEPTED"
    assert frames[2]["verdict"] == "BLANK"


def test_the_operator_reads_what_to_do(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["judge", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "out of focus: turn the fine focus" in said
    assert "1 ACCEPTED" in said
    assert "Research use only" in said


@pytest.mark.parametrize(("name", "words"), [("nowhere", "no folder"), ("", "holds no images")])
def test_a_folder_without_images_is_a_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, words: str
) -> None:
    assert main(["judge", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err


def test_a_camera_too_coarse_for_the_cells_is_a_mistake(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(["judge", str(folder), "--mpp", "2"]) == 2
    assert "stronger objective" in capsys.readouterr().err
