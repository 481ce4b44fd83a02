"""`edge-mil doctor`: what this device can run, what is missing, and the command that mends it."""

from edge_mil.cli.doctor.command import add_parser

__all__ = ["add_parser"]
