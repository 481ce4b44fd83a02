"""Digests of values as SQLite gives them back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

DIGEST_BYTES = 8
"""A wrong row has the digest of the right one once in 2^64; SQLite's integers have as many."""


def digest_of(values: Iterable[object]) -> int:
    """Return the digest of values as SQLite gives them back: a signed 64-bit integer.

    Python's own notation tells types and lengths apart, so no two rows have the same bytes; it is
    the fastest that does. Large columns go in as they are, behind their length (`bulk_digest`).
    """
    return _number(hashlib.blake2b(repr(tuple(values)).encode(), digest_size=DIGEST_BYTES))


def bulk_digest(values: Iterable[object]) -> int:
    """Return the digest of large columns: bytes, or None."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for value in values:
        if value is None:
            total.update(b"none")
        elif isinstance(value, (bytes, memoryview)):
            data = memoryview(value).cast("B")
            total.update(b"%d:" % len(data))
            total.update(data)
        else:  # a damaged column may have any type
            total.update(b"other" + repr(value).encode())
    return _number(total)


def _number(total: hashlib.blake2b) -> int:
    return int.from_bytes(total.digest(), "little", signed=True)


def with_own_digest(values: Mapping[str, str]) -> bytes:
    """Return names and values as bytes that need no row of `seal` to be compared."""
    text = json.dumps(dict(values), sort_keys=True)
    return json.dumps({"digest": digest_of([text]), "values": text}).encode()


def of_own_digest(data: bytes) -> dict[str, str]:
    """Return what `with_own_digest` wrote; nothing where it is not that any more."""
    try:
        found = json.loads(data)
        if found["digest"] == digest_of([found["values"]]):
            return dict(json.loads(found["values"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}
