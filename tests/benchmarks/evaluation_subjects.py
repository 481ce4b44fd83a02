"""The extractors of `evaluate_quantization.py`, and what the exporter sees of each.

Real tissue is 39 H&E fields (bag = field): every second one goes to the exporter, which calibrates
on some and chooses its forms on the others; the rest are reported. Painted slides are told apart
by their seeds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import repository_path  # noqa: F401 - the folder of the painted bags
import torch
from cross_validated_heads import Head, cross_validate, train
from edge_mil_export.agreement import BagScorer
from edge_mil_export.extractors import ExtractorSource, open_extractor
from edge_mil_export.fidelity.bags import SLIDES, Bag, FidelitySet, split
from edge_mil_export.fidelity.scoring import HeadScorer
from edge_mil_export.onnx_export.exported_aggregator import export_aggregator
from edge_mil_export.onnx_export.extractor_graph import ExtractorGraph, export_extractor, open_graph
from edge_mil_export.tiles import FileTiles, TileMaker, spread

from edge_mil.backends import open_backend
from edge_mil.bundle import Bundle, open_bundle
from edge_mil.protocols import Graph
from edge_mil.types import Float32Array, Float64Array

MPP = 1.0
"""10x scans; their files name no pixel size."""
NORMALISE = "0.485,0.456,0.406/0.229,0.224,0.225"
FIELDS = "osteosarcoma_he"
TASKS = {"tumour": ("non_viable_tumor", "viable"), "viable": ("viable",)}
"""Task -> the folders that are positive."""
FIELD_TILES = 16
"""Of a field of 64 tiles of 128 px; at 224 px it has no more."""
PAINTED_FOR_EXPORTER, PAINTED_REPORTED = 82_000, 84_000
"""First seeds; the model was trained on those from 10 000 on and tested on those from 60 000 on."""
EXPORTER_SLIDES = 4, 8
"""To calibrate on, and to choose forms on."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One extractor, ready to be exported and asked.

    Attributes:
        name: For the table.
        source: The original.
        graph: Its FP32 graph.
        scorer: The head that goes into the bundle and decides the ladder.
        on: What the exporter sees.
        bags: All bags, those of the exporter too.
        reported: Numbers of the bags that it does not see.
        heads: Asked about the bags that are unseen by them.
    """

    name: str
    source: ExtractorSource
    graph: ExtractorGraph
    scorer: BagScorer
    on: FidelitySet
    bags: tuple[Bag, ...]
    reported: tuple[int, ...]
    heads: tuple[Head, ...]


def real_tissue(
    name: str, extractor: str, weights: Path, tile_px: int, fields: Path, seeds: int
) -> Subject:
    """Return an extractor with heads trained on its features of real fields.

    Args:
        name: For the table.
        extractor: As `--extractor` takes it.
        weights: Of it.
        tile_px: Side of a tile.
        fields: Folder with a folder for each kind of field.
        seeds: Of the heads.
    """
    size = (tile_px, tile_px)
    source = open_extractor(extractor, weights=weights, tile_px=size, normalise=NORMALISE)
    width = source.features(np.zeros((1, *size, 3), np.uint8)).shape[1]
    graph = export_extractor(source, width)
    files = [
        replace(file, tiles=file.tiles[spread(len(file.tiles), FIELD_TILES)])
        for file in TileMaker(size, MPP, "grid").folder(fields)
    ]
    network = open_graph(graph.data)
    features = [network.features(file.tiles) for file in files]
    tasks = {
        task: [int(file.name.split("/")[0] in folders) for file in files]
        for task, folders in TASKS.items()
    }
    tiles, names, held = split(files[::2])
    return Subject(
        name,
        source,
        graph,
        bundle_head(features, tasks["viable"]),
        FidelitySet(tiles, names, held, "calibration images held back"),
        tuple(Bag(file.name, file.tiles) for file in files),
        tuple(range(1, len(files), 2)),
        tuple(cross_validate(features, tasks, seeds)),
    )


def demo(slides: int) -> Subject:
    """Return the demo's extractor with the head of its bundle, on painted slides.

    Args:
        slides: How many are reported.
    """
    from painted_bags import painted_bags

    from edge_mil.demo.run import BUNDLE

    bundle = open_bundle(BUNDLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "extractor.onnx"
        path.write_bytes(bundle.read("extractor.onnx"))
        source = open_extractor(f"onnx:{path}", weights=None, tile_px=(128, 128), normalise="none")
    width = bundle.manifest.aggregator.feature_dim
    given = painted_bags(PAINTED_FOR_EXPORTER, sum(EXPORTER_SLIDES), 2)
    shown = painted_bags(PAINTED_REPORTED, slides, 2)
    files = [FileTiles(f"painted {bag.seed}", bag.tiles, is_tile=False) for bag in given]
    tiles, names, _ = split(files[: EXPORTER_SLIDES[0]])
    judged = tuple(Bag(file.name, file.tiles) for file in files[EXPORTER_SLIDES[0] :])
    scorer = PackedHead(bundle)
    bags = tuple(Bag(f"painted {bag.seed}", bag.tiles) for bag in shown)
    numbers = tuple(range(len(bags)))
    head = Head(
        lambda features: float(scorer.score(features)[1]),
        numbers,
        "positive",
        tuple(int(bag.positive) for bag in shown),
    )
    return Subject(
        "demo extractor, 128 px",
        source,
        export_extractor(source, width),
        scorer,
        FidelitySet(tiles, names, judged, SLIDES),
        bags,
        numbers,
        (head,),
    )


class PackedHead:
    """The head of a finished bundle with one attention channel and a softmax over its classes."""

    def __init__(self, bundle: Bundle) -> None:
        cpu = open_backend("cpu", threads=1)
        self._attend, self._classify = (
            cpu.open(Graph(bundle.read(f"{role}.onnx"), role)) for role in ("attend", "classify")
        )

    def score(self, features: Float32Array) -> Float64Array:
        """Return probabilities (c,) of a bag (n, d)."""
        found = self._attend.run({"features": np.ascontiguousarray(features)})
        shares = _softmax(found["attention_logits"].astype(np.float64))
        pooled = (shares.T @ found["values"]).astype(np.float32)[None]
        return _softmax(self._classify.run({"pooled": pooled})["logits"][0].astype(np.float64))

    def attention_logits(self, features: Float32Array) -> Float32Array | None:
        """Return attention logits (n, 1)."""
        return self._attend.run({"features": np.ascontiguousarray(features)})["attention_logits"]


def _softmax(logits: Float64Array) -> Float64Array:
    """Return shares along the first axis."""
    powers: Float64Array = np.exp(logits - logits.max(axis=0))
    shares: Float64Array = powers / powers.sum(axis=0)
    return shares


def bundle_head(features: list[Float32Array], labels: list[int]) -> HeadScorer:
    """Train a head on all fields, as a user brings one, and export it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "abmil.pt"
        torch.save(train(features, labels, 0).state_dict(), path)
        made = export_aggregator(path, arch=None, options={}, classes=("other", "viable"))
    return HeadScorer(made)
