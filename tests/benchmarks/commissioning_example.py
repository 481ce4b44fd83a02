"""What a microscope gives on the day of its commissioning, for docs/commissioning.md: painted.

Writes glass/, moves/, scan_fields/ and fields/ as a camera with a vignette and colours of its own
shows them, scan.tiff, the scanner's file of the same slide, and slide.tiff, the slide as the camera
shows it. With --images it also writes the page's images, from the calibration that the page's
commands have measured.

usage: python tests/benchmarks/commissioning_example.py OUT [--images DIR --state DIR]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import repository_path  # noqa: F401 - the folder of the simulated cameras
from simulated_camera import SimulatedCamera, analytic_camera

from edge_mil.calibration import CalibrationFolder
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.types import Float32Array, UInt8Array

FIELD_PX = (400, 512)
SLIDE_PX = (1200, 1600)
SEED = 41
GLASS, MOVES, GOOD, FIELDS = 6, 6, 8, 12
"""How many frames of each kind."""
CAMERA_SEED = 9
VIGNETTE = 0.25
"""Light that the corners lack."""
GLASS_LEVEL = 244


def main() -> int:
    """Write the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--state", type=Path)
    arguments = parser.parse_args()
    write_example(arguments.out)
    if arguments.images is not None:
        write_images(arguments.images, arguments.state)
    return 0


def write_example(out: Path) -> None:
    """Write frames and slide files into a folder."""
    camera, slide = example_camera(), example_slide()
    out.mkdir(parents=True, exist_ok=True)
    write_tiled_tiff(out / "scan.tiff", slide, MPP)
    height, width = FIELD_PX
    empty = np.full((height, width, 3), GLASS_LEVEL, np.uint8)
    for k in range(GLASS):
        _write(out / "glass" / f"glass{k}.png", _exposed(camera.see(empty, k)))
    # A walk by a third of the field, with what the stage says of each centre.
    lines = ["file,x_um,y_um"]
    for k in range(MOVES):
        x, y = 500 + 160 * (k % 3), 350 + 130 * (k // 3)
        _write(out / "moves" / f"move{k}.png", _exposed(camera.field(slide, x, y, FIELD_PX)))
        lines.append(f"move{k}.png,{(x + width / 2) * MPP},{(y + height / 2) * MPP}")
    (out / "moves" / "positions.csv").write_text("\n".join(lines))
    places = corners(slide, GOOD + FIELDS)
    for k, (x, y) in enumerate(places):
        name = f"scan_fields/good{k}.png" if k < GOOD else f"fields/field{k - GOOD:02}.png"
        _write(out / name, _exposed(camera.field(slide, x, y, FIELD_PX)))
    write_tiled_tiff(out / "slide.tiff", camera.see(slide), MPP)


def write_images(out: Path, state: Path) -> None:
    """Write the images of the page: glass, and cells, before and after."""
    camera, slide = example_camera(), example_slide()
    calibration = CalibrationFolder(state).load("20x")
    assert calibration.shading is not None
    passport = calibration.passports[0]
    height, width = FIELD_PX
    glass = _exposed(camera.see(np.full((height, width, 3), GLASS_LEVEL, np.uint8)))
    corrected = calibration.shading.apply(glass)
    _write(out / "commissioning-glass.jpg", _row(glass, corrected, (256, 200)))
    rows = []
    straight = SimulatedCamera(
        camera.weights, camera.gains, camera.gamma, camera.sigma_px, noise=camera.noise
    )
    for x, y in corners(slide, 2):
        scan = slide[y : y + 256, x : x + 256]
        field = straight.field(slide, x, y, FIELD_PX)
        seen = calibration.shading.apply(_exposed(field))[:256, :256]
        tiles = np.stack([seen[i : i + 128, j : j + 128] for i in (0, 128) for j in (0, 128)])
        mended = passport.correction.apply(tiles)
        whole = np.vstack([np.hstack(list(mended[k : k + 2])) for k in (0, 2)])
        rows.append(_row(seen, whole, (256, 256), scan))
    _write(out / "commissioning-cells.jpg", np.vstack(rows))


def example_camera() -> SimulatedCamera:
    """Return the camera of the example, parallel to the stage."""
    drawn = analytic_camera(CAMERA_SEED)
    return SimulatedCamera(
        drawn.weights, drawn.gains, drawn.gamma, sigma_px=0.6, noise=1.0, seed=CAMERA_SEED
    )


def example_slide() -> UInt8Array:
    """Return the slide of the example as its scanner shows it."""
    height, width = SLIDE_PX
    return paint_slide(SEED, positive=True, height_px=height, width_px=width).pixels


def corners(slide: UInt8Array, count: int) -> list[tuple[int, int]]:
    """Return the corners (x, y) of fields with tissue, at random places."""
    chance = np.random.default_rng(SEED)
    height, width = FIELD_PX
    found: list[tuple[int, int]] = []
    while len(found) < count:
        x = int(chance.integers(0, slide.shape[1] - width))
        y = int(chance.integers(0, slide.shape[0] - height))
        if float((slide[y : y + height, x : x + width].min(axis=2) < 200).mean()) > 0.5:
            found.append((x, y))
    return found


def _light() -> Float32Array:
    height, width = FIELD_PX
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    # As the virtual microscope's: by the squared distance, as a share of the corners'.
    squared = (x**2 * width**2 + y**2 * height**2) / (width**2 + height**2)
    return np.asarray(1 - VIGNETTE * squared, np.float32)[..., None]


def _exposed(pixels: UInt8Array) -> UInt8Array:
    """Return a field in the uneven light of this microscope."""
    return np.asarray(np.rint(pixels * _light()), np.uint8)


def _row(
    first: UInt8Array, second: UInt8Array, size: tuple[int, int], third: UInt8Array | None = None
) -> UInt8Array:
    """Lay images side by side, each at one size, with a white line between them."""
    shown = [first, second] + ([] if third is None else [third])
    parts = []
    for image in shown:
        part = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        parts += [part, np.full((size[1], 6, 3), 255, np.uint8)]
    row = np.hstack(parts[:-1])
    return np.vstack([row, np.full((6, row.shape[1], 3), 255, np.uint8)])


def _write(path: Path, pixels: UInt8Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = (cv2.IMWRITE_JPEG_QUALITY, 85) if path.suffix == ".jpg" else ()
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)


if __name__ == "__main__":
    sys.exit(main())
