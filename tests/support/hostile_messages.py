"""Messages that no client of ours would send, made from the descriptors of the `.proto`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from edge_mil.v1 import edge_mil_pb2 as pb

MAX_DEPTH = 4
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods
)
KINDS = ("any message", "changed message", "changed bytes", "cut bytes", "random bytes")

INTEGERS = (0, 1, 2, 3, 7, 31, 32, 33, 255, 256, 1000, 65_535, 65_536, 1 << 20, (1 << 31) - 1)
SIGNED = (-1, -2, -(1 << 31), -(1 << 63))
WIDE = (1 << 32, 1 << 53, (1 << 63) - 1)
DOUBLES = (
    0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 5e-324, 0.01, 20.0, 20.1, 112.0, 25_000.0, 1e5, 999_999.0,
    1e6, 1e9, 1e18, 1e25, 1e154, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", "um", "mm", "a", "../../etc/passwd", "/", "\x00", "\x1b[2J", "\u202egnp", "a\nb", "%s%n",
    "'; DROP TABLE field; --", "small", "demo", "cpu", "tensorrt", "fp32", "int8", "focus",
    "coverage", "positive", "edge_mil.v1", "edge_mil.v2", "00000000-0000-0000-0000-000000000000",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "🧫" * 70, "x" * 257, "x" * 5000, "\ufffd", "nan", "-1",
)  # fmt: skip
BYTES = (b"", b"\x00", b"\xff" * 7, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04")


class HostileMessages:
    """Makes messages of any type, the same ones for the same seed."""

    def __init__(self, seed: int, words: Sequence[str] = ()) -> None:
        """Begin.

        Args:
            seed: Of the random numbers.
            words: Texts that mean something to the service, as the ids of its sessions.
        """
        self.chance, self._words = random.Random(seed), tuple(words) + TEXTS
        self._of_type: dict[int, Callable[[], Any]] = {
            FieldDescriptor.CPPTYPE_DOUBLE: lambda: self._double(),
            FieldDescriptor.CPPTYPE_FLOAT: lambda: 1.5,
            FieldDescriptor.CPPTYPE_BOOL: lambda: self.chance.random() < 0.5,
            FieldDescriptor.CPPTYPE_UINT32: lambda: self._integer(0, (1 << 32) - 1),
            FieldDescriptor.CPPTYPE_UINT64: lambda: self._integer(0, (1 << 64) - 1),
            FieldDescriptor.CPPTYPE_INT32: lambda: self._integer(-(1 << 31), (1 << 31) - 1),
            FieldDescriptor.CPPTYPE_INT64: lambda: self._integer(-(1 << 63), (1 << 63) - 1),
            FieldDescriptor.CPPTYPE_ENUM: lambda: self._integer(0, 40),
        }

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Return a message with some of its fields set to anything."""
        made: Any = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self.chance.random() < 0.4 or depth >= MAX_DEPTH:
                continue
            self.set(made, field, depth)
        return made  # type: ignore[no-any-return]

    def set(self, message: Any, field: FieldDescriptor, depth: int = 0) -> None:
        """Set one field of a message to anything."""
        nested = field.message_type
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
        if nested is not None and nested.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), nested, depth)
        elif nested is not None and repeated:
            for _ in range(self.chance.choice((1, 2, 5))):
                getattr(message, field.name).add().CopyFrom(self.message(nested, depth + 1))
        elif nested is not None:
            getattr(message, field.name).CopyFrom(self.message(nested, depth + 1))
        elif repeated:
            getattr(message, field.name).extend(
                self._scalar(field) for _ in range(self.chance.choice((1, 2, 6, 100)))
            )
        else:
            setattr(message, field.name, self._scalar(field))

    def change(self, message: Message) -> Message:
        """Return a copy of a usual message with one to three fields set to anything."""
        changed: Any = type(message)()
        changed.CopyFrom(message)
        for _ in range(self.chance.randint(1, 3)):
            inner: Any = changed
            # Down into the parts that the message has.
            while (parts := _parts(inner)) and self.chance.random() < 0.6:
                inner = self.chance.choice(parts)
            if inner.DESCRIPTOR.fields:
                self.set(inner, self.chance.choice(inner.DESCRIPTOR.fields), MAX_DEPTH - 1)
        return changed  # type: ignore[no-any-return]

    def data(self, kind: str, message: Message) -> bytes:
        """Return what goes over the wire instead of a usual message.

        Args:
            kind: One of KINDS.
            message: The usual one.
        """
        if kind == "any message":
            return self.message(message.DESCRIPTOR).SerializeToString()
        if kind == "changed message":
            return self.change(message).SerializeToString()
        if kind == "random bytes":
            return self.chance.randbytes(self.chance.choice((1, 3, 20, 200)))
        data = bytearray(message.SerializeToString() or b"\x0a\x01x")
        if kind == "cut bytes":
            return bytes(data[: self.chance.randrange(len(data) + 1)])
        for _ in range(self.chance.randint(1, 4)):
            data[self.chance.randrange(len(data))] = self.chance.randrange(256)
        return bytes(data)

    def _set_map(self, target: Any, entry: Descriptor, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self.chance.choice((1, 2, 40))):
            if value.message_type is not None:
                target[self._scalar(key)].CopyFrom(self.message(value.message_type, depth + 1))
            else:
                target[self._scalar(key)] = self._scalar(value)

    def _scalar(self, field: FieldDescriptor) -> Any:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.chance.choice(BYTES)
        if field.type == FieldDescriptor.TYPE_STRING:
            return self.chance.choice(self._words)
        return self._of_type[field.cpp_type]()

    def _double(self) -> float:
        usual = self.chance.uniform(-2e3, 2e3)
        return self.chance.choice((*DOUBLES, usual, usual))

    def _integer(self, least: int, most: int) -> int:
        pool = [n for n in (*INTEGERS, *SIGNED, *WIDE, least, most) if least <= n <= most]
        return self.chance.choice(pool)


def _parts(message: Any) -> list[Any]:
    """Return the messages that a message holds."""
    parts: list[Any] = []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        parts.extend([value] if hasattr(value, "DESCRIPTOR") else list(value))
    return parts


def random_files(chance: random.Random, whole: bytes) -> Iterator[bytes]:
    """Yield a file without end that is cut, changed, lengthened or replaced, one time each."""
    while True:
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield bytes(data)
        yield whole[: chance.randrange(len(whole))]
        at = chance.randrange(len(whole))
        yield whole[:at] + chance.randbytes(chance.choice((1, 8, 300))) + whole[at:]
        yield chance.randbytes(chance.choice((1, 40, 4000)))
