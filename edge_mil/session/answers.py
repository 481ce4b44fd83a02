"""Answers as the store keeps them: the bytes that went to the client."""

from __future__ import annotations

from edge_mil.rpc.results import decode_result, encode_result
from edge_mil.types import FieldResult
from edge_mil.v1 import edge_mil_pb2 as pb


def write_answer(result: FieldResult) -> bytes:
    """Return a serialised `edge_mil.v1.FieldResult`, the same bytes for the same value."""
    return encode_result(result).SerializeToString(deterministic=True)


def read_answer(data: bytes) -> FieldResult:
    """Read what `write_answer` wrote."""
    return decode_result(pb.FieldResult.FromString(data))
