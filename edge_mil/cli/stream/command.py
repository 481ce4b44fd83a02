"""`edge-mil stream`: play a slide, or a folder of images, to a service as a camera would."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from edge_mil.cli.stream.camera import (
    add_faults,
    calibrated,
    open_source,
    outline,
    pixel_size,
    stage_frame,
)
from edge_mil.client import (
    Client,
    ClientSession,
    FieldStream,
    ModelInfo,
    SessionInfo,
    tune_allocator,
)
from edge_mil.errors import RemoteError, ServiceUnavailableError, UsageError
from edge_mil.protocols import Camera
from edge_mil.types import REFUSED, RESEARCH_USE_ONLY, FieldResult, Frame, Verdict

DEFAULT_SERVER = "127.0.0.1:50051"
CONNECT_S = 10.0
"""A service that was started a moment ago opens its port within this."""
BUNDLE_S = 300.0
POLL_S = 0.2
SAME_MPP = 1e-3
"""Relative difference of two pixel sizes that are the same, rounded differently."""


def add_parser(subparsers: Any) -> None:
    """Add `stream` and its arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stream",
        help="play a slide, or a folder of images, to a service as a camera would",
        description="Play a slide file as a microscope, or a folder of images, to a running "
        "edge-mil serve; wait while it is away; close the session and print its last score. "
        + RESEARCH_USE_ONLY,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a slide file, or a folder of images with positions")
    add("--server", default=DEFAULT_SERVER, metavar="ADDR", help="HOST:PORT or unix:PATH")
    add("--bundle", default="", metavar="NAME", help="where the service has several")
    add("--session", default="", metavar="ID", help="go on with this session")
    add("--calibration", default="", metavar="NAME", help="of the service: edge-mil calibrate")
    add("--mpp", type=float, metavar="X", help="pixel size, um/px (default: the slide's own)")
    add("--fov", metavar="WxH", help="field in camera pixels, as 1024x768; slides only")
    add("--overlap", type=float, default=0.1, metavar="F", help="share of a field (default: 0.1)")
    add("--path", choices=("serpentine", "random", "hover", "hand"), default="serpentine")
    add("--passes", type=int, default=1, metavar="N", help="how often the path is walked")
    add(
        "--frames",
        type=int,
        metavar="N",
        help="hover: frames at one place; hand: fields of the path (default: 200); else the end "
        "after N",
    )
    add(
        "--dwell",
        type=int,
        default=0,
        metavar="FRAMES",
        help="frames more at one place in the middle of the pass; they do not count as --frames",
    )
    add("--fps", type=float, metavar="F", help="upper limit of frames per second")
    add("--seed", type=int, default=0, metavar="S", help="of the path and of all that is drawn")
    add("--independent", action="store_true", help="images without positions: different places")
    add("--allow-enlargement", action="store_true", help="pixels over 1.5 x the model's too")
    add("--json", action="store_true", help="print one JSON document")
    add_faults(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Stream the source and print what the session came to.

    Raises:
        EdgeMilError: The source, the service or an option does not fit; the message says which.
    """
    tune_allocator()
    camera = open_source(arguments)
    try:
        with Client(arguments.server, connect_timeout_s=CONNECT_S) as client:
            session = _session(client, camera, arguments)
            play = _Playing(session, camera, progress=sys.stderr.isatty())
            _say(f"session {session.session_id}")
            summary = play.run()
            held = sum(session.opened.fields.values())
            ended = session.close(expected_fields=held + summary.answered)
    finally:
        camera.close()
    if summary.errors and not summary.answered:
        raise UsageError(f"No field could be judged: {summary.errors[0]}")
    if arguments.json:
        print(json.dumps(_document(ended.info, summary.errors), indent=2))
    else:
        _print(ended.info, play.seconds, summary.answered)
    return 0


class _Playing:
    """One source being streamed, and what people are told meanwhile."""

    def __init__(self, session: ClientSession, camera: Camera, *, progress: bool) -> None:
        self._session, self._camera, self._progress = session, camera, progress
        self._refused: dict[object, Frame] = {}
        self._began = time.monotonic()
        self._answered = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def run(self) -> Any:
        """Send every frame, then the refused places again."""
        with self._session.stream(
            on_result=self._result,
            on_error=lambda error, frame: _say(f"{frame.name or 'a field'}: {error}"),
            on_disconnected=lambda why: _say(f"waiting for the service. {why}"),
            on_resumed=lambda: _say("the service is back"),
        ) as stream:
            frames = self._camera.frames()
            self._send(stream, frames)
            stream.drain()
            for _ in range(self._camera.retakes):
                again, self._refused = self._refused, {}
                if not again:
                    break
                self._send(stream, map(self._camera.retake, again.values()))
                stream.drain()
            summary = stream.finish()
        if self._progress:
            print(file=sys.stderr)
        return summary

    @staticmethod
    def _send(stream: FieldStream, frames: Iterator[Frame]) -> None:
        for frame in frames:
            stream.send(frame)

    def _result(self, result: FieldResult, frame: Frame) -> None:
        self._answered += 1
        if result.verdict in REFUSED:
            # Only where it was: the pixels would fill the memory.
            place = (frame.x_um, frame.y_um, frame.location_id, frame.name)
            self._refused[place] = Frame(
                frame.pixels[:1, :1].copy(),
                frame.x_um,
                frame.y_um,
                frame.location_id,
                name=frame.name,
            )
        if result.verdict is Verdict.UNLOCATED:
            # Here, so that a client without OpenCV can stream, too.
            from edge_mil.imaging.registration import why_unlocated

            lead = "\n" if self._progress else ""  # the progress line has no end of its own
            print(f"{lead}edge-mil stream: {why_unlocated(result.measures)}", file=sys.stderr)
        if self._progress:
            rate = self._answered / max(self.seconds, 1e-9)
            line = (
                f"{self._answered} fields, {rate:.1f}/s, {result.verdict.name}, "
                f"coverage {result.coverage:.0%}, {_headline(result)}"
            )
            print(f"\r{line:<79.79}", end="", file=sys.stderr, flush=True)


def _session(client: Client, camera: Camera, arguments: argparse.Namespace) -> ClientSession:
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
                f"Session {session.session_id} is read at {opened.mpp:g} um/px and this source is "
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
        _say(f"calibrated on clean glass; the session runs under calibration {calibration}")
    return client.open_session(
        model.name,
        digest=model.digest,
        mpp=mpp,
        independent=arguments.independent,
        allow_enlargement=arguments.allow_enlargement,
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
        "notice": RESEARCH_USE_ONLY,
    }
    if errors:
        out["errors"] = list(errors)
    return out


def _print(info: SessionInfo, seconds: float, answered: int) -> None:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in info.fields.items())
    print(f"session    {info.session_id}")
    print(f"bundle     {info.model.name} {info.model.digest[:19]}...")
    print(f"fields     {counts or 'none'} ({answered / max(seconds, 1e-9):.1f} per second)")
    print(f"instances  {info.instances}")
    print(f"coverage   {info.coverage:.1%} of the tissue known")
    if info.score is None:
        print("score      none yet: no tissue was seen")
    else:
        shown = info.score.probabilities or info.score.logits
        for name, number in zip(info.score.classes, shown, strict=False):
            print(f"score      {name}: {number:.4f}")
    print(RESEARCH_USE_ONLY)


def _headline(result: FieldResult) -> str:
    if result.score is None or not result.score.classes:
        return "no score yet"
    shown = result.score.probabilities or result.score.logits
    return f"{result.score.classes[-1]} {shown[-1]:.3f}"


def _say(line: str) -> None:
    print(f"edge-mil stream: {line}", file=sys.stderr, flush=True)
