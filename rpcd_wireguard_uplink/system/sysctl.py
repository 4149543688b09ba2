"""Whether the kernel forwards packets of others at all, and the command that makes it do so.

IPv4 is forwarded by what the device says that a packet came in by (route.c, ip_route_input_slow),
IPv6 by one switch for all (ip6_output.c, ip6_forward), which also ends router advertisements on a
device whose accept_ra is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..model import PROVIDER_DEVICE, Family

SETTINGS = "/proc/sys/net"


def read_setting(name: str) -> str:
    """A setting below net, such as ipv4/ip_forward; '' where it is not there."""
    try:
        with open(f"{SETTINGS}/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def forwarding_fault(
    lines: Mapping[Family, Collection[str]], read: Callable[[str], str] = read_setting
) -> tuple[str, str]:
    """Why consumers' packets would not be forwarded to these WANs and back, and the command that
    mends it; two empty texts where they are.
    """
    off, settings = [], []
    if lines.get(Family.IPV4):
        names = ["all", "default", PROVIDER_DEVICE, *sorted(lines[Family.IPV4])]
        closed = [name for name in names if read(f"ipv4/conf/{name}/forwarding") == "0"]
        if closed:
            off.append("IPv4")
            settings += ["net.ipv4.ip_forward=1"]
            settings += [f"net.ipv4.conf.{n}.forwarding=1" for n in closed if "all" not in closed]
    if lines.get(Family.IPV6) and read("ipv6/conf/all/forwarding") == "0":
        off.append("IPv6")
        told = [n for n in sorted(lines[Family.IPV6]) if read(f"ipv6/conf/{n}/accept_ra") == "1"]
        settings += [f"net.ipv6.conf.{name}.accept_ra=2" for name in told]
        settings += ["net.ipv6.conf.all.forwarding=1"]
    if not off:
        return "", ""
    what = f"this router does not forward {' and '.join(off)}, so consumers would reach nothing"
    return what, f"sysctl -w {' '.join(settings)}"
