"""Checks that an ONNX graph keeps all of its weights in its own file, without the onnx package.

A tensor may name another file for its data. ONNX Runtime then reads it beside the graph or, where
the graph comes as bytes, in the working directory: weights that no digest of the bundle covers. So
the graph's protobuf is walked, also into sub-graphs and functions, and such a tensor is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge_mil.errors import BundleError

DEEPEST = 32
"""Nested sub-graphs; the graphs of the exporter have one or two levels."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of `TensorProto` in onnx.proto."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf (https://protobuf.dev/programming-guides/encoding)."""
LONGEST_VARINT = 10

CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message of onnx.proto -> number of a field -> message in it, on the paths to tensors."""


def require_self_contained(data: bytes, name: str) -> None:
    """Check that no tensor of a graph lies in another file.

    Args:
        data: The ONNX file.
        name: What messages call it.

    Raises:
        BundleError: One does, or the file is no protobuf message.
    """
    try:
        _check(memoryview(data), "model", name, 0)
    except (IndexError, ValueError) as error:
        raise BundleError(
            f"{name} is no ONNX graph, or was cut off ({error}); copy the bundle again, or export "
            "it again.",
            file=name,
        ) from error


def _check(data: memoryview, message: str, name: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"its graphs are nested more than {DEEPEST} deep")
    children = CHILDREN.get(message, {})
    for number, value in _fields(data):
        if message == "tensor":
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
                raise BundleError(
                    f"{name} keeps weights in another file, which the bundle's digest does not "
                    "cover; save the graph with its weights inside, and export the bundle again.",
                    file=name,
                )
        elif number in children and isinstance(value, memoryview):
            _check(value, children[number], name, depth + (message == "graph"))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field; bytes are not copied."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            length, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"a field of {length} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(LONGEST_VARINT):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # the last byte of a number has no high bit
            return value, at
    raise ValueError(f"a number of more than {LONGEST_VARINT} bytes")
