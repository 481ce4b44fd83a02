"""Options of a head: what its checkpoint does not hold, read from the command and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from edge_mil.errors import UsageError

Options = Mapping[str, str]
"""Options of a head, complete and checked: name -> value."""


@dataclass(frozen=True, slots=True)
class Option:
    """Something that the file cannot tell.

    Attributes:
        name: As `--arch-option` names it.
        values: What it may be; or one of INTEGER, COUNT, NUMBER and BOOLEAN.
        changes: What depends on it, for the question: "the embedding of each instance".
        default: Taken when it is not given; "": it must be given.
        matters: Whether it matters for a file; where not, it is accepted and left out.
        only_with: Name of an option before it, and the values of that one with which it matters.
    """

    name: str
    values: tuple[str, ...]
    changes: str
    default: str = ""
    matters: Callable[[Mapping[str, torch.Tensor]], bool] | None = None
    only_with: tuple[str, tuple[str, ...]] | None = None

    def allows(self, value: str) -> bool:
        """Say whether the option may have a value."""
        if self.values == INTEGERS:
            return all(part.isdecimal() and int(part) > 0 for part in value.split(","))
        if self.values not in (COUNT, INTEGER, NUMBER):
            return value in self.values
        if value == self.default:
            return True
        try:
            number = float(value) if self.values == NUMBER else int(value)
        except ValueError:
            return False
        return math.isfinite(number) and (number > 0 or (number == 0 and self.values == COUNT))


INTEGER, NUMBER = ("an integer of 1 or more",), ("a positive number",)
COUNT = ("an integer of 0 or more",)
INTEGERS = ("integers of 1 or more with commas between them",)
BOOLEAN = ("true", "false")
"""Kinds of value of an option that is no choice of words."""

ACTIVATION = Option("activation", ("relu", "gelu"), "the embedding of each instance")

COMMON_VALUES = {
    "region_num": "8",
    "rate": "5",
    "topk": "6",
    "heads": "8",
    "groups": "5",
    "instances": "10",
    "attention_activation": "tanh",
    "grid": "64",
    "tile_size": "256",
    "segment_length": "32,64",
    "dilated_ratio": "1,2",
}
"""What is taken of an option without a default, where a head is made without a checkpoint."""


def common_options(options: tuple[Option, ...]) -> dict[str, str]:
    """Return a value for every option that has no default: a common one, or the first."""
    needed = [option for option in options if not option.default]
    return {option.name: COMMON_VALUES.get(option.name, option.values[0]) for option in needed}


def complete_options(
    head: str,
    options: tuple[Option, ...],
    given: Mapping[str, str],
    settled: Mapping[str, str],
    state: Mapping[str, torch.Tensor],
) -> dict[str, str]:
    """Return the options of a head, all of them, each with an allowed value.

    Args:
        head: The architecture's name, for messages.
        options: Those of the head.
        given: By the user.
        settled: By the name that the user gave to `--arch`.
        state: The state dict, which can make an option pointless.

    Raises:
        UsageError: An option is missing, unknown, or has an unknown value.
    """
    known = {option.name for option in options}
    for name in given:
        if name not in known:
            takes = ", ".join(option.name for option in options) or "none"
            raise UsageError(f"{head} has no option {name!r}; it takes {takes}.")
    complete: dict[str, str] = {}
    for option in options:
        if option.matters is not None and not option.matters(state):
            continue  # the file makes it pointless: accepted, and ignored
        if option.only_with is not None:
            other, values = option.only_with
            if complete.get(other) not in values:
                continue  # another option makes it pointless
        default = settled.get(option.name, option.default)
        value = given.get(option.name, default)
        choice = " or ".join(f"{option.name}={v}" for v in option.values)
        if not default and option.name not in given:
            raise UsageError(
                f"{head} needs --arch-option {choice}: the file does not say which, and "
                f"{option.changes} depends on it."
            )
        if not option.allows(value):
            raise UsageError(f"{option.name}={value} is none of {head}'s; name {choice}.")
        fixed = settled.get(option.name)
        if fixed and value != fixed:
            raise UsageError(
                f"--arch and --arch-option {option.name}={value} disagree: the architecture named "
                f"has {option.name}={fixed}. Leave one of them out."
            )
        complete[option.name] = value
    return complete
