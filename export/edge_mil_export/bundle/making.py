"""Make a bundle from an extractor and a head: export, compare, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    check_out,
    write_bundle,
)
from edge_mil.errors import BundleError, NotThereYetError
from edge_mil.imaging import TissueTest
from edge_mil.pipeline.ood.reference import REFERENCE_FILE
from edge_mil.version import __version__
from edge_mil_export.bundle.aggregator_bundle import bundle_name
from edge_mil_export.bundle.early_checks import check_files
from edge_mil_export.bundle.licences import Terms, parse_licences
from edge_mil_export.bundle.model_card import write_card
from edge_mil_export.bundle.reference_file import make_reference
from edge_mil_export.bundle.stain_target import fit_stain
from edge_mil_export.extractors import ExtractorSource, open_extractor
from edge_mil_export.extractors.options import ExtractorOptions
from edge_mil_export.fidelity.bags import gather
from edge_mil_export.fidelity.html_page import render_page
from edge_mil_export.fidelity.measuring import measure
from edge_mil_export.fidelity.report import Fidelity
from edge_mil_export.fidelity.scoring import HeadScorer
from edge_mil_export.onnx_export.exported_aggregator import ExportedAggregator, export_aggregator
from edge_mil_export.onnx_export.extractor_graph import ExtractorGraph, export_extractor
from edge_mil_export.onnx_export.head_task import Assumption
from edge_mil_export.progress import step
from edge_mil_export.tiles import FileTiles, TileMaker

EXTRACTOR_FILE = "extractor.onnx"
FP16_FILE = "extractor.fp16.onnx"
INT8_FILES = {"cpu": "extractor.int8.cpu.onnx", "trt": "extractor.int8.trt.onnx"}


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """The options of `edge-mil-export bundle`, read and checked one by one.

    Attributes:
        extractor: KIND:WHERE.
        extractor_weights: File of its weights, where it does not hold them itself.
        aggregator: Checkpoint of the head.
        arch: Architecture of the head; None finds it from the checkpoint's keys.
        arch_options: What the checkpoint cannot tell.
        classes: Names of the outputs; None numbers them.
        instances: grid or field.
        tile_px: Height and width.
        mpp: Pixel size that the model was trained at, um/px.
        int8: Whether the INT8 dialects are exported too.
        fp16: Whether FP16 is, for TensorRT.
        calibration: Folder of tiles, images or slides; None without.
        fidelity_slides: Slides on which scores are compared.
        max_difference: What a slide score may move by.
        normalise: As `--normalise` gives it.
        name: Of the bundle; "" names it as its folder.
        licences: As `--licence` gives them.
        stain: macenko or reinhard; None takes tiles as they are.
        task: What the head's outputs mean; None: what its authors leave no doubt about.
        extractor_options: What the extractor's file cannot tell.
        robustness: Whether to measure what faults of a camera do to the score.
    """

    extractor: str
    extractor_weights: Path | None
    aggregator: Path
    arch: str | None
    arch_options: Mapping[str, str]
    classes: Sequence[str] | None
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
    task: str | None = None
    extractor_options: ExtractorOptions = field(default_factory=ExtractorOptions)
    robustness: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ExportedBundle:
    """A bundle that was written.

    Attributes:
        bundle: The bundle, opened and verified.
        fidelity: Its fidelity report, as JSON values.
        summary: One line on the aggregator.
        unknown_licences: Parts whose licence nobody named.
        assumed: What the head's file does not say and was taken for granted.
        extractor_facts: What was read from the extractor's file, and what was settled beside it.
        extractor_left_out: Parts of that file that its features do not need.
    """

    bundle: Bundle
    fidelity: dict[str, Any]
    summary: str
    unknown_licences: tuple[str, ...]
    assumed: tuple[Assumption, ...]
    extractor_facts: tuple[str, ...] = ()
    extractor_left_out: tuple[str, ...] = ()


def make_bundle(request: BundleRequest, out: Path) -> ExportedBundle:
    """Export an extractor and a head, compare them with the originals, and write the bundle.

    Args:
        request: What the bundle is made from.
        out: Folder to write; an earlier bundle there is replaced.

    Raises:
        EdgeMilError: An input does not fit, a graph is not its original, or no INT8 form holds.
    """
    # 1. What costs little comes first: the folders, the extractor's file, the head, the width.
    check_out(out, force=True)
    check_files(request.aggregator, request.fidelity_slides, request.calibration)
    with step("reading the extractor"):
        source = open_extractor(
            request.extractor,
            weights=request.extractor_weights,
            tile_px=request.tile_px,
            normalise=request.normalise,
            options=request.extractor_options,
        )
    with step("exporting the aggregator"):
        head = export_aggregator(
            request.aggregator,
            arch=request.arch,
            options=request.arch_options,
            classes=request.classes,
            task=request.task,
        )
    if head.needs_positions:
        raise NotThereYetError(
            f"{head.spec.architecture} needs the coordinates of the tiles in the unit of its "
            "training, so in this release it scores saved features only; export it with "
            "edge-mil-export aggregator."
        )
    terms = parse_licences(request.licences, card=source.licence)
    feature_dim = _feature_width(source, head)
    # 2. Tiles that calibrate, and bags on which scores are compared.
    maker = TileMaker(request.tile_px, request.mpp, request.instances)
    tiles, stain = gather(maker, request.calibration, request.fidelity_slides), None
    if request.stain is not None:
        stain, tiles = fit_stain(request.stain, tiles)
    # 3. The graphs, each compared with the original.
    with step("exporting the extractor, and comparing it with the original"):
        graph = export_extractor(source, feature_dim)
    fidelity = measure(
        source,
        graph,
        HeadScorer(head),
        tiles,
        int8=request.int8,
        fp16=request.fp16,
        max_difference=request.max_difference,
        robustness=request.robustness,
    )
    # 4. The bundle's files.
    manifest = _manifest(request, source, head, terms, request.name or bundle_name(out), stain)
    weights = {
        "extractor": request.extractor_weights.name if request.extractor_weights else "in the file",
        "aggregator": request.aggregator.name,
    }
    document = fidelity.document()
    content = {
        **_graphs(graph, fidelity),
        **head.graphs,
        "fidelity.json": fidelity.to_json(),
        "fidelity.html": render_page(manifest.name, document),
        "model_card.md": write_card(
            manifest, head.summary, document, weights, source, head.assumed
        ),
        **_reference(source, tiles.read, TissueSpec()),
    }
    bundle = write_bundle(manifest, content, out)
    return ExportedBundle(
        bundle,
        document,
        head.summary,
        terms.unknown,
        head.assumed,
        source.facts,
        source.left_out,
    )


def _feature_width(source: ExtractorSource, head: ExportedAggregator) -> int:
    probe = np.full((2, *source.tile_px, 3), 200, dtype=np.uint8)
    width = int(source.features(probe).shape[1])
    if width != head.spec.feature_dim:
        raise BundleError(
            f"{source.name} gives features of width {width} and {head.spec.architecture} takes "
            f"{head.spec.feature_dim}; name the extractor that the aggregator was trained on"
            f"{_width_hint(source, width, head.spec.feature_dim)}.",
            extractor=width,
            aggregator=head.spec.feature_dim,
        )
    return width


def _width_hint(source: ExtractorSource, width: int, wanted: int) -> str:
    """Return what may explain two widths, where it is a known choice."""
    is_published = source.name.startswith(("checkpoint:", "preset:"))
    if is_published and "ResNet" in "".join(source.facts[:1]) and width == 2 * wanted:
        return " (CLAM stops after the third stage: --extractor-option cut=layer3)"
    if is_published and 2 * width == wanted:
        return " (or its pooling: cls_patch_mean is twice as wide)"
    return ""


def _manifest(
    request: BundleRequest,
    source: ExtractorSource,
    head: ExportedAggregator,
    terms: Terms,
    name: str,
    stain: StainSpec | None,
) -> Manifest:
    graphs = {"fp32": EXTRACTOR_FILE}
    if request.fp16:
        graphs["fp16"] = FP16_FILE
    if request.int8:
        graphs |= {f"int8-{dialect}": file for dialect, file in INT8_FILES.items()}
    normal = source.normalisation
    return Manifest(
        name=name,
        version="1",
        task=head.task,
        input=InputSpec(
            instances=request.instances,
            tile_height_px=request.tile_px[0],
            tile_width_px=request.tile_px[1],
            mpp=request.mpp,
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
    files = {EXTRACTOR_FILE: graph.data}
    if fidelity.fp16 is not None:
        files[FP16_FILE] = fidelity.fp16.data
    return files | {INT8_FILES[dialect]: found.data for dialect, found in fidelity.int8.items()}


def _reference(
    source: ExtractorSource, files: Sequence[FileTiles], tissue: TissueSpec
) -> dict[str, bytes]:
    """Return `reference.npz`, from the calibration folder; nothing without one."""
    if not files:
        return {}
    test = TissueTest(tissue.background, tissue.min_difference, tissue.min_share)
    return {REFERENCE_FILE: make_reference(files, source.features, test)}
