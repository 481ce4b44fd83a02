"""`edge-mil bench`: measure this machine.

`command` lists and finds what can be measured; `stream` measures sessions, in process and over
gRPC; `imaging` measures the steps before the network (its fields in `imaging_fields`, a path
whose steps are timed in `imaging_steps`).
"""

from edge_mil.cli.bench.command import add_parser

__all__ = ["add_parser"]
