"""Old names of public classes, functions and attributes, kept for one release with a warning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

REMOVED_IN = "0.3.0"
"""The release that removes every name renamed in 0.2.0; a test fails when it comes."""


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's `__getattr__` (PEP 562) that returns the new objects for old names.

    A module assigns it under `if not TYPE_CHECKING`, or type checkers would accept any name.

    Args:
        module: Name of the module that had the old names, `__name__`.
        names: Old name -> new name, as `NewClass` of the same module or `package.module:NewClass`.

    Returns:
        A function that warns (DeprecationWarning) at the line that uses an old name.
    """

    def attribute(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].rpartition(":")
        warnings.warn(
            f"{module}.{name} is now {home or module}.{new}; edge_mil {REMOVED_IN} removes the "
            "old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(home or module), new)

    return attribute


def renamed_attribute(owner: str, old: str, new: str) -> property:
    """Return a property that reads a renamed attribute under its old name, with a warning.

    Args:
        owner: Name of the class.
        old: Name that the attribute had.
        new: Its name now.
    """

    def read(self: object) -> Any:
        warnings.warn(
            f"{owner}.{old} is now {owner}.{new}; edge_mil {REMOVED_IN} removes the old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(self, new)

    return property(read)
