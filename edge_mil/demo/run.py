"""Run the main job from end to end: slide, service, stream of fields, live score, report."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from edge_mil.bundle import Bundle, open_bundle
from edge_mil.cameras import ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.client import Client, ClientSession
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.service_process import ServiceProcess
from edge_mil.demo.terminal import LiveView
from edge_mil.demo.tiled_tiff import write_tiled_tiff
from edge_mil.errors import StoreError
from edge_mil.imaging import GridGeometry
from edge_mil.pipeline.whole_slide.cells import slide_outline
from edge_mil.session import SessionFolder
from edge_mil.session.report.content import ReportContent, session_report
from edge_mil.session.report.page import write_report
from edge_mil.types import RESEARCH_USE_ONLY, FieldResult, Frame, Region

BUNDLE = Path(__file__).parent / "bundle"
DEFAULT_SEED = 4
PAINTED_FIELD_PX = (512, 384)
"""Small fields, so that the score takes many steps on a slide 1.5 mm wide."""
PAINTED_FPS = 12.0
"""Slow enough to watch; a microscope with a motor stage takes some five fields a second."""

ONLY_PAINTED = (
    "The demo's model knows painted tissue only: its score of a real slide means nothing."
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo plays.

    Attributes:
        slide: A slide file; None paints one.
        mpp: Pixel size of that slide, µm/px; None takes the file's own.
        insist_mpp: Take `mpp` also where the file says another pixel size.
        seed: Of the painted slide.
        positive: Whether the painted slide holds foci.
        out: Folder of the report, and of the painted slide.
        state: Folder of the session's records; None keeps them in a temporary one.
        fps: Upper limit of fields per second; None for none.
    """

    slide: Path | None = None
    mpp: float | None = None
    insist_mpp: bool = False
    seed: int = DEFAULT_SEED
    positive: bool = True
    out: Path = Path("edge-mil-demo")
    state: Path | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """The end of a demo.

    Attributes:
        report: The page.
        content: What it shows.
    """

    report: Path
    content: ReportContent


def run_demo(options: DemoOptions, console: Console) -> DemoResult:
    """Play a slide through a service of its own and write the session's report.

    Args:
        options: What to play.
        console: Where people read along.

    Raises:
        EdgeMilError: The slide cannot be read, its pixel size is unknown or does not fit the
            model, or the report cannot be written.
    """
    _make_folder(options.out)
    bundle = open_bundle(BUNDLE)
    console.out(RESEARCH_USE_ONLY)
    slide_path = options.slide or _paint(options, console)
    if options.slide is not None:
        console.out(ONLY_PAINTED)
    with tempfile.TemporaryDirectory(prefix="edge-mil-demo-") as temporary:
        state = options.state or Path(temporary)
        _make_folder(state)
        slide = SlideFile(slide_path, options.mpp, insist=options.insist_mpp)
        try:
            session_id = _read_slide(options, slide, bundle, state, console)
        finally:
            slide.close()
        # What `edge-mil session report` does.
        content = session_report(SessionFolder(state), session_id, bundle)
    if options.slide is not None:
        warning = f"{ONLY_PAINTED} {content.warning}".strip()
        content = dataclasses.replace(content, warning=warning)
    report = options.out / "report.html"
    write_report(content, report)
    return DemoResult(report.resolve(), content)


def _paint(options: DemoOptions, console: Console) -> Path:
    kind = "with" if options.positive else "without"
    console.out(
        f"painting a slide {kind} foci of atypical nuclei (seed {options.seed})", highlight=False
    )
    path = options.out / "painted.tiff"
    painted = paint_slide(options.seed, positive=options.positive)
    write_tiled_tiff(path, painted.pixels, MPP)
    return path


def _read_slide(
    options: DemoOptions, slide: SlideFile, bundle: Bundle, state: Path, console: Console
) -> str:
    """Read the slide in a session of its own service; return the session's id."""
    fov = PAINTED_FIELD_PX if options.slide is None else None
    tissue = _tissue_outline(slide, bundle)
    camera = VirtualMicroscope(slide, ScanPlan(fps=options.fps), fov, tissue)
    console.out("starting edge-mil serve")
    with ServiceProcess(BUNDLE, state) as service, Client(service.address) as client:
        transport = service.address.split(":", maxsplit=1)[0]
        console.out(
            f"streaming {len(camera.corners)} fields of {slide.path.name} to {transport} over gRPC",
        )
        width_mm, height_mm = (
            side * slide.mpp / 1000 for side in (slide.width_px, slide.height_px)
        )
        session = client.open_session(
            bundle.manifest.name,
            mpp=camera.mpp,
            tissue=tissue,
            slide_label=slide.path.name,
            labels={
                "slide": f"{slide.width_px} x {slide.height_px} px, "
                f"{width_mm:.2f} x {height_mm:.2f} mm"
            },
        )
        answered = _stream(session, camera, bundle, console)
        session.close(expected_fields=answered)
        return session.session_id


def _stream(
    session: ClientSession, camera: VirtualMicroscope, bundle: Bundle, console: Console
) -> int:
    """Send every field; return how many were answered."""
    slide = camera.slide
    view = LiveView(
        console,
        slide.width_px * slide.mpp,
        slide.height_px * slide.mpp,
        len(camera.corners),
        bundle.manifest.task.classes[-1],
    )

    def answered(result: FieldResult, frame: Frame) -> None:
        view.show(result, frame, camera.mpp)

    with view:
        return session.send_frames(camera.frames(), answered).answered


def _tissue_outline(slide: SlideFile, bundle: Bundle) -> tuple[Region, ...]:
    """Return where the tissue is, so that the coverage is a share of all of it."""
    spec = bundle.manifest.input
    if spec is None:
        return ()
    geometry = GridGeometry(slide.mpp, spec.tile_height_px, spec.tile_width_px, spec.mpp)
    return tuple(slide_outline(slide, geometry, spec.tissue))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {path} cannot be made ({error.strerror}); name another."
        ) from error
