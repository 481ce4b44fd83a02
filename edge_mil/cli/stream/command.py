"""`edge-mil stream`: play a slide, or a folder of images, to a service as a camera would."""

from __future__ import annotations

import argparse
import json
import time

from edge_mil.cli.arguments import Subparsers, add_insist_mpp, add_json
from edge_mil.cli.console import print_table
from edge_mil.cli.stream.camera import (
    add_faults,
    calibrated,
    open_source,
    outline,
    pixel_size,
    stage_frame,
)
from edge_mil.cli.stream.playing import Playback, say
from edge_mil.client import Client, ClientSession, ModelInfo, SessionInfo, tune_allocator
from edge_mil.errors import RemoteError, ServiceUnavailableError, UsageError
from edge_mil.protocols import Camera
from edge_mil.types import RESEARCH_USE_ONLY
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.verdict_text import LIGHT_TEXT

DEFAULT_SERVER = "127.0.0.1:50051"
CONNECT_S = 10.0
"""A service that was started a moment ago opens its port within this."""
BUNDLE_S = 300.0
POLL_S = 0.2
SAME_MPP = 1e-3
"""Relative difference of two pixel sizes that are the same, rounded differently."""


def add_parser(subparsers: Subparsers) -> None:
    """Add `stream`."""
    parser = subparsers.add_parser(
        "stream",
        help="play a slide, or a folder of images, to a service as a camera would",
        description="Play a slide file as a microscope, or a folder of images, to a running "
        "edge-mil serve. Waits while the service is away, then closes the session and prints its "
        "last score. " + RESEARCH_USE_ONLY,
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="a slide file, a folder of images with positions, or gst:PIPELINE, a camera that "
        "GStreamer opens",
    )
    add(
        "--server",
        default=DEFAULT_SERVER,
        metavar="ADDR",
        help="HOST:PORT or unix:PATH (default: %(default)s)",
    )
    add("--bundle", default="", metavar="NAME", help="the bundle, where the service has several")
    add("--session", default="", metavar="ID", help="go on with this session (default: a new one)")
    add("--calibration", default="", metavar="NAME", help="name of a calibration of the service")
    add("--mpp", type=float, metavar="X", help="pixel size, µm/px (default: the slide's own)")
    add_insist_mpp(parser)
    add("--fov", metavar="WxH", help="size of a field in camera pixels, as 1024x768; slides only")
    add(
        "--overlap",
        type=float,
        default=0.1,
        metavar="F",
        help="overlap of two fields, as a share of a field (default: %(default)s)",
    )
    add(
        "--path",
        choices=("serpentine", "random", "hover", "hand"),
        default="serpentine",
        help="order of the fields; hand moves the slide as a person does (default: serpentine)",
    )
    add("--passes", type=int, default=1, metavar="N", help="repeat the path (default: 1)")
    add(
        "--frames",
        type=int,
        metavar="N",
        help="end after N frames; for hover: frames at one position; for hand: length of the path "
        "(default: 200)",
    )
    add(
        "--dwell",
        type=int,
        default=0,
        metavar="N",
        help="stay for N more frames in the middle of the pass; --frames does not count them",
    )
    add("--fps", type=float, metavar="F", help="upper limit of frames per second")
    add("--seed", type=int, default=0, metavar="S", help="seed of path and faults (default: 0)")
    add("--independent", action="store_true", help="images without positions are separate fields")
    add(
        "--allow-enlargement",
        action="store_true",
        help="also take pixels that are more than 1.5 times the model's",
    )
    add(
        "--check-geometry",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="begin with a few fields that overlap, where those of the path do not, so that the "
        "service can compare the stage with the images; slides only (default: yes)",
    )
    add(
        "--insist-light",
        action="store_true",
        help="count fields whose light contradicts the background; the score still says so",
    )
    add(
        "--insist-geometry",
        action="store_true",
        help="count fields also where the images contradict pixel size or stage",
    )
    add_json(parser)
    add_faults(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Stream the source, close the session and print its score.

    Raises:
        EdgeMilError: The source, the service or an option does not fit; the message says which.
    """
    tune_allocator()
    camera = open_source(arguments)
    try:
        with Client(arguments.server, connect_timeout_s=CONNECT_S) as client:
            session = _open_session(client, camera, arguments)
            playback = Playback(session, camera)
            say(f"session {session.session_id}")
            summary = playback.run()
            held = sum(session.opened.fields.values())
            ended = session.close(expected_fields=held + summary.answered)
    finally:
        camera.close()
    if summary.errors and not summary.answered:
        raise UsageError(f"No field could be judged: {summary.errors[0]}")
    if arguments.json:
        print(json.dumps(_document(ended.info, summary.errors), indent=2))
    else:
        _print(ended.info, playback.seconds, summary.answered)
    return 0


def _open_session(client: Client, camera: Camera, arguments: argparse.Namespace) -> ClientSession:
    """Resume the session that was named, or open a new one.

    Raises:
        UsageError: The session was opened for another pixel size, or another kind of fields.
        RemoteError: The service refuses.
    """
    mpp = pixel_size(camera)
    if arguments.session:
        session = client.resume(arguments.session)
        opened = session.opened
        if abs(opened.mpp - mpp) > SAME_MPP * opened.mpp:
            raise UsageError(
                f"Session {session.session_id} is read at {opened.mpp:g} µm/px and this source is "
                f"at {mpp:g}; open a new session (leave --session out)."
            )
        if opened.independent != arguments.independent:
            kind = "independent fields" if opened.independent else "fields with positions"
            raise UsageError(
                f"Session {session.session_id} takes {kind}; "
                f"{'add' if opened.independent else 'leave out'} --independent."
            )
        _check_calibration(client, opened, arguments.calibration)
        return session
    model = _ready_model(client, arguments.bundle)
    calibration = calibrated(client, camera, arguments.calibration)
    if calibration and not arguments.calibration:
        say(f"calibrated on clean glass; the session runs under calibration {calibration}")
    return client.open_session(
        model.name,
        digest=model.digest,
        mpp=mpp,
        optics=pb.Optics(insist_mpp=arguments.insist_mpp),
        independent=arguments.independent,
        insist_geometry=arguments.insist_geometry,
        allow_enlargement=arguments.allow_enlargement,
        insist_light=arguments.insist_light,
        calibration=calibration,
        stage=stage_frame(camera),
        tissue=outline(camera, model, arguments.allow_enlargement),
    )


def _check_calibration(client: Client, opened: SessionInfo, named: str) -> None:
    """Refuse to go on with a session under another calibration than it began with.

    Raises:
        UsageError: The one that is named is another, or was measured anew since.
    """
    if not named:
        return
    known = {found.name: found.digest for found in client.calibrations()}
    if (named, known.get(named)) != (opened.calibration, opened.calibration_digest):
        began = f"{opened.calibration or 'none'} {opened.calibration_digest[:19]}".strip()
        raise UsageError(
            f"Session {opened.session_id} runs under calibration {began}, and {named} is now "
            f"{known.get(named, 'unknown')[:19]}; leave --calibration out to go on under the one "
            "that it began with, or open a new session (leave --session out)."
        )


def _ready_model(client: Client, name: str) -> ModelInfo:
    """Return the bundle to use, once it is loaded.

    Raises:
        UsageError: The service has several, or none of that name.
        RemoteError: The bundle cannot be run.
        ServiceUnavailableError: It is still loading after minutes.
    """
    until = time.monotonic() + BUNDLE_S
    while True:
        models = client.models()
        loading = any(model.state == "STARTING" for model in models)
        known = ", ".join(model.name for model in models)
        found = [model for model in models if name in ("", model.name)]
        if len(found) == 1 and found[0].state != "STARTING":
            if found[0].state == "FAILED":
                raise RemoteError(found[0].detail, "FAILED_PRECONDITION", "BUNDLE_INVALID")
            return found[0]
        if len(found) > 1 and not name:
            raise UsageError(f"The service has several bundles ({known}); name one with --bundle.")
        if not found and not loading:
            raise UsageError(f"The service has no bundle {name!r}; it has {known}.")
        if time.monotonic() > until:
            raise ServiceUnavailableError(
                f"The service at {client.address} is still loading its bundles; try again later."
            )
        time.sleep(POLL_S)


def _document(info: SessionInfo, errors: tuple[str, ...]) -> dict[str, object]:
    out: dict[str, object] = {
        "score": info.score.as_json() if info.score else None,
        "instances": info.instances,
        "bundle": info.model.digest,
        "session": info.session_id,
        "fields": dict(info.fields),
        "coverage": info.coverage,
        "light": info.light,
        "geometry": info.geometry.as_json(),
        "slide": info.slide.as_json(),
        "camera": info.camera,
        "notice": RESEARCH_USE_ONLY,
    }
    if errors:
        out["errors"] = list(errors)
    return out


def _print(info: SessionInfo, seconds: float, answered: int) -> None:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in info.fields.items())
    rows = [
        ("session", info.session_id),
        ("bundle", f"{info.model.name} {info.model.digest[:19]}..."),
        ("fields", f"{counts or 'none'} ({answered / max(seconds, 1e-9):.1f} per second)"),
        ("instances", str(info.instances)),
        ("coverage", f"{info.coverage:.1%} of the tissue known"),
        *((("light", LIGHT_TEXT[info.light]),) if info.light in LIGHT_TEXT else ()),
        ("camera", info.camera or "not verified"),
    ]
    rows += [
        (name, f"{check.state.value}: {check.sentence}")
        for name, check in (("geometry", info.geometry), ("slide", info.slide))
    ]
    if info.score is None:
        rows.append(("score", "none yet: no tissue was seen"))
    else:
        shown = info.score.probabilities or info.score.logits
        for name, number in zip(info.score.classes, shown, strict=False):
            rows.append(("score", f"{name}: {number:.4f}"))
    print_table(rows)
    print(RESEARCH_USE_ONLY)
