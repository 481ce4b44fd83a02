"""The gRPC service: requests of clients in, messages of `edge_mil.v1` out.

`server` runs the process; `address` opens the port, `descriptors` raises the limit of open files,
`systemd` talks to the service manager. A call passes `interceptor` first: `admission` counts it,
`unreadable` tells bytes that are no message. `silence` says how long a client is waited for,
`byte_budget` lends to the fields under way, `handlers` turns errors into statuses and `limits`
holds what every client is promised. One folder for each servicer, in this order: `models`,
`calibrations`, `sessions`, `views`; a folder imports those before it and none after it.
"""

from edge_mil.service.address import DEFAULT_ADDRESS
from edge_mil.service.server import ServerSettings, run_server

__all__ = ["DEFAULT_ADDRESS", "ServerSettings", "run_server"]
