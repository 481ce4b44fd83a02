"""Turn the `.proto` and its comments into Markdown, so that no text is copied by hand."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
PROTO = "edge_mil/v1/edge_mil.proto"

PACKAGE, MESSAGE, ENUM, SERVICE = 2, 4, 5, 6
"""Field numbers of FileDescriptorProto, of which the paths of source locations are made."""
MEMBER = 2
"""Field number of a message's fields, an enum's values and a service's methods, in each of them."""

Path_ = tuple[int, ...]


def wire_lists() -> str:
    """Return the lists of all services, messages and enums, as Markdown.

    Raises:
        FileNotFoundError: There is no Python with grpcio-tools; `make docs` makes one.
        subprocess.CalledProcessError: The `.proto` cannot be compiled.
    """
    file, comments = _described()
    lines = [comments.get((PACKAGE,), ""), "", "## Services", ""]
    for number, service in enumerate(file.service):
        at = (SERVICE, number)
        lines += [f"### {service.name}", "", comments.get(at, ""), ""]
        for index, method in enumerate(service.method):
            lines += _method(method, comments.get((*at, MEMBER, index), ""))
    lines += ["## Messages", ""]
    for number, message in enumerate(file.message_type):
        lines += _message(message, (MESSAGE, number), comments)
    lines += ["## Enums", ""]
    for number, enum in enumerate(file.enum_type):
        at = (ENUM, number)
        lines += [f"### {enum.name}", "", comments.get(at, ""), "", "| value | number | means |"]
        lines += ["| --- | --- | --- |"]
        for index, value in enumerate(enum.value):
            means = _cell(comments.get((*at, MEMBER, index), ""))
            lines.append(f"| `{value.name}` | {value.number} | {means} |")
        lines.append("")
    return "\n".join(lines)


def _described() -> tuple[pb.FileDescriptorProto, dict[Path_, str]]:
    """Compile the `.proto`; return its descriptor, and the comment at each path of it."""
    python = os.environ.get("EDGE_MIL_PROTO_PYTHON", str(ROOT / ".venv-tools" / "bin" / "python"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        subprocess.run(
            [
                *(python, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"),
                *("--include_source_info", f"--descriptor_set_out={out}", PROTO),
            ],
            check=True,
        )
        file = pb.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    return file, dict(_comments(file))


def _comments(file: pb.FileDescriptorProto) -> Iterator[tuple[Path_, str]]:
    for location in file.source_code_info.location:
        # A comment after a field stands on the field's own line, one before it on lines above.
        parts = [location.leading_comments, location.trailing_comments]
        text = " ".join(" ".join(part.split()) for part in parts if part.strip())
        if text:
            yield tuple(location.path), text.replace("<", "&lt;")


def _method(method: pb.MethodDescriptorProto, comment: str) -> list[str]:
    request = _link(method.input_type, streamed=method.client_streaming)
    response = _link(method.output_type, streamed=method.server_streaming)
    return [f"#### {method.name}", "", f"{request} → {response}", "", comment, ""]


def _message(message: pb.DescriptorProto, at: Path_, comments: dict[Path_, str]) -> list[str]:
    lines = [f"### {message.name}", "", comments.get(at, ""), ""]
    if not message.field:
        return lines
    lines += ["| field | type | number | means |", "| --- | --- | --- | --- |"]
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for index, field in enumerate(message.field):
        means = _cell(comments.get((*at, MEMBER, index), ""))
        lines.append(
            f"| `{field.name}` | {_type(field, message, maps)} | {field.number} | {means} |"
        )
    return [*lines, ""]


def _type(
    field: pb.FieldDescriptorProto, message: pb.DescriptorProto, maps: dict[str, pb.DescriptorProto]
) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = (_scalar(part) for part in entry.field)
        return f"map of {key} to {value}"
    name = _scalar(field)
    if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return name


def _scalar(field: pb.FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return pb.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(full_name: str, *, streamed: bool = False) -> str:
    name = full_name.rpartition(".")[2]
    if full_name.startswith(".google"):
        shown = f"`{full_name.lstrip('.')}`"
    else:
        shown = f"[{name}](#{name.lower()})"
    return f"stream of {shown}" if streamed else shown


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
