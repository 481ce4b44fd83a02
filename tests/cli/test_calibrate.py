"""`edge-mil calibrate`: parts of a named calibration from folders of images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from painted_field import field, painted
from shared_data import shared
from small_bundle import write_small_bundle

from edge_mil.bundle import StainSpec
from edge_mil.calibration import CalibrationFolder
from edge_mil.cli import main

WIDTH, HEIGHT = 256, 192


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), cv2.cvtColor(pixels.astype(np.uint8), cv2.COLOR_RGB2BGR))


def glass(
    folder: Path,
    count: int = 5,
    level: tuple[int, int, int] = (230, 215, 200),
    depth: float = 0.4,
) -> Path:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    light = 1 - depth * ((x / WIDTH - 0.5) ** 2 + (y / HEIGHT - 0.5) ** 2)[..., None] * 2
    for number in range(count):
        write(folder, f"{number}.png", np.rint(light * np.array(level)))
    return folder


def moves(folder: Path) -> Path:
    slide, lines = painted(640, 480), ["file,x_um,y_um"]
    for number, (x, y) in enumerate([(0, 0), (90, 6), (8, 70), (96, 66), (180, 72)]):
        view = field(slide, x, y, WIDTH, HEIGHT)
        write(folder, f"m{number}.png", view.pixels)
        lines.append(f"m{number}.png,{view.x_um},{view.y_um}")
    (folder / "positions.csv").write_text("\n".join(lines))
    return folder


def tissue(folder: Path, count: int = 6) -> Path:
    for number in range(count):
        write(folder, f"t{number}.png", field(painted(seed=number), 0, 0, WIDTH, HEIGHT).pixels)
    return folder


def run(state: Path, *words: object) -> int:
    return main(["calibrate", *map(str, words), "--state", str(state)])


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


def test_part_by_part_a_calibration_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, name = tmp_path / "state", ("--name", "20x", "--json")
    empty, dark = glass(tmp_path / "glass"), glass(tmp_path / "dark", 2, (6, 6, 6))
    assert run(state, "flat-field", empty, *name, "--objective", "20x", "--dark", dark) == 0
    flat = document(capsys)
    assert set(flat["measured"]) == {"flat-field", "dark-frame"}
    assert flat["figures"]["flat_field_variation_after"] < 0.01
    assert run(state, "white-balance", empty, *name) == 0
    white = document(capsys)
    assert len(set(white["background"])) == 1
    assert white["white_gains"][0] == 1
    assert run(state, "pixel-size", moves(tmp_path / "moves"), *name, "--mpp", 0.5) == 0
    size = document(capsys)
    assert size["mpp"] == pytest.approx(0.5, rel=0.01)
    assert size["stage_affine"] == pytest.approx([0.5, 0, 0, 0.5], abs=0.005)
    assert run(state, "gates", tissue(tmp_path / "tissue"), *name) == 0
    gates = document(capsys)
    assert {h["name"] for h in gates["histograms"]} == {"clipped_share", "stillness", "focus"}
    assert run(state, "stain", tmp_path / "tissue", *name) == 0
    assert document(capsys)["stain"]["mean"]
    assert run(state, "list") == 0
    line = capsys.readouterr().out
    assert line.startswith("20x")
    assert "dark-frame, flat-field, gates, pixel-size, stain, white-balance" in line
    assert run(state, "list", "--max-age-days", "0") == 0
    assert "STALE" in capsys.readouterr().out
    assert run(state, "show", "20x", "--json") == 0
    digest = document(capsys)["digest"]
    assert CalibrationFolder(state).load("20x").digest == digest


def test_the_gates_come_with_their_histograms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "gates", tissue(tmp_path / "tissue"), "--name", "a") == 0
    printed = capsys.readouterr().out
    assert "focus (6 fields)" in printed
    assert "####" in printed
    assert printed.count("<- threshold") == 3


def test_a_new_flat_field_says_what_must_be_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = glass(tmp_path / "glass")
    for part in ("flat-field", "white-balance"):
        assert run(tmp_path, part, empty, "--name", "a") == 0
    capsys.readouterr()
    assert run(tmp_path, "flat-field", empty, "--name", "a") == 0
    assert "so measure again: white-balance" in capsys.readouterr().out
    assert CalibrationFolder(tmp_path).load("a").background is None


def test_a_ruler_gives_the_pixel_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.arange(600)[None, :, None]
    lines = np.where(x % 40 < 6, 60, 220) * np.ones((400, 1, 3))
    write(tmp_path / "ruler", "r.png", lines)
    words = ("--name", "r", "--distance-um", "10", "--json")
    assert run(tmp_path, "pixel-size", tmp_path / "ruler", *words) == 0
    found = document(capsys)
    assert found["mpp"] == pytest.approx(0.25, rel=1e-3)
    assert found["stage_affine"] is None


@pytest.mark.shared
def test_the_real_frames_lose_their_shading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared("data/brightfield_shading")
    assert run(tmp_path, "flat-field", folder, "--name", "lapse", "--json") == 0
    figures = document(capsys)["figures"]
    before, after = (figures[f"flat_field_variation_{when}"] for when in ("before", "after"))
    assert before > 0.2
    assert after < before / 20


@pytest.mark.shared
def test_slide_takes_the_stain_of_a_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = (240.0, 240.0, 240.0), (50.0, 20.0, -20.0), (12.0, 8.0, 6.0)
    bundle = write_small_bundle(tmp_path / "bundle", stain=StainSpec("reinhard", *profile))
    slide = str(shared("data/slides") / "cmu1_small_region.svs")
    words = ["slide", str(bundle.path), slide, "--state", str(tmp_path), "--json"]
    assert main(words) == 2
    assert "edge-mil calibrate stain" in capsys.readouterr().err
    assert run(tmp_path, "stain", shared("data/osteosarcoma_he"), "--name", "batch") == 0
    capsys.readouterr()
    assert main([*words, "--calibration", "batch"]) == 0
    assert document(capsys)["score"] is not None


WRONG = {
    "no folder": (("flat-field", "nowhere"), "is no folder"),
    "too few": (("flat-field", "two"), "needs 4"),
    "tissue for glass": (("white-balance", "tissue"), "no empty glass"),
    "no positions": (("pixel-size", "tissue"), "has no position"),
    "light in the dark": (("flat-field", "glass", "--dark", "glass"), "light still reaches"),
    "no ruler": (("pixel-size", "tissue", "--distance-um", "10"), "no regular lines"),
    "negative distance": (("pixel-size", "glass", "--distance-um", "-1"), "must be positive"),
    "glass for tissue": (("stain", "even"), "0 pixels of stained tissue"),
    "no tissue for gates": (("gates", "even"), "show tissue"),
    "glass for gates": (("gates", "glass"), "0 of the frames show tissue"),
    "a name with a slash": (("flat-field", "glass", "--name", "a/b"), "cannot be called"),
    "nonsense pixel size": (("flat-field", "glass", "--mpp", "0"), "outside of"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_one_sentence_and_stores_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    glass(tmp_path / "glass")
    glass(tmp_path / "even", 5, (241, 241, 241), 0.0)
    glass(tmp_path / "two", 2)
    tissue(tmp_path / "tissue", 4)
    monkeypatch.chdir(tmp_path)
    name = () if "--name" in words else ("--name", "x")
    assert run(tmp_path / "state", *words, *name) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "state").exists()


def test_another_objective_under_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = glass(tmp_path / "glass")
    assert run(tmp_path, "flat-field", empty, "--name", "a", "--objective", "20x") == 0
    assert run(tmp_path, "flat-field", empty, "--name", "a", "--objective", "40x") == 2
    assert "another objective" in capsys.readouterr().err
    assert run(tmp_path, "white-balance", empty, "--name", "a") == 0


def test_nothing_measured_yet_is_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "list") == 0
    assert "No calibration" in capsys.readouterr().out
    assert run(tmp_path, "show", "x") == 2
    assert "none yet" in capsys.readouterr().err
