"""Calibrations on the disk: private, whole, and refused where they do not hold."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from edge_mil.bundle import InputSpec, StainSpec, TissueSpec
from edge_mil.calibration import Calibration, CalibrationFolder, OpticalPath, stain_transform
from edge_mil.calibration.calibration import DAY_S
from edge_mil.errors import CalibrationError, DamagedCalibrationError, StoreError
from edge_mil.imaging.correction.shading import ShadingCorrection
from edge_mil.imaging.correction.stain import StainProfile
from edge_mil.imaging.quality.gate_settings import GateSettings

PROFILE = StainProfile(
    (240.0, 240.0, 240.0),
    (60.0, 20.0, -15.0),
    (9.0, 6.0, 4.0),
    (0.65, 0.70, 0.29, 0.07, 0.99, 0.11),
    (1.2, 0.8),
)
NOW = 1.8e9


def calibration(name: str = "20x") -> Calibration:
    light = np.linspace(0.5, 1, 24, dtype=np.float32).reshape(2, 4, 3)
    return Calibration(
        name=name,
        optics=OpticalPath("IMX250", "20x/0.45", "1x"),
        measured={"flat-field": NOW, "pixel-size": NOW + 5},
        mpp=0.5,
        shading=ShadingCorrection(light, (20, 40), np.full_like(light, 2), (1.1, 1.0, 1.2)),
        background=(236.0, 236.0, 236.0),
        stage_affine=(0.5, 0.01, -0.01, 0.5),
        gates=GateSettings(min_focus=1.5, min_stillness=-1.0),
        stain=PROFILE,
        figures={"pixel_size_residual_px": 0.4},
    )


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    folder, saved = CalibrationFolder(tmp_path), calibration()
    folder.save(saved)
    loaded = folder.load("20x", saved.digest)
    assert loaded.to_bytes() == saved.to_bytes()
    assert loaded.digest == saved.digest
    assert (loaded.gates, loaded.stain, loaded.optics) == (
        saved.gates,
        saved.stain,
        saved.optics,
    )
    assert loaded.shading is not None
    assert saved.shading is not None
    field = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    assert np.array_equal(loaded.shading.apply(field), saved.shading.apply(field))


def test_the_digest_is_that_of_every_release() -> None:
    # Of the release before msgspec; a session goes on only under the digest that it began with.
    whole = "sha256:77347c1d5c289cefa4c41e804b941e1bce5547b39d40de217e4a795dc1be3867"
    assert calibration().digest == whole
    bare = Calibration("20x", measured={"pixel-size": 5}, mpp=1)
    assert bare.digest == "sha256:ffd7a979441c765263ac84e8ba25637a0b79e4407df2eded62fb517164d1c720"
    # Whole numbers stay whole, or the bytes and with them the digest would change.
    assert Calibration.from_bytes(bare.to_bytes()).digest == bare.digest


def changed(**values: object) -> bytes:
    """Return a stored calibration after its line of JSON was changed."""
    head, _, body = calibration().to_bytes().partition(b"\n")
    return json.dumps({**json.loads(head), **values}).encode() + b"\n" + body


DAMAGED = {
    "no JSON": (b"{", "truncated"),
    "nested too deep": (b'{"name":' + b"[" * 100_000, "recursion"),
    "no format": (b"{}", "missing required field `format`"),
    "a key of nobody": (changed(colour="red"), "unknown field `colour`"),
    "a text for a number": (changed(mpp="0.5"), r"Expected `int \| float \| null`, got `str`"),
    "too few bytes": (calibration().to_bytes()[:-4], "cannot reshape"),
    "no flat field": (changed(arrays={"dark": [2, 4, 3]}), "damaged: 'flat'"),
    "a gate of nobody": (changed(gates={"min_hue": 1.0}), "no threshold 'min_hue'"),
    "a stain without mean": (changed(stain={"background": [240, 240, 240]}), "mean"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_bytes_that_are_no_calibration_are_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(DamagedCalibrationError, match=message) as caught:
        Calibration.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_a_calibration_of_a_newer_edge_mil_asks_for_an_update() -> None:
    with pytest.raises(CalibrationError, match="update edge_mil on this device"):
        Calibration.from_bytes(changed(format=2, surprise=1))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    CalibrationFolder(tmp_path).save(calibration())
    (file,) = (tmp_path / "calibrations").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_one_changed_byte_is_seen(tmp_path: Path) -> None:
    folder = CalibrationFolder(tmp_path)
    folder.save(calibration())
    (file,) = (tmp_path / "calibrations").iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CalibrationError) as caught:
        folder.load("20x")
    assert caught.value.details["reason"] == "CALIBRATION_DAMAGED"


def test_a_session_does_not_go_on_under_one_that_was_measured_anew(tmp_path: Path) -> None:
    folder, first = CalibrationFolder(tmp_path), calibration()
    folder.save(first)
    folder.save(replace(first, mpp=0.51))
    with pytest.raises(CalibrationError) as caught:
        folder.load("20x", first.digest)
    assert caught.value.details["reason"] == "CALIBRATION_CHANGED"


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = CalibrationFolder(tmp_path)
    folder.save(calibration())
    (file,) = (tmp_path / "calibrations").iterdir()
    file.rename(file.with_name("40x.calibration"))
    with pytest.raises(CalibrationError, match="its own name"):
        folder.load("40x")


def test_a_missing_one_names_those_that_are_there(tmp_path: Path) -> None:
    folder = CalibrationFolder(tmp_path)
    with pytest.raises(CalibrationError, match="none yet"):
        folder.load("20x")
    folder.save(calibration())
    with pytest.raises(CalibrationError, match="there are 20x"):
        folder.load("40x")
    assert folder.find("40x") is None
    assert folder.names() == ["20x"]


@pytest.mark.parametrize("name", ["", "../20x", "a/b", ".hidden", "x" * 65, "20x\n", "20x\0"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CalibrationError, match="cannot be called"):
        CalibrationFolder(tmp_path).load(name)
    with pytest.raises(CalibrationError, match="cannot be called"):
        calibration(name)


def test_a_folder_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        CalibrationFolder(tmp_path).save(calibration())
    assert [path.name for path in tmp_path.iterdir()] == ["calibrations"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"now": NOW + 31 * DAY_S}, "CALIBRATION_STALE"),
        ({"now": NOW + 2 * DAY_S, "max_age_days": 1}, "CALIBRATION_STALE"),
        ({"optics": OpticalPath(objective="40x/0.65")}, "CALIBRATION_FOREIGN"),
        ({"optics": OpticalPath(camera="other")}, "CALIBRATION_FOREIGN"),
        ({"mpp": 0.25}, "CALIBRATION_FOREIGN"),
    ],
)
def test_a_stale_or_foreign_one_is_refused(asked: dict[str, object], reason: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        calibration().check(**{"now": NOW, **asked})  # type: ignore[arg-type]
    assert caught.value.details["reason"] == reason


@pytest.mark.parametrize(
    "asked",
    [
        {"now": NOW + 29 * DAY_S},
        {"now": NOW + 99 * DAY_S, "max_age_days": 100},
        {"optics": OpticalPath(objective="20X/0.45 ")},
        {"optics": OpticalPath()},
        {"mpp": 0.51},
    ],
)
def test_one_that_holds_is_taken(asked: dict[str, object]) -> None:
    calibration().check(**{"now": NOW, **asked})  # type: ignore[arg-type]


def test_the_oldest_part_gives_the_age() -> None:
    renewed = calibration().with_part("pixel-size", NOW + 40 * DAY_S, mpp=0.5)
    with pytest.raises(CalibrationError, match="its flat-field was measured 40 days ago"):
        renewed.check(NOW + 40 * DAY_S)


def test_a_stain_comes_from_the_calibration_and_its_target_from_the_bundle() -> None:
    target = StainSpec(
        "macenko",
        PROFILE.background,
        PROFILE.mean,
        PROFILE.deviation,
        PROFILE.stains,
        PROFILE.reach,
    )
    plain = InputSpec("grid", 64, 64, 0.5, "RGB", None, None, TissueSpec())
    asking = structs.replace(plain, stain=target)
    assert stain_transform(plain, calibration()) is None
    transform = stain_transform(asking, calibration())
    assert transform is not None
    assert transform.method == "macenko"
    for lacking in (None, replace(calibration(), stain=None)):
        with pytest.raises(CalibrationError) as caught:
            stain_transform(asking, lacking)
        assert caught.value.details["reason"] == "CALIBRATION_LACKS_STAIN"
