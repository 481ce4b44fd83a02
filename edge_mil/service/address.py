"""The address that the service listens at: on this machine only, as long as there is no TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from edge_mil.errors import ListenError

DEFAULT_ADDRESS = "127.0.0.1:50051"
OWNER_ONLY = 0o177
"""umask under which a socket is made 0600."""


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket, or a TCP port of this machine.

    Attributes:
        path: Of a Unix socket; None for TCP.
        host: Loopback address; "" for a Unix socket.
        port: TCP port; 0 takes a free one.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    def text(self, port: int) -> str:
        """Return the address as clients give it, with the port that was opened."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def parse_address(text: str) -> Address:
    """Read `unix:PATH` or `HOST:PORT`.

    Raises:
        ListenError: It is neither, or the host is not this machine's loopback.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ListenError("unix: needs the path of the socket, as unix:/run/edge-mil/s.sock.")
        return Address(path=Path(path).absolute())
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ListenError(
            f"{text!r} is no address to listen at; give HOST:PORT, as {DEFAULT_ADDRESS}, or "
            "unix:PATH."
        )
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ListenError(f"The host {host!r} cannot be found ({error}).") from error
    if not all(ipaddress.ip_address(str(one).split("%")[0]).is_loopback for one in found):
        raise ListenError(
            f"{text} can be reached from other machines, and TLS is not there yet; listen at "
            f"{DEFAULT_ADDRESS} or unix:PATH, and let others in by an SSH tunnel "
            "(ssh -L 50051:127.0.0.1:50051 DEVICE)."
        )
    return Address(host=host, port=int(port))


@contextlib.contextmanager
def listening(server: grpc.aio.Server, address: Address) -> Iterator[str]:
    """Open the port for as long as the block lasts; yield the address that clients use.

    Raises:
        ListenError: Something else listens there, or it cannot be opened.
    """
    if address.path is None:
        yield address.text(_open(server, address.text(address.port)))
        return
    path = address.path
    with _locked(path):
        before = os.umask(OWNER_ONLY)
        try:
            _open(server, f"unix:{path}")
        finally:
            os.umask(before)
        try:
            yield address.text(0)
        finally:
            path.unlink(missing_ok=True)


def _open(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ListenError(
            f"{address} is in use or cannot be opened; stop the other service, or name another "
            "--listen."
        )
    return port


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside a Unix socket: gRPC would take the path from a running server."""
    import fcntl

    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ListenError(f"{path} is a file, not a socket; name another --listen.")
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ListenError(f"{lock} cannot be made ({error.strerror}).") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ListenError(
            f"Another service listens at unix:{path}; stop it, or name another --listen."
        ) from error
    finally:
        os.close(handle)
