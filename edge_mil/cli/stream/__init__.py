"""`edge-mil stream`: play a source of frames to a service, as a camera would.

`camera` opens the source; `command` sends its frames and prints what is answered.
"""

from edge_mil.cli.stream.command import add_parser

__all__ = ["add_parser"]
