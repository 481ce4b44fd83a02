"""From a session of the service to what its report shows."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cv2
import numpy as np

from edge_mil.bundle import Bundle
from edge_mil.cameras import SlideFile
from edge_mil.client import ClientSession, FieldInfo, SessionInfo
from edge_mil.session.report.charts import HistoryPoint, SlidePicture
from edge_mil.session.report.content import about_model
from edge_mil.session.report.page import ReportContent, TopField
from edge_mil.types import FieldResult, Region, UInt8Array
from edge_mil.version import __version__

PICTURE_PX = 1600
"""Long side of the slide's picture: sharp on a page 1100 px wide, some 300 KB."""
PICTURE_QUALITY = 85
TOP_FIELDS = 8


def gather(
    session: ClientSession,
    info: SessionInfo,
    answers: Sequence[FieldResult],
    slide: SlideFile,
    bundle: Bundle,
    warning: str,
) -> ReportContent:
    """Ask the service for its evidence and put the report together.

    Args:
        session: The session, closed or not.
        info: Where it stands.
        answers: Every answer, in order.
        slide: What was played, for its picture.
        bundle: The model.
        warning: A sentence that stands above everything; "" for none.

    Raises:
        ServiceUnavailableError: The service went away.
    """
    class_name = bundle.manifest.task.classes[-1]
    index = len(bundle.manifest.task.classes) - 1
    top = session.top_fields(TOP_FIELDS, class_name) if info.score else []
    return ReportContent(
        title=slide.path.name,
        subtitle=f"Read on {_date(info.created_s)} by edge_mil {__version__}, "
        f"{len(answers)} fields over gRPC",
        bundle_name=f"{bundle.manifest.name} {bundle.manifest.version}",
        bundle_digest=bundle.digest,
        class_name=class_name,
        score=info.score,
        coverage=info.coverage,
        history=tuple(
            HistoryPoint(a.sequence, a.verdict.name, _value(a, index), a.coverage) for a in answers
        ),
        verdicts=info.fields,
        picture=_picture(slide),
        heat_map=session.heat_map(class_name) if info.score else None,
        top_fields=tuple(
            TopField(f.sequence, f.influence or 0.0, f.cells, _thumbnail(session, f), _region(f))
            for f in top
        ),
        settings={
            "session": session.session_id,
            "pixel size": f"{info.mpp:g} um/px ({info.mpp_source})",
            "slide": f"{slide.width_px} x {slide.height_px} px, "
            f"{slide.width_px * slide.mpp / 1000:.2f} x "
            f"{slide.height_px * slide.mpp / 1000:.2f} mm",
            "instances": _instances(bundle),
            "aggregator": f"{bundle.manifest.aggregator.architecture}, "
            f"{bundle.manifest.aggregator.incremental}",
            "extractor": bundle.manifest.extractor.name if bundle.manifest.extractor else "none",
        },
        about_model=about_model(bundle),
        warning=warning,
    )


def _picture(slide: SlideFile) -> SlidePicture:
    overview, _ = slide.overview(PICTURE_PX)
    shrink = min(1.0, PICTURE_PX / max(overview.shape[:2]))
    size = (max(1, round(overview.shape[1] * shrink)), max(1, round(overview.shape[0] * shrink)))
    small = cv2.resize(overview, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    region = Region(0.0, 0.0, slide.width_px * slide.mpp, slide.height_px * slide.mpp)
    return SlidePicture(_jpeg(small), region)


def _jpeg(pixels: UInt8Array) -> bytes:
    encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY],
    )[1]
    return encoded.tobytes()


def _thumbnail(session: ClientSession, field: FieldInfo) -> bytes:
    return session.thumbnail(field.sequence)


def _region(field: FieldInfo) -> Region | None:
    if field.x_um is None or field.y_um is None:
        return None
    left, top = field.x_um - field.width_um / 2, field.y_um - field.height_um / 2
    return Region(left, top, field.width_um, field.height_um)


def _value(answer: FieldResult, index: int) -> float | None:
    if answer.score is None:
        return None
    return (answer.score.probabilities or answer.score.logits)[index]


def _instances(bundle: Bundle) -> str:
    spec = bundle.manifest.input
    if spec is None:
        return "saved features"
    return (
        f"{spec.instances}: {spec.tile_width_px} x {spec.tile_height_px} px at {spec.mpp:g} um/px"
    )


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
