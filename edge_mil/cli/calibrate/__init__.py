"""`edge-mil calibrate`: measure a microscope from folders of images.

`command` has the verbs and prints what was measured; `histogram` draws the numbers behind the
gates as text.
"""

from edge_mil.cli.calibrate.command import add_parser

__all__ = ["add_parser"]
