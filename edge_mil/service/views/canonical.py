"""Canonical JSON: the same value is the same bytes in every language (RFC 8785)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from edge_mil.errors import StoreError

MAX_DECIMAL_EXPONENT, MIN_DECIMAL_EXPONENT = 21, -6
"""Between these ECMAScript writes a number without an exponent (RFC 8785, 3.2.2.3)."""


def canonical_json(value: object) -> bytes:
    """Return a value of None, bool, int, float, str, sequences and mappings as canonical JSON.

    Raises:
        StoreError: It holds NaN or infinity, which JSON cannot say.
    """
    return _text(value).encode()


def _text(value: object) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        # ECMAScript sorts by UTF-16 code units.
        keys = sorted(value, key=lambda key: str(key).encode("utf-16-be", "surrogatepass"))
        pairs = (f"{_text(str(key))}:{_text(value[key])}" for key in keys)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_text(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _number(value: float) -> str:
    """Write a double as ECMAScript does: the shortest digits that give it back."""
    if not math.isfinite(value):
        raise StoreError(f"A report cannot hold {value}; JSON has no such number.")
    if value == 0:
        return "0"
    # Python's repr has the same shortest digits; only where the point goes differs.
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + int(exponent)
    if MIN_DECIMAL_EXPONENT < point <= MAX_DECIMAL_EXPONENT:
        if point <= 0:
            out = "0." + "0" * -point + text
        elif len(text) <= point:
            out = text + "0" * (point - len(text))
        else:
            out = f"{text[:point]}.{text[point:]}"
    else:
        mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
        out = f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"-{out}" if sign else out
