"""Make the source of `edge-mil stream` from its options, and what a session must know of it."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from edge_mil.client import Client, ModelInfo
from edge_mil.errors import PixelSizeError
from edge_mil.protocols import Camera
from edge_mil.rpc.results import encode_regions
from edge_mil.types import Region
from edge_mil.v1 import edge_mil_pb2 as pb

if TYPE_CHECKING:
    from edge_mil.cameras import Imperfections

GLASS_FRAMES = 8
"""Frames of clean glass that the light and the noise are measured from."""

DAY_S = 86_400.0
"""Age at which such a calibration is measured again."""


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
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="what is wrong with the stage, or declared wrongly, again for several: x-flipped, "
        "y-flipped, exchanged, mirrored, turned=DEGREES, unit=UM, mpp=FACTOR, late, backlash=UM, "
        "objective=RATIO@FIELD, slide=FILE@FIELD",
    )


def open_source(arguments: argparse.Namespace) -> Camera:
    """Open the source that the user named.

    Raises:
        EdgeMilError: It cannot be read, or an option does not fit it.
    """
    from edge_mil.cameras import open_camera, parse_fov, parse_stage_faults

    return open_camera(
        arguments.source,
        mpp=arguments.mpp,
        insist_mpp=arguments.insist_mpp,
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
        stage_faults=parse_stage_faults(arguments.fault),
    )


def pixel_size(camera: Camera) -> float:
    """Return the camera's pixel size, µm/px.

    Raises:
        PixelSizeError: It is unknown.
    """
    if camera.mpp is None:
        raise PixelSizeError("The camera does not know its pixel size; give it with --mpp.")
    return camera.mpp


def stage_frame(camera: Camera) -> pb.StageFrame:
    """Return the stage as Micro-Manager would declare it: affine of the pixels, area, or none."""
    stage = pb.StageFrame(unit="um")
    if camera.stage_affine is not None:
        a, b, c, d = camera.stage_affine
        stage.pixel_size_affine[:] = [a, b, 0.0, c, d, 0.0]
    if camera.area is not None:
        stage.area.CopyFrom(encode_regions([camera.area])[0])
    stage.absent = camera.hand_moved
    return stage


def calibrated(client: Client, camera: Camera, named: str) -> str:
    """Return the name of the calibration that a session with this camera runs under, "" for none.

    A camera with uneven light or a noisy sensor is calibrated on clean glass, once a day.

    Args:
        client: The service.
        camera: The camera.
        named: The calibration that the user named, which is used as it is.

    Raises:
        RemoteError: The service cannot measure it.
    """
    name = camera.calibration_name
    if named or not name:
        return named
    known = {found.name: found.measured.get("flat-field", 0.0) for found in client.calibrations()}
    if time.time() - known.get(name, 0.0) > DAY_S:
        glass = list(camera.glass_frames(GLASS_FRAMES))
        client.calibrate("flat-field", name, glass, mpp=camera.mpp)
    return name


def outline(
    camera: Camera, model: ModelInfo, allow_enlargement: bool = False
) -> tuple[Region, ...]:
    """Return where the tissue is, as `edge-mil slide` finds it; empty where it is not known.

    Without a stage the position of the tissue is unknown.
    """
    from edge_mil.bundle import TissueSpec
    from edge_mil.imaging import GridGeometry
    from edge_mil.pipeline.whole_slide.cells import slide_outline

    if camera.slide is None or model.instances != "grid":
        return camera.tissue
    if camera.hand_moved:
        return ()
    tile = model.tile_height_px, model.tile_width_px
    geometry = GridGeometry(camera.slide.mpp, *tile, model.mpp, allow_enlargement)
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
