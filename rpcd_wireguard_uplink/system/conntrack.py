"""Connection tracking over ctnetlink: the connections with a mark are deleted by one message.

The kernel compares mark and mask itself (CTA_MARK, CTA_MARK_MASK; ctnetlink_flush_conntrack).
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from ..errors import CommandFailed
from ..model import Family
from . import netlink
from .netlink import Message, network_number

_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_HEADER = struct.Struct("!BBH")  # struct nfgenmsg; version 1 has the family count for a flush
_MARK, _MARK_MASK = 8, 21
_DOMAINS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class ConnectionTracking:
    """The kernel's table of connections. Raises CommandFailed where it refuses."""

    def __init__(self) -> None:
        self._netlink = netlink.Netlink(netlink.NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def delete_marked(self, family: Family, mark: int, mask: int) -> None:
        """Delete the family's connections whose mark is that; none at all is no error."""
        body = _HEADER.pack(_DOMAINS[family], 1, 0)
        body += network_number(_MARK, mark) + network_number(_MARK_MASK, mask)
        error = self._netlink.change([Message(_DELETE, body)])[0]
        if error not in (0, errno.ENOENT):
            raise CommandFailed(f"connections could not be deleted: {os.strerror(error)}")
