"""The options that tell what a head's checkpoint cannot: shared by several commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_mil.errors import UsageError

if TYPE_CHECKING:
    from edge_mil_export.onnx_export.head_task import Assumption

TASKS = ("classification", "multilabel", "regression", "survival-nll", "cox", "pooling")
"""What `--task` takes."""


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


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add `--task`."""
    parser.add_argument(
        "--task",
        choices=TASKS,
        metavar="KIND",
        help="what the outputs mean, where the file does not say: classification, multilabel, "
        "regression, survival-nll (hazards of time intervals) or cox (a log risk)",
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


def print_assumed(assumed: Sequence[Assumption]) -> None:
    """Print what nobody stated and was taken for granted, a line each."""
    for one in assumed:
        option = "--task" if one.name == "task" else f"--arch-option {one.name}="
        print(f"taken for granted: {one.name}={one.value} ({one.changes}); {option} changes it")


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
