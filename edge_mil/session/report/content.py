"""Gather what a session's report shows from its stored records; beside a running service too.

The values and what gathers them, one small function each, longer than 300 lines.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_mil.bundle import Bundle, Manifest
from edge_mil.errors import SessionStateError
from edge_mil.imaging.render.mosaic_canvas import as_jpeg
from edge_mil.pipeline import Model, load_model
from edge_mil.session.answers import read_answer
from edge_mil.session.bag import Bag
from edge_mil.session.catalog import SessionFolder, SessionSummary
from edge_mil.session.field.light_history import CONTRADICTED, LIGHT, LightHistory
from edge_mil.session.field.setup import checks_light
from edge_mil.session.geometry.stored import stored_checks
from edge_mil.session.instances.base import InstanceMap
from edge_mil.session.instances.factory import open_instances
from edge_mil.session.provenance import PRECISION
from edge_mil.session.restore import stored_frame_size
from edge_mil.session.settings import SessionSettings
from edge_mil.session.stored_fields import check_same
from edge_mil.session.view.influence import InfluenceAnalysis
from edge_mil.session.view.layers import grid_layer
from edge_mil.session.view.mosaic_view import MosaicView
from edge_mil.session.view.records import FieldRecord
from edge_mil.store import SessionReader
from edge_mil.types import CellLayer, FieldResult, InfluenceMap, Region, SlideScore, Verdict
from edge_mil.verdict_text import LIGHT_TEXT
from edge_mil.version import __version__

WRONG_LIGHT_WARNING = (
    "The light of this session contradicted the background that it was opened with: glass may be "
    "counted as tissue. Calibrate the microscope on empty glass and read the slide again."
)
TOP_FIELDS = 8
MOSAIC_PX = 1600
"""Long side of the mosaic at most: sharp on a page 1100 px wide."""
FINEST_UM = 0.5
"""Size of a pixel of the mosaic of a small slide."""
MODEL_CARD = "model_card.md"


@dataclass(frozen=True, slots=True, eq=False)
class MosaicImage:
    """The mosaic of the slide as an image.

    Attributes:
        image: JPEG.
        region: Where it lies, stage um.
    """

    image: bytes
    region: Region


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """The session after one field.

    Attributes:
        sequence: The field's number.
        verdict: Its verdict.
        value: Probability of the class shown, else its logit; None while there was no score.
        coverage: 0 to 1.
    """

    sequence: int
    verdict: Verdict
    value: float | None
    coverage: float


@dataclass(frozen=True, slots=True, eq=False)
class TopField:
    """A field that moved the score.

    Attributes:
        sequence: Its number.
        influence: Logit with the field minus logit without it.
        thumbnail: JPEG.
        region: Where it lies, stage um; None without a stage.
    """

    sequence: int
    influence: float
    thumbnail: bytes
    region: Region | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReportContent:
    """What the page of one session shows.

    Attributes:
        title: Name of the slide.
        subtitle: When it was read, and by which program.
        bundle_name: Name and version of the bundle.
        bundle_digest: Its digest, "sha256:...".
        class_name: Whose score and influence are shown.
        score: The last score; None when there was none.
        coverage: Share held of the tissue cells known, 0 to 1.
        history: The session after each field, in order.
        verdicts: How many fields got each verdict.
        mosaic: The slide; None where the fields have no positions.
        heat_map: Influence of each cell; None without positions.
        layers: How the slide was seen: focus and coverage; empty without positions.
        top_fields: Those that moved the score most, largest influence first.
        settings: What the session was opened with: name -> value, shown as they are.
        about_model: What the model is and was trained on, in paragraphs.
        warning: A sentence that stands above everything; "" for none.
    """

    title: str
    subtitle: str
    bundle_name: str
    bundle_digest: str
    class_name: str
    score: SlideScore | None
    coverage: float
    history: tuple[HistoryPoint, ...]
    verdicts: Mapping[Verdict, int]
    mosaic: MosaicImage | None = None
    heat_map: InfluenceMap | None = None
    layers: tuple[CellLayer, ...] = ()
    top_fields: tuple[TopField, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    about_model: tuple[str, ...] = ()
    warning: str = ""


def session_report(folder: SessionFolder, session_id: str, bundle: Bundle) -> ReportContent:
    """Gather the report of a session that is stored in a state directory.

    Args:
        folder: The sessions of the state directory.
        session_id: Id of the session.
        bundle: The bundle that it was read with.

    Raises:
        SessionNotFoundError: There is no such session.
        BundleError: The bundle is another one.
        StoreError: The records cannot be read.
    """
    model = load_model(bundle, extractor=False)
    try:
        return gather_report(folder.reader(session_id), folder.summary(session_id), model)
    finally:
        model.close()


def gather_report(reader: SessionReader, summary: SessionSummary, model: Model) -> ReportContent:
    """Fold the session again and collect what its report shows; changes nothing.

    Args:
        reader: The session's records.
        summary: What the session was opened with.
        model: The model that it was read with; its extractor is not needed.

    Raises:
        BundleError: The model is another one.
        StoreError: The records cannot be read.
    """
    meta = reader.meta()
    check_same(meta, model)
    settings, manifest = summary.settings, model.bundle.manifest

    # The instances and the bag, as a service that starts again would restore them.
    _, instances = open_instances(model, settings, stored_frame_size(meta))
    rows = reader.fields()
    removed = {row.sequence for row in rows if row.removed}
    instances.restore(reader, removed)
    bag = Bag(model.aggregator, lambda: list(reader.states()))
    bag.load()
    score = bag.score()

    light = LightHistory(checked=checks_light(settings, model))
    light.restore(meta.get(LIGHT, ""))
    dim = WRONG_LIGHT_WARNING if light.state == CONTRADICTED else ""
    checks = stored_checks(reader, settings)
    answers = [read_answer(row.answer) for row in rows]
    counts = Counter(answer.verdict for answer in answers)
    influence = InfluenceAnalysis(model, reader, instances, settings.mpp, bag)
    class_name = manifest.task.classes[-1]
    read_on = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(summary.created))
    # Pooled numbers without a classifier have no meaning yet, so nothing has an influence on it.
    judged = score is not None and not score.pooled
    return ReportContent(
        title=settings.slide_label or f"Session {summary.session_id}",
        subtitle=f"Read on {read_on}, reported by edge_mil {__version__}, {len(answers)} fields",
        bundle_name=f"{manifest.name} {manifest.version}",
        bundle_digest=model.bundle.digest,
        class_name=class_name,
        score=score,
        coverage=instances.coverage(),
        history=_history(answers),
        verdicts={verdict: counts[verdict] for verdict in Verdict if counts[verdict]},
        mosaic=_mosaic(reader, settings),
        layers=_layers(instances),
        heat_map=_heat_map(influence, class_name, bag) if judged else None,
        top_fields=_top_fields(reader, influence, class_name) if judged else (),
        settings={**_rows(summary, meta, manifest, removed, light.state), **checks.rows()},
        about_model=_about_model(model.bundle),
        warning=" ".join(sentence for sentence in (checks.warning, dim) if sentence),
    )


def _rows(
    summary: SessionSummary,
    meta: Mapping[str, str],
    manifest: Manifest,
    removed: Collection[int],
    light: str,
) -> dict[str, str]:
    """Return the table of what the session was opened with, the client's own labels last."""
    settings, head, taken = summary.settings, manifest.aggregator, manifest.input
    tile = "saved features"
    if taken is not None:
        size = f"{taken.tile_width_px} x {taken.tile_height_px} px at {taken.mpp:g} µm/px"
        tile = f"{taken.instances}: {size}"
    rows = {
        "session": summary.session_id,
        "state": "closed" if summary.closed else "open: it may still change",
        "pixel size": f"{settings.mpp:g} µm/px ({settings.mpp_source})",
        "instances": tile,
        "extractor": manifest.extractor.name if manifest.extractor else "none",
        "aggregator": f"{head.architecture}, {head.incremental}",
        "precision": meta.get(PRECISION, "fp32"),
        "light": LIGHT_TEXT.get(light, "not checked"),
        "calibration": f"{settings.calibration_id} {settings.calibration_digest}".strip() or "none",
        "camera": _camera(settings),
        "removed by hand": ", ".join(str(s) for s in sorted(removed)) or "no field",
    }
    return {**rows, **{name: value for name, value in settings.labels.items() if name not in rows}}


def _camera(settings: SessionSettings) -> str:
    """Return what is known of the camera's effect on the score, in words."""
    if settings.camera_bound is None or settings.camera_note:
        return f"{settings.camera}. {settings.camera_note}".strip()
    return f"{settings.camera}; it shifts a score by at most {settings.camera_bound:.3f} (95 %)"


def _about_model(bundle: Bundle) -> tuple[str, ...]:
    """Return the intended use, and the paragraphs of the model card without its headings."""
    paragraphs = [bundle.manifest.intended_use]
    if bundle.has(MODEL_CARD):
        for block in bundle.read(MODEL_CARD).decode().split("\n\n"):
            text = " ".join(block.split())
            if text and not text.startswith(("#", "|", "-", "`")) and text not in paragraphs:
                paragraphs.append(text)
    return tuple(paragraphs)


def _history(answers: Sequence[FieldResult]) -> tuple[HistoryPoint, ...]:
    return tuple(
        HistoryPoint(a.sequence, a.verdict, _shown_value(a.score), a.coverage) for a in answers
    )


def _shown_value(score: SlideScore | None) -> float | None:
    """Return the number that is drawn over the fields."""
    if score is None:
        return None
    if score.value is not None:
        return score.value
    values = score.probabilities or score.logits
    return values[-1] if values else None


def _mosaic(reader: SessionReader, settings: SessionSettings) -> MosaicImage | None:
    """Return the mosaic of the accepted fields; None without positions."""
    mosaic = MosaicView(reader, settings).paint(FINEST_UM, MOSAIC_PX)
    if mosaic is None:
        return None
    height, width = mosaic.pixels.shape[:2]
    unit = mosaic.um_per_px
    region = Region(mosaic.origin_x_um, mosaic.origin_y_um, width * unit, height * unit)
    return MosaicImage(as_jpeg(mosaic.pixels), region)


def _layers(instances: InstanceMap[Any]) -> tuple[CellLayer, ...]:
    """Return focus and coverage; none where the fields have no positions."""
    try:
        found = (
            grid_layer("focus", instances.focus(), instances.extent),
            grid_layer("coverage", instances.shares(), instances.extent),
        )
    except SessionStateError:
        return ()
    return tuple(layer for layer in found if layer.values.size)


def _heat_map(influence: InfluenceAnalysis, class_name: str, bag: Bag) -> InfluenceMap | None:
    try:
        return influence.influence_map(class_name, bag.fields)
    except SessionStateError:  # no positions, or a head whose cells have no influence of their own
        return None


def _top_fields(
    reader: SessionReader, influence: InfluenceAnalysis, class_name: str
) -> tuple[TopField, ...]:
    return tuple(
        TopField(
            record.sequence,
            record.influence or 0.0,
            reader.thumbnail(record.sequence) or b"",
            _region(record),
        )
        for record in influence.top_fields(TOP_FIELDS, class_name)
    )


def _region(record: FieldRecord) -> Region | None:
    if record.x_um is None or record.y_um is None:
        return None
    left, top = record.x_um - record.width_um / 2, record.y_um - record.height_um / 2
    return Region(left, top, record.width_um, record.height_um)
