"""`edge-mil calibrate camera`: from a folder of fields and a scan to a verified session."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from passport_subject import fields, painted_slide
from running_service import RunningService
from simulated_camera import analytic_camera

from edge_mil.calibration import CalibrationFolder
from edge_mil.cli import main
from edge_mil.client import Client
from edge_mil.demo.painted_slide import MPP
from edge_mil.demo.run import BUNDLE
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.errors import RemoteError

CAMERA = analytic_camera(5)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, and fields of another camera."""
    folder = tmp_path_factory.mktemp("camera")
    write_tiled_tiff(folder / "scan.tiff", painted_slide(41), MPP)
    (folder / "fields").mkdir()
    for frame in fields(CAMERA, painted_slide(41)):
        path = folder / "fields" / frame.name
        cv2.imwrite(str(path), cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR))
    return folder


def calibrate(work: Path, *more: str) -> int:
    words = ["calibrate", "camera", str(work / "fields"), "--slide", str(work / "scan.tiff")]
    words += ["--bundle", str(BUNDLE), "--name", "20x", "--mpp", str(MPP)]
    return main([*words, "--state", str(work / "state"), *more])


def test_from_fields_and_a_scan_to_a_verified_session(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = work / "passport.html"
    assert calibrate(work, "--json", "--page", str(page)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (
        document["bundle"]
        == CalibrationFolder(work / "state").load("20x").passports[0].bundle_digest
    )
    assert document["shifts"][-1]["mean_after"] < document["shifts"][-1]["mean_before"]
    text = page.read_text()
    for shown in ("Camera passport: 20x", "density, green", "cycles per pixel", "data:image/jpeg"):
        assert shown in text
    assert "://" not in text
    assert main(["calibrate", "show", "20x", "--state", str(work / "state")]) == 0
    assert "Camera passport for" in capsys.readouterr().out


def test_serve_with_required_passports_takes_only_a_verified_camera(work: Path) -> None:
    assert calibrate(work, "--max-shift", "1") == 0
    service = RunningService(BUNDLE, work, "", "--require-passport")
    try:
        with Client(service.address) as client:
            with pytest.raises(RemoteError, match="calibrate camera") as caught:
                client.open_session(mpp=MPP)
            assert caught.value.reason == "PASSPORT_REQUIRED"
            session = client.open_session(calibration="20x")
            info = session.info()
            assert info.camera == "verified"
            assert info.camera_bound is not None
            assert client.calibrations()[0].name == "20x"
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--max-shift", "0"), "--max-shift is 0"),
        (("--page", "nowhere/x.html"), "There is no folder nowhere"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], sentence: str
) -> None:
    assert calibrate(work, *options) == 2
    assert sentence in capsys.readouterr().err


def test_without_a_pixel_size_nothing_is_compared(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", "camera", str(work / "fields"), "--slide", str(work / "scan.tiff")]
    words += ["--bundle", str(BUNDLE), "--name", "new", "--state", str(tmp_path)]
    assert main(words) == 2
    assert "edge-mil calibrate pixel-size" in capsys.readouterr().err
