"""The options that tell what a head's checkpoint cannot: shared by three commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from edge_mil.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--arch`, `--arch-option` and `--classes`."""
    parser.add_argument(
        "--arch", metavar="NAME", help="architecture; detected from the keys when not named"
    )
    parser.add_argument(
        "--arch-option",
        action="append",
        default=[],
        metavar="K=V",
        help="what the file cannot tell, as activation=relu; repeat for more",
    )
    parser.add_argument(
        "--classes", metavar="A,B,...", help='names of the outputs; "0", "1", ... when not named'
    )


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """Return the options of repeated `--arch-option K=V`.

    Raises:
        UsageError: One has no =, or two disagree.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UsageError(f"--arch-option {word} is not NAME=VALUE.")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--arch-option {name} is given twice, as {found[name]} and {value}.")
    return found


def parse_classes(text: str | None) -> list[str] | None:
    """Return the names of `--classes A,B,...`.

    Raises:
        UsageError: A name is empty or there twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--classes {text} has an empty name or the same one twice.")
    return names
