"""What systemd is told: that the service is ready, what it does, that its pipeline still moves."""

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
"""Beats within one `WatchdogSec`: two may come late before the service is taken for dead."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Speaks sd_notify(3): one datagram for each message.

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

    def tell(self, **values: str) -> None:
        """Send `NAME=value` lines: READY="1", STATUS="...", STOPPING="1", WATCHDOG="1".

        A manager that does not listen is no reason to stop: the message is lost then.
        """
        if not self.address or not hasattr(socket, "AF_UNIX"):
            return
        # A leading @ stands for the NUL of Linux' abstract sockets.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        text = "\n".join(f"{name}={value}" for name, value in values.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), address)

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Tell the manager again and again that the pipeline moves, for as long as it does.

        Args:
            probe: Passes through the pipeline; while it hangs, or after it failed, nothing is
                told, and the manager restarts the service.
        """
        if not self.address or not self.watchdog_s:
            return
        while True:
            try:
                await probe()
            except Exception:  # whatever it is, the manager must hear of it by our silence
                LOG.exception("the pipeline's self-test failed")
            else:
                self.tell(WATCHDOG="1")
            await asyncio.sleep(self.watchdog_s / BEATS_PER_PERIOD)
