"""Each fault of the virtual microscope alone, against the exact image."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import Imperfections, VirtualMicroscope, open_camera
from edge_mil.cameras.imperfect_optics import GLASS
from edge_mil.errors import UsageError
from edge_mil.types import Float64Array, Frame, UInt8Array

WIDTH, HEIGHT, MPP = 620, 540, 0.5
FOV = (200, 160)


def picture() -> UInt8Array:
    """Return glass with tissue whose structures are some pixels large."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (HEIGHT // 6, WIDTH // 6, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    pixels[:, :150] = GLASS
    return pixels.astype(np.uint8)


PIXELS = picture()


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiled_tiff(tmp_path_factory.mktemp("slide") / "s.tiff", PIXELS, mpp=MPP)


def microscope(slide: Path, *, path: str = "serpentine", dwell: int = 0, **faults: object):
    camera = open_camera(
        str(slide),
        fov=FOV,
        path=path,
        dwell=dwell,
        frames=40 if path == "hand" else None,
        faults=Imperfections(**faults) if faults else None,  # type: ignore[arg-type]
    )
    assert isinstance(camera, VirtualMicroscope)
    return camera


def inside(frame: Frame, x: int, y: int) -> UInt8Array:
    """Return what the slide shows where a field's top left pixel is (x, y), mirrored beyond it."""
    wide = np.pad(PIXELS, ((400, 400), (400, 400), (0, 0)), mode="symmetric")
    return wide[y + 400 : y + 400 + frame.height_px, x + 400 : x + 400 + frame.width_px]


def test_a_perfect_microscope_is_the_one_of_before(slide: Path) -> None:
    plain, named = microscope(slide), microscope(slide, seed=7)
    for a, b in zip(plain.frames(), named.frames(), strict=True):
        assert (a.x_um, a.y_um, a.name) == (b.x_um, b.y_um, b.name)
        assert np.array_equal(a.pixels, b.pixels)
    assert (plain.stage_affine, plain.area) == (None, None)


def test_the_same_seed_gives_the_same_frames(slide: Path) -> None:
    faults = {"jitter_um": 2.0, "defocus": 0.5, "vignette": 0.2, "noise": 3.0, "rotation_deg": 3.0}
    seen = []
    for seed in (1, 1, 2):
        camera = microscope(slide, seed=seed, **faults)
        seen.append([(f.x_um, f.y_um, f.pixels.tobytes()) for f in camera.frames()])
    assert seen[0] == seen[1]
    assert all(a != b for a, b in zip(seen[0], seen[2], strict=True))


def test_jitter_is_the_error_of_the_reported_position_alone(slide: Path) -> None:
    camera = microscope(slide, jitter_um=3.0)
    errors = []
    for shot in camera.shots():
        frame, (x_um, y_um) = camera.take(shot), camera.position_um(shot)
        errors += [frame.x_um - x_um, frame.y_um - y_um]
        assert np.array_equal(frame.pixels, inside(frame, shot.x, shot.y))
    assert np.std(errors) == pytest.approx(3.0, rel=0.35)
    assert camera.area is not None
    assert (camera.area.width_um, camera.area.height_um) == (WIDTH * MPP, HEIGHT * MPP)
    left = min(x for x, _ in camera.corners) * MPP
    assert left <= -3 * 3.0


def test_a_retake_draws_its_focus_anew(slide: Path) -> None:
    camera = microscope(slide, defocus=0.5)
    first = [camera.faults.blur_radius_px(shot) for shot in camera.shots()]
    again = [camera.faults.blur_radius_px(camera.visit(place)) for place in camera.corners * 10]
    assert 0.4 < np.mean([radius > 0 for radius in again]) < 0.6
    assert {0.0} < set(first)
    assert all(radius == 0 or 4 <= radius <= 10 for radius in again)


def test_a_defocused_field_is_the_slide_behind_a_disc(slide: Path) -> None:
    camera = microscope(slide, defocus=1.0)
    shot = camera.visit((250, 200))
    frame, true = camera.take(shot), PIXELS.astype(float)
    radius = camera.faults.blur_radius_px(shot)
    dy, dx = np.mgrid[-11:12, -11:12]
    disc = np.clip(radius + 0.5 - np.hypot(dx, dy), 0, 1)
    blurred = cv2.filter2D(true, -1, disc / disc.sum())[200:360, 250:450]
    # The two discs differ at their rims only.
    assert np.abs(frame.pixels - blurred).mean() < 1.0
    assert np.abs(frame.pixels - true[200:360, 250:450]).mean() > 10


def test_corners_are_darker_by_the_depth(slide: Path) -> None:
    camera = microscope(slide, vignette=0.3)
    light = next(camera.glass_frames(1)).pixels / np.array(GLASS, float)
    assert light[80, 100].mean() == pytest.approx(1.0, abs=0.005)
    for corner in (light[0, 0], light[-1, -1], light[0, -1]):
        assert corner.mean() == pytest.approx(0.7, abs=0.006)
    frame = camera.take(camera.visit((200, 100)))
    assert np.abs(frame.pixels - PIXELS[100:260, 200:400] * light).max() < 2


def test_noise_has_its_deviation_and_is_new_in_each_frame(slide: Path) -> None:
    camera = microscope(slide, noise=4.0, dwell=3)
    stare = [shot for shot in camera.shots() if shot.frame]
    assert [shot.frame for shot in stare] == [1, 2, 3]
    frames = [camera.take(shot) for shot in stare]
    true = inside(frames[0], stare[0].x, stare[0].y).astype(float)
    for frame in frames:
        assert (frame.pixels - true).std() == pytest.approx(4.0, rel=0.05)
    assert not np.array_equal(frames[0].pixels, frames[1].pixels)
    assert len({(frame.x_um, frame.y_um) for frame in frames}) == 1


def test_dwelling_without_noise_shows_one_frame(slide: Path) -> None:
    camera = microscope(slide, dwell=5, jitter_um=2.0)
    shots = list(camera.shots())
    assert len(shots) == len(camera.corners) + 5
    assert len(set(shots)) == len(camera.corners)


def turned(degrees: float, x: int, y: int) -> tuple[Float64Array, Float64Array]:
    """Return where each camera pixel's centre lies in level 0: two arrays (h, w)."""
    angle, (width, height) = math.radians(degrees), FOV
    u, v = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return (
        x + width / 2 + math.cos(angle) * u - math.sin(angle) * v,
        y + height / 2 + math.sin(angle) * u + math.cos(angle) * v,
    )


@pytest.mark.parametrize("degrees", [3.0, -20.0, 90.0])
def test_a_turned_camera_shows_the_turned_slide(slide: Path, degrees: float) -> None:
    camera = microscope(slide, rotation_deg=degrees)
    place = (260, 190)
    frame = camera.take(camera.visit(place))
    x, y = turned(degrees, *place)
    wanted = cv2.remap(
        PIXELS.astype(np.float32),
        (x - 0.5).astype(np.float32),
        (y - 0.5).astype(np.float32),
        cv2.INTER_CUBIC,
    )
    assert np.abs(frame.pixels - wanted).mean() < 1.0
    a, b, c, d = camera.stage_affine
    # Ten pixels to the right in the picture are on the stage where the affine says.
    i, j = 80, 110
    assert (a * 10, c * 10) == pytest.approx(
        (MPP * (x[i, j + 10] - x[i, j]), MPP * (y[i, j + 10] - y[i, j]))
    )
    assert (b, d) == pytest.approx((MPP * (x[i + 1, j] - x[i, j]), MPP * (y[i + 1, j] - y[i, j])))


@pytest.mark.parametrize("degrees", [3.0, -7.0, 45.0, 90.0, 180.0])
@pytest.mark.parametrize("overlap", [0.0, 0.1])
def test_turned_fields_cover_the_slide(slide: Path, degrees: float, overlap: float) -> None:
    camera = open_camera(
        str(slide), fov=FOV, overlap=overlap, faults=Imperfections(rotation_deg=degrees)
    )
    seen = np.zeros((HEIGHT, WIDTH), bool)
    angle = math.radians(degrees)
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    for x, y in camera.corners:  # type: ignore[attr-defined]
        dx, dy = column - x - FOV[0] / 2, row - y - FOV[1] / 2
        u = dx * math.cos(angle) + dy * math.sin(angle)
        v = dy * math.cos(angle) - dx * math.sin(angle)
        # Interpolation needs half a pixel more on each side.
        seen |= (abs(u) <= FOV[0] / 2 - 0.5) & (abs(v) <= FOV[1] / 2 - 0.5)
    assert seen.all()


def test_without_a_stage_frames_have_no_position(slide: Path) -> None:
    camera = microscope(slide, path="hand", stage=False, noise=2.0)
    frames = list(camera.frames())
    assert len(frames) == 40
    assert all(frame.x_um is None and frame.y_um is None for frame in frames)
    shots = [camera.shot_of(frame) for frame in frames]
    assert [(shot.x, shot.y) for shot in shots] == camera.corners
    again = camera.retake(frames[3])
    assert camera.shot_of(again).visit > 0
    assert camera.area is None


def test_faults_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for option, faults in {
        "--jitter": {"jitter_um": -1.0},
        "--defocus": {"defocus": 1.5},
        "--vignette": {"vignette": 1.0},
        "--noise": {"noise": math.nan},
        "--rotation": {"rotation_deg": math.inf},
    }.items():
        with pytest.raises(UsageError, match=option):
            Imperfections(**faults)
    (tmp_path / "a.png").write_bytes(b"")
    for options in ({"faults": Imperfections(noise=1.0)}, {"dwell": 3}, {"path": "hand"}):
        with pytest.raises(UsageError, match="are for slides"):
            open_camera(str(tmp_path), mpp=0.5, **options)  # type: ignore[arg-type]
