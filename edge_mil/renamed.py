"""Old names of public classes and functions, kept for one release with a warning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping

REMOVED_IN = "0.3.0"
"""The release that removes every name renamed in 0.2.0; a test fails when it comes."""


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's `__getattr__` (PEP 562) that answers old names with the new objects.

    Args:
        module: Name of the module that had the old names, `__name__`.
        names: Old name -> new name, as `NewClass` of the same module or `package.module:NewClass`.

    Returns:
        A function that warns once for each place of use (DeprecationWarning).
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
