"""Make the source of `edge-mil stream` from its options, and what a session must know of it."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, TypeAlias

from edge_mil.client import Client, ModelInfo
from edge_mil.rpc.results import encode_regions
from edge_mil.types import Frame, Region
from edge_mil.v1 import edge_mil_pb2 as pb

if TYPE_CHECKING:
    from edge_mil.cameras import ImageFolder, Imperfections, VirtualMicroscope

Source: TypeAlias = "VirtualMicroscope | ImageFolder"

EMPTY_FIELDS = 8
"""Frames of clean glass that the light and the noise are measured from."""

DAY_S = 86_400.0

REFOCUS = 3
"""How often refused fields are visited again where the focus of each visit is drawn by chance."""


def add_faults(parser: argparse.ArgumentParser) -> None:
    """Add the faults of the virtual microscope."""
    group = parser.add_argument_group(
        "faults of the microscope", "for slides; without them the microscope is perfect"
    )
    for option, metavar, meaning in (
        ("--jitter", "UM", "error of the stage position, µm (standard deviation)"),
        ("--defocus", "SHARE", "share of the fields that are out of focus"),
        ("--vignette", "DEPTH", "share of the light that the corners lack, as 0.3"),
        ("--noise", "SD", "noise of the sensor, grey levels (standard deviation)"),
        ("--rotation", "DEGREES", "rotation of the camera against the stage"),
    ):
        group.add_argument(option, type=float, default=0.0, metavar=metavar, help=meaning)
    group.add_argument(
        "--no-stage",
        action="store_true",
        help="fields have no positions; the service finds them by registration",
    )


def open_source(arguments: argparse.Namespace) -> Source:
    """Open the source that the user named.

    Raises:
        EdgeMilError: It cannot be read, or an option does not fit it.
    """
    from edge_mil.cameras import open_camera, parse_fov

    return open_camera(
        arguments.source,
        mpp=arguments.mpp,
        fov=parse_fov(arguments.fov) if arguments.fov else None,
        overlap=arguments.overlap,
        path=arguments.path,
        passes=arguments.passes,
        frames=arguments.frames,
        fps=arguments.fps,
        seed=arguments.seed,
        independent=arguments.independent,
        dwell=arguments.dwell,
        faults=_faults(arguments),
    )


def stage_frame(camera: Source) -> pb.StageFrame:
    """Return the stage as Micro-Manager would declare it: affine of the pixels, area, or none."""
    from edge_mil.cameras import VirtualMicroscope

    stage = pb.StageFrame(unit="um")
    if not isinstance(camera, VirtualMicroscope):
        return stage
    if camera.stage_affine is not None:
        a, b, c, d = camera.stage_affine
        stage.pixel_size_affine[:] = [a, b, 0.0, c, d, 0.0]
    if camera.area is not None:
        stage.area.CopyFrom(encode_regions([camera.area])[0])
    stage.absent = not camera.faults.stage
    return stage


def calibrated(client: Client, camera: Source, named: str) -> str:
    """Return the name of the calibration that a session with this camera runs under, "" for none.

    A virtual microscope with uneven light or a noisy sensor is calibrated from frames of clean
    glass, once a day.

    Args:
        client: The service.
        camera: The camera.
        named: The calibration that the user named, which is used as it is.

    Raises:
        RemoteError: The service cannot measure it.
    """
    from edge_mil.cameras import VirtualMicroscope

    if named or not isinstance(camera, VirtualMicroscope):
        return named
    faults = camera.faults
    if not (faults.vignette or faults.noise):
        return ""
    name = (
        f"virtual-{camera.width_px}x{camera.height_px}-{camera.mpp:.4g}um-v{faults.vignette:g}"
        f"-n{faults.noise:g}-s{faults.seed}"
    )
    known = {found.name: found.measured.get("flat-field", 0.0) for found in client.calibrations()}
    if time.time() - known.get(name, 0.0) > DAY_S:
        glass = [Frame(camera.empty_field(number)) for number in range(EMPTY_FIELDS)]
        client.calibrate("flat-field", name, glass, mpp=camera.mpp)
    return name


def refocus_rounds(camera: Source) -> int:
    """Return how often refused fields are visited again."""
    from edge_mil.cameras import VirtualMicroscope

    return REFOCUS if isinstance(camera, VirtualMicroscope) and camera.faults.defocus else 1


def look_again(camera: Source, frame: Frame) -> Frame:
    """Take a new frame where an earlier one lay."""
    from edge_mil.cameras import VirtualMicroscope

    if isinstance(camera, VirtualMicroscope):
        return camera.look_again(frame)
    return camera.read(frame.name)


def outline(
    camera: Source, model: ModelInfo, allow_enlargement: bool = False
) -> tuple[Region, ...]:
    """Return where the tissue is, as `edge-mil slide` finds it; empty where it is not known.

    Without a stage the outline has no position on the slide, so it is empty too.
    """
    from edge_mil.bundle import TissueSpec
    from edge_mil.cameras import VirtualMicroscope
    from edge_mil.imaging import GridGeometry
    from edge_mil.pipeline.whole_slide.cells import slide_outline

    if not isinstance(camera, VirtualMicroscope) or model.instances != "grid":
        return camera.tissue
    if not camera.faults.stage:
        return ()
    tile = model.tile_height_px, model.tile_width_px
    geometry = GridGeometry(camera.mpp, *tile, model.mpp, allow_enlargement)
    tissue = TissueSpec(model.background, model.min_difference, model.min_share)
    return tuple(slide_outline(camera.slide, geometry, tissue))


def _faults(arguments: argparse.Namespace) -> Imperfections | None:
    """Return the faults that the user asked for; None for a perfect microscope.

    Raises:
        UsageError: A number is out of range.
    """
    from edge_mil.cameras import Imperfections

    faults = Imperfections(
        jitter_um=arguments.jitter,
        defocus=arguments.defocus,
        vignette=arguments.vignette,
        noise=arguments.noise,
        rotation_deg=arguments.rotation,
        stage=not arguments.no_stage,
        seed=arguments.seed,
    )
    return None if faults == Imperfections(seed=arguments.seed) else faults
