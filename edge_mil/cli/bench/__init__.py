"""`edge-mil bench`: measure this machine.

`command` lists the benchmarks and runs one; `stream` times sessions, in process and over gRPC;
`imaging` times the steps before the network, with fields from `imaging_fields` and the bare calls
of each step in `imaging_steps`.
"""

from edge_mil.cli.bench.command import add_parser

__all__ = ["add_parser"]
