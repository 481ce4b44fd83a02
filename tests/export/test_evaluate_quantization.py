"""The evaluation of INT8 on unseen bags, and the distillation, on networks that take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_extractor import FEATURES, TILE_PX, tiny_net

pytest.importorskip("torch")

from edge_mil_export.extractors import TorchExtractor, open_extractor, parse_normalisation
from edge_mil_export.fidelity.bags import HELD_BACK, Bag, FidelitySet
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.onnx_export.extractor_graph import export_extractor, open_graph

NORMALISE = "0.5,0.5,0.5/0.25,0.25,0.25"
SIZE = (TILE_PX, TILE_PX)


@pytest.fixture(autouse=True)
def scripts() -> Iterator[None]:
    """Put the scripts on the path, on one thread: their bags are too small for two."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_rows_are_of_unseen_bags_and_fp32_is_its_own_reference(tmp_path: Path) -> None:
    from cross_validated_heads import cross_validate
    from evaluate_quantization import PRECISIONS, evaluate, table
    from evaluation_subjects import Subject, bundle_head

    net = tiny_net(tmp_path)
    source = TorchExtractor("tiny", SIZE, parse_normalisation(NORMALISE), net)
    graph = export_extractor(source, FEATURES)
    bags = tuple(Bag(f"bag {k}", paint_tiles(6, SIZE, k)) for k in range(12))
    features = [open_graph(graph.data).features(bag.tiles) for bag in bags]
    labels = [k // 2 % 2 for k in range(12)]
    heads = cross_validate(features, {"task": labels}, seeds=2)
    for group in ("task 0", "task 1"):
        asked = [k for head in heads if head.group == group for k in head.unseen]
        assert sorted(asked) == list(range(12))
    on = FidelitySet(np.concatenate([bag.tiles for bag in bags[:3]]), ("a",), bags[3:6], HELD_BACK)
    reported = tuple(range(6, 12))
    subject = Subject(
        "tiny", source, graph, bundle_head(features, labels), on, bags, reported, tuple(heads)
    )
    rows = evaluate(subject)
    assert [row.graph for row in rows] == list(PRECISIONS)
    assert all(row.scores == 2 * len(reported) and len(row.shifted) == 4 for row in rows)
    assert rows[0].plain.largest == rows[0].shifted_max == 0
    assert rows[0].centred_min == pytest.approx(1)
    assert all(row.plain.largest > 0 and row.centred_min > 0.9 for row in rows[1:])
    assert all(row.recipe and row.tried for row in rows[2:])
    assert table(rows).count("| tiny |") == len(rows)


def test_a_student_is_the_same_each_time_and_opens_with_the_exporter(tmp_path: Path) -> None:
    import torch
    from distil_extractors import Student, distil

    tiles = paint_tiles(8, SIZE, 0)
    targets = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    student = Student("test_resnet", 2, 1e-3)
    first, second = (distil(student, tiles, targets)[0] for _ in range(2))
    weights = tmp_path / "student.pt"
    torch.save(first.state_dict(), weights)
    source = open_extractor("timm:test_resnet", weights=weights, tile_px=SIZE, normalise=NORMALISE)
    state, other = source.module.state_dict(), second.state_dict()
    assert all(torch.equal(state[key], other[key]) for key in state)
    assert source.features(tiles[:2]).shape[0] == 2
