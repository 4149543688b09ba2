"""/proc: whether the kernel forwards at all, and which packets it threw away.

IPv4 is forwarded by what the device says that a packet came in by (route.c, ip_route_input_slow),
IPv6 by one switch for all (ip6_output.c, ip6_forward), which also ends router advertisements on a
device whose accept_ra is 1. Losses are from netstat and snmp6 (proc.c of net/ipv4 and net/ipv6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..model import PROVIDER_DEVICE, Family

SETTINGS = "/proc/sys/net"


def read_setting(name: str) -> str:
    """A setting below net, such as ipv4/ip_forward; '' where it is not there."""
    try:
        with open(f"{SETTINGS}/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_setting(name: str, value: str) -> None:
    """Change a setting below net. Raises OSError."""
    with open(f"{SETTINGS}/{name}", "w", encoding="ascii") as file:
        file.write(value)


def filter_of(device: str) -> str:
    """The name of the setting of a device's reverse path filter: 1 is strict, 2 loose."""
    return f"ipv4/conf/{device}/rp_filter"


def forwarding_fault(
    lines: Mapping[Family, Collection[str]], read: Callable[[str], str] = read_setting
) -> tuple[str, str]:
    """Why packets of LANs and consumers are not forwarded to these WANs and back, and the
    command that mends it; two empty texts where they are.
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
    what = (
        f"this router does not forward {' and '.join(off)}: LAN hosts and consumers reach nothing"
    )
    return what, f"sysctl -w {' '.join(settings)}"


@dataclass(frozen=True, slots=True)
class Losses:
    """Packets since the start of the network namespace."""

    no_route: tuple[int, int] = (0, 0)
    reverse_path: int = 0

    def routeless(self, family: Family) -> int:
        """Received packets that had no route."""
        return self.no_route[0 if family is Family.IPV4 else 1]


def read_losses(root: str = "/proc/net") -> Losses:
    """The counters now; zeros for what this kernel doesn't count."""
    four = dict(parse_netstat(_text(f"{root}/netstat")))
    lines = (line.split() for line in _text(f"{root}/snmp6").splitlines())
    six = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
    routeless = (four.get("IpExt.InNoRoutes", 0), six.get("Ip6InNoRoutes", 0))
    return Losses(routeless, four.get("TcpExt.IPReversePathFilter", 0))


def parse_netstat(text: str) -> Iterator[tuple[str, int]]:
    """Lines come in pairs: names, then values, both behind the same heading."""
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        heading, _, named = names.partition(": ")
        _, _, counted = values.partition(": ")
        for name, value in zip(named.split(), counted.split(), strict=False):
            with suppress(ValueError):
                yield f"{heading}.{name}", int(value)


def is_strict(device: str) -> bool:
    """Whether the reverse-path filter of a device is strict: of its own value and that of `all`
    the larger one counts (ip-sysctl, rp_filter).
    """
    values = [read_setting(filter_of(name)) for name in ("all", device)]
    return max((int(value) for value in values if value.isdigit()), default=0) == 1


def _text(path: str) -> str:
    with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read()
    return ""


def device_bytes(path: str = "/proc/self/net/dev") -> dict[str, tuple[int, int]]:
    """Bytes received and sent by each network device since it was made; {} where none can be read
    (dev_seq_printf_stats of net/core/net-procfs.c: eight numbers received, then those sent).
    """
    found = {}
    with suppress(OSError), open(path, encoding="ascii") as file:
        for line in file:
            name, colon, rest = line.rpartition(":")
            numbers = rest.split()
            if colon and len(numbers) >= 9:
                found[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return found
