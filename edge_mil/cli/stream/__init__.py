"""`edge-mil stream`: play a slide, or a folder of images, to a service as a camera would.

`command` has the arguments, opens the session and prints its end; `playing` sends the frames and
shows the progress; `camera` makes the source from the options and says what a session must know of
it.
"""

from edge_mil.cli.stream.command import add_parser

__all__ = ["add_parser"]
