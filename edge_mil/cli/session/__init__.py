"""`edge-mil session`: the sessions that a service keeps.

`command` lists, shows, reports on, exports and releases them; `listing` has what it prints of each;
`check` looks for damage and recovers what is whole.
"""

from edge_mil.cli.session.command import add_parser

__all__ = ["add_parser"]
