"""The way from two checkpoints to a bundle, cheap checks first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mil.bundle import (
    Bundle,
    ExtractorSpec,
    InputSpec,
    Manifest,
    StainSpec,
    TissueSpec,
    write_bundle,
)
from edge_mil.errors import BundleError, SourceError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.reference import REFERENCE_FILE
from edge_mil.version import __version__
from edge_mil_export.bundle.licences import Terms, parse_licences
from edge_mil_export.bundle.model_card import write_card
from edge_mil_export.bundle.reference import make_reference
from edge_mil_export.bundle.stain import fit_stain
from edge_mil_export.commands.aggregator import bundle_name
from edge_mil_export.extractors import ExtractorSource, open_extractor
from edge_mil_export.fidelity.bags import gather
from edge_mil_export.fidelity.html_page import render_page
from edge_mil_export.fidelity.measuring import measure
from edge_mil_export.fidelity.report import Fidelity
from edge_mil_export.fidelity.scoring import HeadScorer
from edge_mil_export.onnx_export.aggregator import (
    ExportedAggregator,
    export_aggregator,
    parse_classes,
    parse_options,
)
from edge_mil_export.onnx_export.extractor import ExtractorGraph, export_extractor
from edge_mil_export.tiles import FileTiles, TileMaker

EXTRACTOR_FILE = "extractor.onnx"
FP16_FILE = "extractor.fp16.onnx"
INT8_FILES = {"cpu": "extractor.int8.cpu.onnx", "trt": "extractor.int8.trt.onnx"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `edge-mil-export bundle` was asked for; see its options.

    Attributes:
        tile_px: Height and width.
        int8: Whether the INT8 dialects are wanted too.
        fp16: Whether FP16 is, for TensorRT.
        max_difference: What a slide score may move by.
        stain: macenko or reinhard; None takes tiles as they are.
    """

    extractor: str
    extractor_weights: Path | None
    aggregator: Path
    arch: str | None
    arch_options: tuple[str, ...]
    classes: str | None
    instances: str
    tile_px: tuple[int, int]
    mpp: float
    int8: bool
    fp16: bool
    calibration: Path | None
    fidelity_slides: tuple[Path, ...]
    max_difference: float
    normalise: str | None
    name: str
    licences: tuple[str, ...]
    stain: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A bundle that was written.

    Attributes:
        bundle: It, opened and verified.
        fidelity: Its report, as JSON values.
        summary: One line on the aggregator.
        unknown_licences: Parts whose terms nobody named.
    """

    bundle: Bundle
    fidelity: dict[str, Any]
    summary: str
    unknown_licences: tuple[str, ...]


def make_bundle(wanted: Wanted, out: Path) -> Made:
    """Export, measure and write a bundle.

    Args:
        wanted: What it is made from.
        out: Folder to write; an earlier bundle there is replaced.

    Raises:
        EdgeMilError: An input does not fit, the graph is not the original, or no INT8 form holds.
    """
    _check_out(out)
    for slide in wanted.fidelity_slides:
        if not slide.is_file():
            raise SourceError(f"There is no slide {slide}; check --fidelity-slide.")
    head = export_aggregator(
        wanted.aggregator,
        arch=wanted.arch,
        options=parse_options(wanted.arch_options),
        classes=parse_classes(wanted.classes),
    )
    source = open_extractor(
        wanted.extractor,
        weights=wanted.extractor_weights,
        tile_px=wanted.tile_px,
        normalise=wanted.normalise,
    )
    terms = parse_licences(wanted.licences, card=source.licence)
    width = _feature_width(source, head)
    maker = TileMaker(wanted.tile_px, wanted.mpp, wanted.instances)
    on, stain = gather(maker, wanted.calibration, wanted.fidelity_slides), None
    if wanted.stain is not None:
        stain, on = fit_stain(wanted.stain, on)
    graph = export_extractor(source, width)
    fidelity = measure(
        source,
        graph,
        HeadScorer(head),
        on,
        int8=wanted.int8,
        fp16=wanted.fp16,
        max_difference=wanted.max_difference,
    )
    manifest = _manifest(wanted, source, head, terms, wanted.name or bundle_name(out), stain)
    weights = {
        "extractor": wanted.extractor_weights.name if wanted.extractor_weights else "in the file",
        "aggregator": wanted.aggregator.name,
    }
    document = fidelity.document()
    content = {
        **_graphs(graph, fidelity),
        **head.graphs,
        "fidelity.json": fidelity.to_json(),
        "fidelity.html": render_page(manifest.name, document),
        "model_card.md": write_card(manifest, head.summary, document, weights),
        **_reference(source, on.read, TissueSpec()),
    }
    bundle = write_bundle(manifest, content, out)
    return Made(bundle, document, head.summary, terms.unknown)


def _check_out(out: Path) -> None:
    """Refuse a folder that is in use before the long work, as `write_bundle` would after it."""
    if out.is_file() or (
        out.is_dir() and not (out / "bundle.json").is_file() and any(out.iterdir())
    ):
        raise BundleError(f"{out} exists and is no bundle; name another --out, or remove it first.")


def _feature_width(source: ExtractorSource, head: ExportedAggregator) -> int:
    probe = np.full((2, *source.tile_px, 3), 200, dtype=np.uint8)
    width = int(source.features(probe).shape[1])
    if width != head.spec.feature_dim:
        raise BundleError(
            f"{source.name} gives features of width {width} and {head.spec.architecture} wants "
            f"{head.spec.feature_dim}; name the extractor that the aggregator was trained on.",
            extractor=width,
            aggregator=head.spec.feature_dim,
        )
    return width


def _manifest(
    wanted: Wanted,
    source: ExtractorSource,
    head: ExportedAggregator,
    terms: Terms,
    name: str,
    stain: StainSpec | None,
) -> Manifest:
    graphs = {"fp32": EXTRACTOR_FILE}
    if wanted.fp16:
        graphs["fp16"] = FP16_FILE
    if wanted.int8:
        graphs |= {f"int8-{dialect}": file for dialect, file in INT8_FILES.items()}
    normal = source.normalisation
    return Manifest(
        name=name,
        version="1",
        task=head.task,
        input=InputSpec(
            instances=wanted.instances,
            tile_height_px=wanted.tile_px[0],
            tile_width_px=wanted.tile_px[1],
            mpp=wanted.mpp,
            color_order="RGB",
            mean=normal.mean if normal else None,
            std=normal.std if normal else None,
            tissue=TissueSpec(),
            stain=stain,
        ),
        extractor=ExtractorSpec(source.name, head.spec.feature_dim, graphs),
        aggregator=head.spec,
        licences=terms.licences,
        redistributable=terms.redistributable,
        created_by=f"edge-mil-export {__version__}",
    )


def _graphs(graph: ExtractorGraph, fidelity: Fidelity) -> dict[str, bytes]:
    quantised = {INT8_FILES[dialect]: climb.data for dialect, climb in fidelity.climbs.items()}
    half = {} if fidelity.half is None else {FP16_FILE: fidelity.half.data}
    return {EXTRACTOR_FILE: graph.data, **half, **quantised}


def _reference(
    source: ExtractorSource, files: Sequence[FileTiles], tissue: TissueSpec
) -> dict[str, bytes]:
    """Return `reference.npz`, from the calibration folder; nothing without one."""
    if not files:
        return {}
    test = TissueTest(tissue.background, tissue.min_difference, tissue.min_share)
    return {REFERENCE_FILE: make_reference(files, source.features, test)}
