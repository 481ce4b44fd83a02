"""INT8 in two dialects: what each must hold, and what each must not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_extractor import FEATURES, TILE_PX, tiny_net

pytest.importorskip("torch")

from edge_mil_export.agreement import Agreement, centred_error
from edge_mil_export.errors import QuantizationError
from edge_mil_export.extractors import TorchExtractor, parse_normalisation
from edge_mil_export.extractors.timm_model import build
from edge_mil_export.fidelity.generated import paint_tiles
from edge_mil_export.onnx_export.extractor_graph import export_extractor, run_graph
from edge_mil_export.onnx_export.graph_surgery import GraphView, copy_model, resolve_constants
from edge_mil_export.quantize.calibrator import Calibrator, Statistics
from edge_mil_export.quantize.qdq import DIALECTS, quantize
from edge_mil_export.quantize.rounding import round_layer
from edge_mil_export.quantize.search import RECIPES, Acceptance, ordered_recipes, search_recipe
from edge_mil_export.quantize.sensitivity import layer_sensitivities

TILES = paint_tiles(24, (TILE_PX, TILE_PX), 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    normal = parse_normalisation("0.5,0.5,0.5/0.25,0.25,0.25")
    net = tiny_net(tmp_path_factory.mktemp("net"))
    source = TorchExtractor("net", (TILE_PX, TILE_PX), normal, net)
    return resolve_constants(export_extractor(source, FEATURES).model)


@pytest.fixture(scope="module")
def calibrator(model: onnx.ModelProto) -> Calibrator:
    return Calibrator(model, TILES[:16])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("method", ["MinMax", "Percentile"])
def test_features_stay_near(
    model: onnx.ModelProto, calibrator: Calibrator, dialect: str, method: str
) -> None:
    data = quantize(model, calibrator.statistics(method), dialect).SerializeToString()
    wanted, found = (run_graph(d, TILES[16:]) for d in (model.SerializeToString(), data))
    assert centred_error(wanted, found) < 0.02


def zero_points(model: onnx.ModelProto) -> list[np.ndarray]:
    view = GraphView(model)
    nodes = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return [view.value(node.input[2]) for node in nodes]


def test_the_trt_dialect_is_int8_with_zero_point_0_and_float_bias(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    made = quantize(model, calibrator.statistics("MinMax"), "trt")
    points = zero_points(made)
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    assert not any(t.data_type == TensorProto.INT32 for t in made.graph.initializer)


def test_the_cpu_dialect_uses_all_codes_after_a_relu(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    view = GraphView(model)
    made = quantize(model, calibrator.statistics("MinMax"), "cpu")
    found = {
        n.input[0]: GraphView(made).value(n.input[2])
        for n in made.graph.node
        if n.op_type == "QuantizeLinear"
    }
    positive = [name for name in found if view.is_positive(name)]
    assert positive
    assert all(found[name].dtype == np.uint8 and found[name] == 0 for name in positive)


def test_relu6_disappears_into_the_convolution_in_onnx_runtime(
    model: onnx.ModelProto, calibrator: Calibrator, tmp_path: Path
) -> None:
    import onnxruntime as ort

    data = quantize(model, calibrator.statistics("MinMax"), "cpu").SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node]
    assert kinds.count("QLinearConv") == 4
    assert "Clip" not in kinds


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dead_channel_does_not_overflow_its_bias(model: onnx.ModelProto, dialect: str) -> None:
    dead = copy_model(model)
    view = GraphView(dead)
    node = next(n for n in dead.graph.node if n.op_type == "Conv" and len(n.input) > 2)
    for name, value in ((node.input[1], 0.0), (node.input[2], 3.0)):
        array = view.value(name).copy()
        array[0] = value
        view.initializers[name].CopyFrom(numpy_helper.from_array(array, name))
    made = quantize(dead, Calibrator(dead, TILES[:16]).statistics("MinMax"), dialect)
    wanted, found = (run_graph(m.SerializeToString(), TILES[16:]) for m in (dead, made))
    # Without room for the bias in int32 the cpu dialect is off by more than the features.
    assert np.abs(wanted - found).max() < 0.02 * wanted.max()


def test_layers_that_are_kept_stay_as_they_are(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    view = GraphView(model)
    first = view.first_layers(1)
    assert first == view.layers()[:1]
    made = quantize(model, calibrator.statistics("MinMax"), "trt", first)
    kept = next(n for n in made.graph.node if n.name == first[0])
    assert kept.input[1] in view.initializers
    everything = quantize(model, calibrator.statistics("MinMax"), "trt", view.layers())
    assert np.array_equal(
        run_graph(everything.SerializeToString(), TILES[:4]),
        run_graph(model.SerializeToString(), TILES[:4]),
    )


def linear(weight: np.ndarray, *, shared: bool = False) -> onnx.ModelProto:
    """A graph of MatMuls with constants and an Identity copy, as older exporters write it."""
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["y"]),
    ]
    size = len(weight)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])],
        [numpy_helper.from_array(np.zeros(size, np.float32), "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_constants_and_identity_copies_count_as_weights() -> None:
    rng = np.random.default_rng(0)
    model = resolve_constants(linear(rng.normal(size=(6, 6)).astype(np.float32)))
    assert len(GraphView(model).layers()) == 2
    calibrator = Calibrator(model, rng.normal(size=(16, 6)).astype(np.float32))
    made = quantize(model, calibrator.statistics("MinMax"), "trt")
    held = [t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and t.dims]
    assert sum(list(t.dims) == [6, 6] for t in held) == 2


def test_bias_correction_takes_the_mean_effect_of_rounding_away() -> None:
    rng = np.random.default_rng(1)
    model = resolve_constants(linear(rng.normal(size=(6, 6)).astype(np.float32)))
    view = GraphView(model)
    node = next(n for n in model.graph.node if n.op_type == "MatMul")
    mean = rng.normal(2, 1, size=6)
    layer = round_layer(view, node, 0.1, mean)
    rounded = layer.weight * layer.scale
    assert np.allclose(mean @ rounded + layer.bias, mean @ view.value("w"))


def agreement(mean: float, largest: float, centred: float = 1.0) -> Agreement:
    return Agreement(1, 1, centred, 1, 1, mean, largest, (largest,), 0)


def accepting(answers: Iterable[Agreement], shifted: Iterable[Agreement] = ()) -> Acceptance:
    """Answers in the order asked; with shifted stain nothing moves unless said."""
    plain, other = iter(answers), itertools.chain(shifted, itertools.repeat(agreement(0, 0)))
    return Acceptance(lambda _: next(plain), lambda _: next(other))


def test_the_search_stops_at_the_first_recipe_that_holds_both(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    acceptance = accepting(
        [agreement(0.004, 0.03), agreement(0.006, 0.015), agreement(0.004, 0.019)]
    )
    found = search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02)
    assert len(found.candidates) == 3
    assert found.chosen is found.candidates[2]


def test_scores_that_hold_on_unlike_features_do_not_end_the_search(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    acceptance = accepting([agreement(0.001, 0.01, 0.86), agreement(0.002, 0.01, 0.97)])
    found = search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02)
    assert found.chosen is found.candidates[1]


def test_the_search_goes_on_where_a_shifted_stain_moves_the_score(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    plain = [agreement(0.001, 0.021), agreement(0.001, 0.01), agreement(0.002, 0.01)]
    acceptance = accepting(plain, [agreement(0.01, 0.031), agreement(0.01, 0.029)])
    found = search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02)
    assert [candidate.shifted is None for candidate in found.candidates] == [True, False, False]
    assert found.chosen is found.candidates[2]


def test_features_must_be_alike_with_a_shifted_stain_too(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    acceptance = accepting([agreement(0.001, 0.01)] * 2, [agreement(0.001, 0.01, 0.9)])
    assert (
        len(search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02).candidates) == 2
    )


def test_small_first_layers_stay_fp32_at_first_and_large_ones_do_not(
    model: onnx.ModelProto,
) -> None:
    assert [recipe.fp32_layers for recipe in ordered_recipes(GraphView(model))] == [
        1,
        1,
        2,
        2,
        0,
        0,
    ]
    large = resolve_constants(linear(np.ones((40, 40), np.float32)))
    assert ordered_recipes(GraphView(large)) == RECIPES


def test_a_form_that_holds_the_shifted_stain_comes_before_a_smaller_mean(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    means = [0.009, 0.006, 0.008, 0.007, 0.009, 0.009]
    shifted = [agreement(0.01, moved) for moved in (0.02, 0.05, 0.02, 0.05, 0.02, 0.02)]
    acceptance = accepting([agreement(mean, 0.015) for mean in means], shifted)
    found = search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02)
    assert found.chosen is found.candidates[2]


def test_where_no_recipe_holds_the_mean_the_best_within_the_maximum_is_taken(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    means = [0.009, 0.007, 0.008, 0.0075, 0.009, 0.009]
    acceptance = accepting(agreement(mean, 0.015) for mean in means)
    found = search_recipe(model, calibrator, "trt", acceptance, lambda _: [], 0.02)
    assert found.chosen.agreement.score_difference_mean == 0.007
    assert len(found.candidates) == 6


def test_where_no_recipe_holds_the_layers_that_hurt_are_named(
    model: onnx.ModelProto, calibrator: Calibrator
) -> None:
    statistics: Statistics = calibrator.statistics("MinMax")
    worst = layer_sensitivities(model, statistics, "cpu", TILES[:4])
    assert [layer.error for layer in worst] == sorted((w.error for w in worst), reverse=True)
    acceptance = accepting(itertools.repeat(agreement(0.1, 0.5)))
    with pytest.raises(QuantizationError, match=worst[0].name):
        search_recipe(model, calibrator, "cpu", acceptance, lambda _: worst, 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "px"), [("vit_tiny_patch16_224", 64), ("densenet121", 64), ("resnet18", 64)]
)
def test_real_architectures_stay_near_in_both_dialects(name: str, px: int) -> None:
    import torch

    torch.manual_seed(0)
    net = build(name, (px, px))
    tiles = paint_tiles(24, (px, px), 5)
    normal = parse_normalisation("0.5,0.5,0.5/0.25,0.25,0.25")
    source = TorchExtractor(name, (px, px), normal, net)
    net.train()  # so that BatchNorm knows what real activations are like
    with torch.no_grad():
        net(torch.from_numpy(source.normalise(tiles)))
    net.eval()
    graph = export_extractor(source, source.features(tiles[:2]).shape[1])
    model = resolve_constants(graph.model)
    statistics = Calibrator(model, tiles[:16]).statistics("MinMax")
    wanted = run_graph(graph.data, tiles[16:])
    for dialect in DIALECTS:
        made = quantize(model, statistics, dialect)
        assert centred_error(wanted, run_graph(made.SerializeToString(), tiles[16:])) < 0.1
        layers = [
            t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1
        ]
        assert len(layers) == len(GraphView(model).layers())
