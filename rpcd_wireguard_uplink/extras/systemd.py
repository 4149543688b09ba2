"""Tells systemd that the service is ready, stopping and alive (sd_notify(3)).

Loaded where the variable NOTIFY_SOCKET says that systemd listens. A loop that hangs sends nothing,
and systemd starts the service again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Send one state; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), socket.MSG_DONTWAIT, address)


async def stay_alive() -> None:
    """Say so twice in the time that systemd waits for it; returns where systemd does not wait."""
    with contextlib.suppress(ValueError):
        pause_s = int(os.environ["WATCHDOG_USEC"]) / 2e6 if "WATCHDOG_USEC" in os.environ else 0.0
        while pause_s > 0:
            notify(ALIVE)
            await asyncio.sleep(pause_s)
