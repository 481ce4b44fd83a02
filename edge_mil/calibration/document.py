"""The stored form of a calibration: one line of JSON, then its arrays, float32 little-endian.

The digest of a calibration is over these bytes, so that what is read is written to the same bytes
again: an integer stays an integer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct, structs

from edge_mil.calibration.optical_path import OpticalPath
from edge_mil.calibration.passport.passport import CameraPassport
from edge_mil.errors import CalibrationError, DamagedCalibrationError
from edge_mil.types import Float32Array

FORMAT = 1

Number: TypeAlias = int | float
Size: TypeAlias = Annotated[int, msgspec.Meta(gt=0)]
ArrayName: TypeAlias = Literal["flat", "dark"]
ARRAYS: tuple[ArrayName, ...] = ("flat", "dark")
"""Arrays of a flat-field correction, in the order in which they are stored."""
ITEM_BYTES = 4
"""Of one float32."""


class ShadingDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of a flat-field correction; its arrays follow the line of JSON."""

    frame_px: tuple[Size, Size]
    white_gains: tuple[Number, ...]


class CalibrationDocument(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The line of JSON: the fields of `Calibration`, and `arrays`, name -> shape."""

    name: str
    optics: OpticalPath
    measured: Mapping[str, Number]
    mpp: Number | None
    background: tuple[Number, ...] | None
    stage_affine: tuple[Number, Number, Number, Number] | None
    gates: Mapping[str, Number] | None
    stain: Mapping[str, tuple[Number, ...]] | None
    figures: Mapping[str, Number]
    shading: ShadingDocument | None
    arrays: Mapping[ArrayName, tuple[Size, Size, Size]]
    noise: Number = 0.0
    passports: tuple[CameraPassport, ...] = ()
    format: int = FORMAT


def _read_document(head: bytes) -> CalibrationDocument:
    """Read the line of JSON.

    Raises:
        ValueError: It is not that, or a passport holds impossible numbers.
    """
    try:
        return msgspec.json.decode(head, type=CalibrationDocument)
    except CalibrationError as error:
        raise ValueError(str(error)) from error


class _Format(Struct):
    """The one key that every format has."""

    format: int


def encode(document: CalibrationDocument, arrays: Mapping[ArrayName, Float32Array]) -> bytes:
    """Return the bytes of a calibration.

    Args:
        document: Its numbers and names.
        arrays: float32 (h, w, 3) each, of the shapes that the document names.
    """
    named = structs.asdict(document)
    if not document.passports:
        # Calibrations of releases without passports keep their bytes, and so their digests.
        del named["passports"]
    head = json.dumps(named, default=_as_named, sort_keys=True, separators=(",", ":"))
    body = (arrays[name].astype("<f4").tobytes() for name in ARRAYS if name in arrays)
    return b"\n".join([head.encode(), b"".join(body)])


def _as_named(value: Any) -> dict[str, Any]:
    """Return the names and values of a part of the document."""
    return asdict(value) if isinstance(value, CameraPassport) else structs.asdict(value)


def decode(data: bytes) -> tuple[CalibrationDocument, dict[ArrayName, Float32Array]]:
    """Read what `encode` wrote.

    Raises:
        CalibrationError: It was written by a newer edge_mil.
        DamagedCalibrationError: It is not the document of a calibration.
    """
    head, _, body = data.partition(b"\n")
    try:
        written = msgspec.json.decode(head, type=_Format).format
        if written != FORMAT:
            raise CalibrationError(
                f"The calibration has format {written} and this edge_mil reads {FORMAT}; "
                "update edge_mil on this device."
            )
        document = _read_document(head)
        arrays: dict[ArrayName, Float32Array] = {}
        start = 0
        for name in ARRAYS:
            if name in document.arrays:
                shape = document.arrays[name]
                end = start + ITEM_BYTES * math.prod(shape)
                arrays[name] = np.frombuffer(body[start:end], "<f4").reshape(shape).copy()
                start = end
    # msgspec's errors are ValueErrors, and so is that of too few bytes for an array.
    except (ValueError, RecursionError) as error:
        raise DamagedCalibrationError(
            f"The calibration cannot be read ({error}); measure it again with edge-mil calibrate."
        ) from error
    return document, arrays
