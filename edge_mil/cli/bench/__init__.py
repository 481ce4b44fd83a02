"""`edge-mil bench`: measure this machine.

`command` lists the benchmarks and starts one. `stream` measures sessions, in process and over
gRPC. `imaging` measures the steps before the network: `imaging_fields` makes the fields, and
`imaging_steps` times each step next to the bare OpenCV calls that it needs.
"""

from edge_mil.cli.bench.command import add_parser

__all__ = ["add_parser"]
