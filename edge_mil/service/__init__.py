"""The gRPC service: requests of clients in, messages of `edge_mil.v1` out.

`server` runs the process; `address` opens the port, `systemd` talks to the service manager,
`handlers` turns errors into statuses, `pagination` cuts lists into pages and `limits` holds what
every client is promised. One folder for each servicer, in this order: `models`, `calibrations`,
`sessions`, `views`; a folder imports those before it and none after it.
"""

from edge_mil.service.address import DEFAULT_ADDRESS
from edge_mil.service.server import ServerSettings, run_server

__all__ = ["DEFAULT_ADDRESS", "ServerSettings", "run_server"]
