"""The gRPC service: the only place that knows that a server exists."""

from edge_mil.service.address import DEFAULT_ADDRESS
from edge_mil.service.server import ServerSettings, run_server

__all__ = ["DEFAULT_ADDRESS", "ServerSettings", "run_server"]
