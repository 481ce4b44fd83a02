"""Find the architecture of a state dict by its keys, or name the nearest with what differs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch

from edge_mil.errors import NotThereYetError
from edge_mil_export.architectures.registry import Architecture, registered
from edge_mil_export.architectures.state_dict_reader import SHOWN_KEYS
from edge_mil_export.architectures.unsupported import UNSUPPORTED, UnsupportedHead
from edge_mil_export.errors import ArchitectureError

NEAREST = 3
"""Architectures that the message about an unknown file names."""
USUAL_WIDTH = 64
"""Width of a feature in the fresh heads whose keys a file's are compared with."""

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
        f"{_nearest(state)}. Name one with --arch if it is that head, rename the keys, or write a "
        "head of your own (`docs/heads.md`)."
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
    """Name the nearest architectures, each with the keys by which the file differs from it."""
    of_file = {_without_numbers(key): key for key in sorted(state, reverse=True)}
    ranked: list[tuple[float, str]] = []
    for known in registered():
        keys = {_without_numbers(key): key for key in sorted(_usual_keys(known), reverse=True)}
        common, lacking = keys.keys() & of_file.keys(), keys.keys() - of_file.keys()
        further = {
            key for key in of_file.keys() - keys.keys() if not key.startswith(_unused(known))
        }
        share = len(common) / max(len(common) + len(lacking) + len(further), 1)
        parts = [
            f"{verb} {_shown(sorted(table[key] for key in differing))}"
            for verb, differing, table in (("lacks", lacking, keys), ("has", further, of_file))
            if differing
        ]
        ranked.append((share, f"{known.name} (the file {' and '.join(parts) or 'fits it'})"))
    ranked.sort(key=lambda one: -one[0])
    return "; ".join(text for _, text in ranked[:NEAREST])


def _usual_keys(known: Architecture) -> Iterable[str]:
    """Return the keys of a fresh head, or where it cannot be made those of its signature."""
    try:
        return known.build.fresh(USUAL_WIDTH, 2)
    except NotThereYetError:
        return [pattern.split("|")[0] for pattern in known.keys if not pattern.startswith("!")]


def _unused(known: Architecture) -> tuple[str, ...]:
    return tuple(_without_numbers(prefix) for prefix in known.build.training_only)


def _shown(keys: Sequence[str]) -> str:
    more = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def _without_numbers(key: str) -> str:
    return re.sub(r"\d+", "#", key)
