"""The main job from end to end: a slide, a service, a stream of fields, a live score, a report."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cameras import ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.client import Client, ClientSession
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.report_content import gather
from edge_mil.demo.service_process import ServiceProcess
from edge_mil.demo.terminal import LiveView
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.errors import StoreError
from edge_mil.imaging import GridGeometry
from edge_mil.pipeline.whole_slide.cells import slide_outline
from edge_mil.session.report.page import ReportContent, render_report
from edge_mil.types import RESEARCH_USE_ONLY, FieldResult, Frame, Region

BUNDLE = Path(__file__).parent / "bundle"
DEFAULT_SEED = 4
PAINTED_FIELD_PX = (512, 384)
"""Small fields, so that the score has steps to take on a slide of 1.5 mm."""
PAINTED_FPS = 12.0
"""Slow enough to watch; a microscope with a motor stage takes some five fields a second."""

ONLY_PAINTED = (
    "The demo's model knows painted tissue only: its score of a real slide means nothing."
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to play.

    Attributes:
        slide: A slide file; None paints one.
        mpp: Pixel size of that slide, um/px; None takes the file's own.
        seed: Of the painted slide.
        positive: Whether the painted slide holds foci.
        out: Folder of the report, and of the painted slide.
        state: Folder of the session's records; None keeps them in a temporary one.
        fps: Upper limit of fields per second; None for none.
    """

    slide: Path | None = None
    mpp: float | None = None
    seed: int = DEFAULT_SEED
    positive: bool = True
    out: Path = Path("edge-mil-demo")
    state: Path | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """What came of it.

    Attributes:
        report: The page.
        content: What it shows.
    """

    report: Path
    content: ReportContent


def run_demo(options: DemoOptions, out: TextIO) -> DemoResult:
    """Play a slide through a service of its own and write the report.

    Args:
        options: What to play.
        out: Where people read along.

    Raises:
        EdgeMilError: The slide cannot be read, its pixel size is unknown or does not fit the
            model, or the report cannot be written.
    """
    _make_folder(options.out)
    bundle = open_bundle(BUNDLE)
    _say(out, RESEARCH_USE_ONLY)
    slide_path = options.slide or _painted(options, out)
    if options.slide is not None:
        _say(out, ONLY_PAINTED)
    slide = SlideFile(slide_path, options.mpp)
    try:
        content = _played(options, slide, bundle, out)
    finally:
        slide.close()
    report = options.out / "report.html"
    try:
        report.write_text(render_report(content), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The report cannot be written to {report} ({error.strerror}); name another --out."
        ) from error
    return DemoResult(report.resolve(), content)


def _painted(options: DemoOptions, out: TextIO) -> Path:
    kind = "with" if options.positive else "without"
    _say(out, f"painting a slide {kind} foci of atypical nuclei (seed {options.seed})")
    path = options.out / "painted.tiff"
    painted = paint_slide(options.seed, positive=options.positive)
    write_tiled_tiff(path, painted.pixels, MPP)
    return path


def _played(options: DemoOptions, slide: SlideFile, bundle: Bundle, out: TextIO) -> ReportContent:
    fov = PAINTED_FIELD_PX if options.slide is None else None
    tissue = _outline(slide, bundle)
    camera = VirtualMicroscope(slide, ScanPlan(fps=options.fps), fov, tissue)
    with tempfile.TemporaryDirectory(prefix="edge-mil-demo-") as temporary:
        state = options.state or Path(temporary)
        _make_folder(state)
        _say(out, "starting edge-mil serve")
        with ServiceProcess(BUNDLE, state) as service, Client(service.address) as client:
            _say(
                out,
                f"streaming {len(camera.corners)} fields of {slide.path.name} "
                f"to {service.address.split(':', maxsplit=1)[0]} over gRPC",
            )
            session = client.open_session(
                bundle.manifest.name,
                mpp=camera.mpp,
                tissue=tissue,
                slide_label=slide.path.name,
            )
            answers = _stream(session, camera, bundle, out)
            closed = session.close(expected_fields=len(answers))
            warning = "" if options.slide is None else ONLY_PAINTED
            return gather(session, closed.info, answers, slide, bundle, warning)


def _stream(
    session: ClientSession, camera: VirtualMicroscope, bundle: Bundle, out: TextIO
) -> list[FieldResult]:
    slide = camera.slide
    view = LiveView(
        out,
        slide.width_px * slide.mpp,
        slide.height_px * slide.mpp,
        len(camera.corners),
        bundle.manifest.task.classes[-1],
    )
    answers: list[FieldResult] = []
    lock = threading.Lock()

    def answered(result: FieldResult, frame: Frame) -> None:
        with lock:
            answers.append(result)
            view.show(result, frame, camera.mpp)

    session.send_frames(camera.frames(), answered)
    view.finish()
    return answers


def _outline(slide: SlideFile, bundle: Bundle) -> tuple[Region, ...]:
    """Return where the tissue is, so that the coverage is a share of all of it."""
    spec = bundle.manifest.input
    if spec is None:
        return ()
    geometry = GridGeometry(slide.mpp, spec.tile_height_px, spec.tile_width_px, spec.mpp)
    found: Iterable[Region] = slide_outline(slide, geometry, spec.tissue)
    return tuple(found)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {path} cannot be made ({error.strerror}); name another."
        ) from error


def _say(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()
