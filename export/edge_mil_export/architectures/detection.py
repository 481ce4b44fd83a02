"""Find the architecture of a state dict by its keys, or name the nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch

from edge_mil.errors import NotThereYetError
from edge_mil_export.architectures.registry import Architecture, names, registered
from edge_mil_export.architectures.state_dict_reader import SHOWN_KEYS
from edge_mil_export.architectures.unsupported import UNSUPPORTED, UnsupportedHead
from edge_mil_export.errors import ArchitectureError

NEAREST = 3
"""Architectures that the message about an unknown file names."""

Signature = Architecture | UnsupportedHead
State = Mapping[str, torch.Tensor]


def detect(state: State, file: str) -> Architecture:
    """Return the first architecture whose signature matches.

    Raises:
        ArchitectureError: None matches; the message names the nearest.
        NotThereYetError: It is one that a later release brings.
    """
    found = first_match(state)
    if isinstance(found, Architecture):
        return found
    if found is not None:
        raise NotThereYetError(
            found.reason.format(file=file)
            or f"{file} looks like {found.name}; that head is not there yet, it comes with the "
            "next release."
        )
    raise ArchitectureError(
        f"The architecture of {file} cannot be told from its keys; nearest are "
        f"{_nearest(state)}. Name it with --arch NAME if it is one of {', '.join(names())}."
    )


def first_match(state: State) -> Signature | None:
    """Return the first signature of which all keys are there, supported or not."""
    for signature in _signatures():
        if all(_is_there(pattern, state) for pattern in signature.keys):
            return signature
    return None


def _signatures() -> list[Signature]:
    """Return every signature, those of the table in its order."""
    return sorted([*registered(), *UNSUPPORTED], key=lambda signature: signature.row)


def _is_there(pattern: str, state: State) -> bool:
    """Say whether a key of the file matches a pattern, or none does that must not be there."""
    if pattern.startswith("!"):
        return not _is_there(pattern[1:], state)
    return any(
        one in state or ("*" in one and any(fnmatchcase(key, one) for key in state))
        for one in pattern.split("|")
    )


def _nearest(state: State) -> str:
    """Name the nearest architectures and the first keys that each of them misses."""
    parts_of_file = {part for key in state for part in _without_numbers(key).split(".")}

    def missing(signature: Signature) -> list[str]:
        return [pattern for pattern in signature.keys if not _is_there(pattern, state)]

    def similarity(signature: Signature) -> tuple[float, float]:
        parts = {
            part
            for key in signature.keys
            for part in _without_numbers(key.split("|")[0]).split(".")
        }
        share_there = 1 - len(missing(signature)) / len(signature.keys)
        return share_there, len(parts & parts_of_file) / max(len(parts | parts_of_file), 1)

    ranked = sorted(_signatures(), key=similarity, reverse=True)[:NEAREST]
    near = "; ".join(
        f"{s.name} (it lacks {', '.join(key.split('|')[0] for key in missing(s)[:SHOWN_KEYS])})"
        for s in ranked
    )
    return f"{near}, and its first keys are {', '.join(sorted(state)[:SHOWN_KEYS])}"


def _without_numbers(key: str) -> str:
    return re.sub(r"\d+", "#", key)
