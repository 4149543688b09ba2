"""A WAN that is numbered by DHCP: dnsmasq as the ISP's server, BusyBox's udhcpc as the client.

The ISP may move its gateway and hand out routes (option 121). IPv6 stays as it is.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

from .lab import Lab
from .node import Child
from .wan import Wan

SCRIPT = """\
#!/bin/sh
# What udhcpc calls: with bound and renew the lease is in the environment.
case "$1" in
bound|renew)
  ip addr replace "$ip/$mask" dev "$interface"
  ip -4 route flush dev "$interface" proto dhcp
  if [ -n "$staticroutes" ]; then
    set -- $staticroutes
    while [ $# -gt 1 ]; do
      ip route replace "$1" via "$2" dev "$interface" proto dhcp metric 10; shift 2
    done
  else
    for gateway in $router; do
      ip route replace default via "$gateway" dev "$interface" proto dhcp metric 10
    done
  fi ;;
esac
"""


@dataclass(slots=True)
class DhcpWan:
    """The WAN's server and client. The line must be laid; its static IPv4 routes go."""

    lab: Lab
    wan: Wan
    _running: list[Child] = field(default_factory=list)

    def serve(self, gateway: str, routes: tuple[str, ...] = ()) -> None:
        """Have the ISP hand out the WAN's address with this gateway from now on.

        `routes` are further prefixes by it; then the default route is one of option 121 too.
        """
        for child in self._running:
            child.stop()
        self._running.clear()
        wan = self.wan
        wan.isp.sh(f"ip addr replace {gateway}/29 dev {wan.isp_device}")
        static = [part for each in (*routes, "0.0.0.0/0") for part in (each, gateway)]
        words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"]
        words += ["--user=root", "--pid-file=", f"--interface={wan.isp_device}", "--no-ping"]
        words += ["--bind-interfaces", "--dhcp-authoritative", f"--dhcp-option=3,{gateway}"]
        words += [f"--dhcp-leasefile={self.lab.path('isp', 'leases')}"]
        words += [f"--dhcp-range={wan.address4},{wan.address4},255.255.255.248,2m"]
        if routes:
            words += ["--dhcp-option=121," + ",".join(static)]
        self._running.append(self.lab.at_close(wan.isp.popen(words)))

    def connect(self) -> Child:
        """Start the client on the router; it asks until it is answered."""
        wan = self.wan
        wan.router.sh(f"ip -4 route flush dev {wan.device}\nip -4 addr flush dev {wan.device}")
        script = self.lab.path("udhcpc", "script")
        with open(script, "w", encoding="ascii") as file:
            file.write(SCRIPT)
        os.chmod(script, 0o755)
        words = ["udhcpc", "-f", "-i", wan.device, "-s", script]
        words += ["-t", "20", "-T", "1", "-A", "1", "-O", "121"]
        return self.lab.at_close(wan.router.popen(words))

    def renew(self, client: Child) -> None:
        """Have the client ask anew, as it does when half of its lease is over."""
        client.signal(signal.SIGUSR1)
