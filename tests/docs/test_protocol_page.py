"""docs/protocol.md states the limits, statuses and verdicts of the code and of the .proto."""

from __future__ import annotations

import ast
import functools
import re

from repository import ROOT, production_files

from edge_mil.rpc.frames import RAW_CHANNELS
from edge_mil.rpc.status import STATUS_OF
from edge_mil.service.server import OPTIONS
from edge_mil.types import Verdict
from edge_mil.v1 import edge_mil_pb2 as pb

PAGE = " ".join((ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").split())
MIB, KIB = 1 << 20, 1 << 10


@functools.cache
def constants() -> dict[str, float]:
    """Return every constant of the packages whose value is a number or a shift of two."""
    found = {}
    for path in production_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value
                if isinstance(value, ast.BinOp) and isinstance(value.op, ast.LShift):
                    found[node.targets[0].id] = ast.literal_eval(value.left) << ast.literal_eval(
                        value.right
                    )
                elif isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                    found[node.targets[0].id] = value.value
    return found


def table_row(first_cell: str) -> str:
    found = re.search(rf"\| {re.escape(first_cell)} \|([^|]*)\|", PAGE)
    assert found is not None, first_cell
    return found[1]


def test_the_limits_are_those_of_the_code() -> None:
    of = constants()
    assert f"{of['MAX_CHUNK_BYTES'] // MIB} MiB" in table_row("one chunk")
    frame = table_row("one frame")
    assert f"{of['MAX_FRAME_BYTES'] // MIB} MiB" in frame
    assert f"{of['MAX_FRAME_PIXELS'] // 1_000_000} million pixels" in frame
    assert f"{of['CREDITS']} more" in table_row("fields under way on one stream")
    assert f"{of['MAX_LIVE_SESSIONS']}, and" in table_row("sessions that are streamed to")
    assert str(of["MAX_PAGE"]) in table_row("entries on one page of a list")
    names = table_row("names and labels")
    assert f"{of['MAX_NAME_BYTES']} bytes" in names
    assert f"{of['MAX_LABELS']} labels" in names
    assert f"{of['MAX_REGIONS']:,}".replace(",", " ") in table_row("rectangles of a tissue outline")
    metadata = dict(OPTIONS)["grpc.max_metadata_size"] // KIB
    assert f"{metadata} KiB" in table_row("metadata of a call")
    assert f"{of['MAX_AGE_DAYS']:g} days" in table_row("age of a calibration")


def test_each_reason_stands_with_its_status() -> None:
    # A code that the page has no row for is not met by clients.
    for code, reason in STATUS_OF.values():
        if f"`{reason}`" in PAGE:
            assert f"`{reason}`" in table_of_statuses()[code.name], reason


def table_of_statuses() -> dict[str, str]:
    section = PAGE[PAGE.index("## Statuses") :]
    return dict(re.findall(r"\| ([A-Z_]+) \|([^|]*)\|", section))


def test_every_verdict_of_the_enum_is_on_the_page() -> None:
    assert [verdict.name for verdict in Verdict if verdict.name not in PAGE] == []
    of_the_wire = {name.removeprefix("VERDICT_") for name in pb.Verdict.DESCRIPTOR.values_by_name}
    assert of_the_wire - {"UNSPECIFIED"} == {verdict.name for verdict in Verdict}


def test_the_pixel_formats_are_those_that_are_read() -> None:
    read = {pb.PixelFormat.Name(number).removeprefix("PIXEL_FORMAT_") for number in RAW_CHANNELS}
    assert all(name in PAGE for name in read)
    others = {
        name.removeprefix("PIXEL_FORMAT_") for name in pb.PixelFormat.DESCRIPTOR.values_by_name
    } - read
    assert [name for name in others - {"UNSPECIFIED"} if name in PAGE] == []


def test_every_service_has_its_row() -> None:
    for service in pb.DESCRIPTOR.services_by_name:
        assert f"| `{service}` |" in PAGE
