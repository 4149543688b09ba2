"""Says when anybody changes the packet filter's rules: nf_tables' notifications over netlink.

What changed is not looked at, so lost messages do no harm (nfnetlink.h, NFNLGRP_NFTABLES).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_MOST_READS = 64


class RulesetWatch:
    """Calls back once for each burst of changes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop. Raises OSError where that is not allowed."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        try:
            sock.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except OSError:
            sock.close()
            raise
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)
        self._socket = sock

    def stop(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        for _ in range(_MOST_READS):
            try:
                if self._socket is None or not self._socket.recv(65536):
                    break
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more changed than there was room for
                break
        self._on_change()
