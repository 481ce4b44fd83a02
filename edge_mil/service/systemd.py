"""Messages to systemd: the service is ready, what it does, and that its pipeline still works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

LOG = logging.getLogger("edge_mil.service")

BEATS_PER_PERIOD = 3
"""Messages within one `WatchdogSec`: two may be late before the service is restarted."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The service manager, reached by sd_notify(3): one datagram for each message.

    Attributes:
        address: Socket of the service manager; "" where there is none, and nothing is sent then.
        watchdog_s: The manager restarts a service that was silent for so long; 0 for never.
    """

    address: str = ""
    watchdog_s: float = 0.0

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Supervisor:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC, as systemd sets them for this process.

        Source:
            sd_notify(3), sd_watchdog_enabled(3).
        """
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "0") if mine else "0"
        watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0
        return Supervisor(environment.get("NOTIFY_SOCKET", ""), watchdog_s)

    def notify(self, **values: str) -> None:
        """Send `NAME=value` lines: READY="1", STATUS="...", STOPPING="1", WATCHDOG="1".

        Where the manager does not listen the message is lost, and the service goes on.
        """
        if not self.address or not hasattr(socket, "AF_UNIX"):
            return
        # A leading @ stands for the NUL of Linux' abstract sockets.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        text = "\n".join(f"{name}={value}" for name, value in values.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), address)

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Tell the manager at intervals that the pipeline works, for as long as it does.

        Args:
            probe: Runs the pipeline once; while it hangs, and where it fails, nothing is told, and
                the manager restarts the service.
        """
        if not self.address or not self.watchdog_s:
            return
        while True:
            try:
                await probe()
            except Exception:  # whatever it is: the manager learns it by our silence
                LOG.exception("the pipeline's self-test failed")
            else:
                self.notify(WATCHDOG="1")
            await asyncio.sleep(self.watchdog_s / BEATS_PER_PERIOD)
