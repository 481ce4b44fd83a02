"""Live slide-level scores from multiple-instance-learning models, beside the microscope.

`open_bundle` and `Session` score on this machine; `Client` talks to a device. Research use only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mil.version import __version__

if TYPE_CHECKING:
    from edge_mil.bundle import Bundle, open_bundle
    from edge_mil.client import Client
    from edge_mil.session import Session

__all__ = ["Bundle", "Client", "Session", "__version__", "open_bundle"]

_HOME = {
    "Bundle": "edge_mil.bundle",
    "Client": "edge_mil.client",
    "Session": "edge_mil.session",
    "open_bundle": "edge_mil.bundle",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a client PC has no engine to import."""
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'edge_mil' has no attribute {name!r}")
