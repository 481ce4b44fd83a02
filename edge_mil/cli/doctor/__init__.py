"""`edge-mil doctor`: say what this device can run, what is missing, and how to mend it.

`findings` examines the device, `accelerator` its GPU; `finding` is one fact; `command` prints what
was found.
"""

from edge_mil.cli.doctor.command import add_parser

__all__ = ["add_parser"]
