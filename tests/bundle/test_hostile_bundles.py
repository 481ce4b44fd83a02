"""A bundle that lies, or that names files of the device, is refused with one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_samples import sample_bundle
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from small_bundle import write_small_bundle

from edge_mil.bundle import (
    Bundle,
    Manifest,
    check_out,
    open_bundle,
    pack_bundle,
    read_arrays,
    write_bundle,
)
from edge_mil.bundle.graph_check import require_self_contained
from edge_mil.errors import BundleError
from edge_mil.pipeline import load_model
from edge_mil.pipeline.trial import try_model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("small") / "b")


def changed(bundle: Bundle, out: Path, change: dict[str, Any], **files: bytes) -> Bundle:
    """Write the bundle again with other parts of its manifest, or other files."""
    content = {name: bundle.read(name) for name in bundle.manifest.files}
    content.update({name.replace("__", "."): data for name, data in files.items()})
    return write_bundle(structs.replace(bundle.manifest, **change), content, out)


# Graphs that name other files


def external(tensor: TensorProto, file: str) -> TensorProto:
    onnx.external_data_helper.set_external_data(tensor, file)
    tensor.ClearField("raw_data")
    return tensor


def hide_in(graph: onnx.GraphProto, where: str, tensor: TensorProto) -> None:
    """Put a tensor where a graph may keep one."""
    if where == "initializer":
        graph.initializer.append(tensor)
    elif where == "sparse":
        graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor))
    elif where == "constant":
        graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    else:
        inner = helper.make_graph([], "inner", [], [], [tensor])
        graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))


@pytest.mark.parametrize("where", ["initializer", "sparse", "constant", "sub-graph", "function"])
@pytest.mark.parametrize("file", ["weights.bin", "/etc/passwd", "../weights.bin"])
def test_a_graph_with_weights_in_another_file_is_refused(
    small: Bundle, where: str, file: str
) -> None:
    model = onnx.load_from_string(small.read("attend.onnx"))
    tensor = external(numpy_helper.from_array(np.zeros(4, np.float32), "t"), file)
    if where == "function":
        node = helper.make_node("Constant", [], ["c"], value=tensor)
        model.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))
    else:
        hide_in(model.graph, where, tensor)
    with pytest.raises(BundleError, match="keeps weights in another file"):
        require_self_contained(model.SerializeToString(), "attend.onnx")


def test_weights_of_the_working_directory_are_not_loaded(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(small.read("classify.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name == "wc":
            Path("wc.bin").write_bytes(tensor.raw_data)
            external(tensor, "wc.bin")
    bundle = changed(small, tmp_path / "b", {}, classify__onnx=model.SerializeToString())
    with pytest.raises(BundleError, match="keeps weights in another file"):
        load_model(bundle)


def test_graphs_of_the_exporter_pass(small: Bundle) -> None:
    for name in ("extractor.onnx", "attend.onnx", "classify.onnx"):
        require_self_contained(small.read(name), name)


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x3a\x10", b"\x3a", b"\x0b\x00"])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="is no ONNX graph"):
        require_self_contained(data, "attend.onnx")


def test_a_graph_that_is_nested_without_end_is_refused() -> None:
    data = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph
        for number in (6, 5, 1):
            data = bytes([number << 3 | 2]) + _varint(len(data)) + data
    with pytest.raises(BundleError, match="nested"):
        require_self_contained(bytes([7 << 3 | 2]) + _varint(len(data)) + data, "attend.onnx")


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


# Numbers and names out of their bounds

CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no classes": lambda raw: raw["task"].update(classes=[]),
    "two classes of one name": lambda raw: raw["task"].update(classes=["a", "a"]),
    "a class with an escape sequence": lambda raw: raw["task"].update(classes=["a", "\x1b[2J"]),
    "a name with an escape sequence": lambda raw: raw.update(name="\x1b]0;x\x07"),
    "a long name": lambda raw: raw.update(name="x" * 10_000),
    "no name": lambda raw: raw.update(name=""),
    "a huge tile": lambda raw: raw["input"].update(tile_width_px=1 << 30),
    "a tile of no size": lambda raw: raw["input"].update(tile_height_px=0),
    "an MPP of nothing": lambda raw: raw["input"].update(mpp=0),
    "a huge MPP": lambda raw: raw["input"].update(mpp=1e300),
    "a background of two numbers": lambda raw: raw["input"]["tissue"].update(background=[1, 2]),
    "a background beyond white": lambda raw: raw["input"]["tissue"].update(background=[1e9] * 3),
    "a share above one": lambda raw: raw["input"]["tissue"].update(min_share=2),
    "a mean of one number": lambda raw: raw["input"].update(mean=[1]),
    "blue first": lambda raw: raw["input"].update(color_order="BGR"),
    "a huge width": lambda raw: (
        raw["aggregator"].update(feature_dim=1 << 40),
        raw["extractor"].update(feature_dim=1 << 40),
    ),
    "negative channels": lambda raw: raw["aggregator"].update(channels=-1),
    "a file outside": lambda raw: raw["files"].update({"../x": "0" * 64}),
    "an absolute file": lambda raw: raw["files"].update({"/etc/passwd": "0" * 64}),
    "many files": lambda raw: raw["files"].update({f"f{i}": "0" * 64 for i in range(2000)}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_out_of_its_bounds_is_refused(tmp_path: Path, what: str) -> None:
    folder = sample_bundle(tmp_path / "sample").path
    raw = json.loads((folder / "bundle.json").read_text())
    CHANGES[what](raw)
    (folder / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"bundle\.json"):
        open_bundle(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_background_that_is_no_number_is_refused(tmp_path: Path, number: str) -> None:
    folder = sample_bundle(tmp_path / "sample").path
    text = (folder / "bundle.json").read_text().replace("240.0", number)
    assert number in text
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        open_bundle(folder)


def test_a_manifest_made_in_memory_is_held_to_the_same_bounds(small: Bundle) -> None:
    spec = small.manifest.input
    assert spec is not None
    nan = structs.replace(spec.tissue, background=(math.nan, 1.0, 1.0))
    with pytest.raises(BundleError, match="background"):
        structs.replace(small.manifest, input=structs.replace(spec, tissue=nan))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"schema_version": 1, "name": ' + b"[" * 100_000,
        b'{"schema_version": 1, "x": ' + b'{"a":' * 100_000,
        b'{"schema_version": 1' + b" " * (5 << 20) + b"}",
        b'{"schema_version": 1, "name": "\xff"}',
        b"\x00\xff",
        b"",
    ],
    ids=["deep list", "deep value", "deep object", "large", "no UTF-8", "binary", "empty"],
)
def test_json_that_is_none_or_is_deep_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(data)


# Zip files and arrays that lie


def packed(tmp_path: Path) -> Path:
    return pack_bundle(sample_bundle(tmp_path / "sample"), tmp_path / "b.milb")


@pytest.mark.parametrize("size", [0xFFFFFFFE, 1 << 31, 7])
@pytest.mark.parametrize("field", [20, 24])
def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path, size: int, field: int) -> None:
    path = packed(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory, bundle.json
    struct.pack_into("<I", data, at + field, size)
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot be read|compressed|neither"):
        open_bundle(path)


def test_every_zip_that_is_cut_short_or_changed_is_refused_or_whole(tmp_path: Path) -> None:
    path = packed(tmp_path)
    data, digest = path.read_bytes(), open_bundle(path).digest
    draw = np.random.default_rng(0)
    for _ in range(150):
        spoilt = bytearray(data)
        if draw.random() < 0.2:
            del spoilt[int(draw.integers(len(data))) :]
        else:
            spoilt[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
        path.write_bytes(spoilt)
        with contextlib.suppress(BundleError):
            assert open_bundle(path).digest == digest


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("attend.onnx", b"other")
    with pytest.raises(BundleError, match="some of one name"):
        open_bundle(path)


def npz(header: str, body: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an .npz file with one array whose header says anything."""
    out = io.BytesIO()
    text = header.encode().ljust(118) + b"\n"
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
    return out.getvalue()


LIES = {
    "a huge shape": npz("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
    "a negative shape": npz(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8)}", bytes(64)
    ),
    "objects": npz("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80\x04N."),
    "no header": npz("{"),
    "a header that calls": npz("__import__('os').getcwd()"),
    "a deep header": npz("(" * 110),
    "no archive": b"PK\x03\x04 no archive",
    "nothing": b"",
    "zeros that unpack to much": npz(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9,)}",
        bytes(3 << 20),
        zipfile.ZIP_DEFLATED,
    )[:200],
}


@pytest.mark.parametrize("what", LIES)
def test_arrays_that_lie_are_refused(what: str) -> None:
    with pytest.raises(BundleError, match=r"aggregator\.npz cannot be read"):
        read_arrays(LIES[what], "aggregator.npz")


def test_arrays_that_unpack_to_more_than_their_bound_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_mil.bundle import arrays

    monkeypatch.setattr(arrays, "LARGEST_BYTES", 1000)
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(10_000))
    with pytest.raises(BundleError, match="cannot be read"):
        read_arrays(out.getvalue(), "reference.npz")


def test_arrays_are_read_as_numpy_reads_them() -> None:
    out = io.BytesIO()
    written = {
        "a.b": np.arange(6.0).reshape(2, 3),
        "c": np.asfortranarray(np.eye(3)),
        "d": np.array(2),
    }
    np.savez(out, **written)
    found = read_arrays(out.getvalue(), "x")
    assert found.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(found[name], array)


# One tile through the whole


def test_a_whole_bundle_passes_the_trial(small: Bundle) -> None:
    model = load_model(small)
    try_model(model)
    model.close()


@pytest.mark.parametrize("what", ["classes", "width", "not finite"])
def test_parts_that_do_not_fit_together_are_found_before_ready(
    small: Bundle, tmp_path: Path, what: str
) -> None:
    manifest, files = small.manifest, {}
    change: dict[str, Any] = {}
    if what == "classes":
        change["task"] = structs.replace(manifest.task, classes=("a", "b", "c"))
    elif what == "width":
        assert manifest.extractor is not None
        change["extractor"] = structs.replace(manifest.extractor, feature_dim=20)
        change["aggregator"] = structs.replace(manifest.aggregator, feature_dim=20)
    else:
        graph = onnx.load_from_string(small.read("classify.onnx"))
        for tensor in graph.graph.initializer:
            if tensor.name == "bc":
                tensor.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), "bc"))
        files["classify__onnx"] = graph.SerializeToString()
    model = load_model(changed(small, tmp_path / "b", change, **files))
    with pytest.raises(BundleError, match=r"export the bundle again|not finite"):
        try_model(model)
    model.close()


# What is there is not overwritten


def test_an_existing_bundle_is_replaced_by_force_only(small: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--force"):
        check_out(small.path, force=False)
    check_out(small.path, force=True)
    check_out(tmp_path / "new", force=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(BundleError, match="is no bundle"):
            check_out(tmp_path / "notes", force=force)
    assert os.listdir(tmp_path / "notes") == ["a.txt"]
