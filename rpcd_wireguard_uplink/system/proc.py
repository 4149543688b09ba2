"""/proc: whether the kernel forwards at all, and which packets it threw away.

IPv4 is forwarded by what the device says that a packet came in by (route.c, ip_route_input_slow),
IPv6 by one switch for all (ip6_output.c, ip6_forward), which also ends router advertisements on a
device whose accept_ra is 1. Losses are from netstat and snmp6 (proc.c of net/ipv4 and net/ipv6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

from ..model import PROVIDER_DEVICE, Family
from ..reasons import because
from ..values import dataclass

SETTINGS = "/proc/sys/net"


def read_setting(name: str) -> str:
    """A setting below net, such as ipv4/ip_forward; '' where it is not there."""
    return read_lenient(f"{SETTINGS}/{name}").strip()


def write_setting(name: str, value: str) -> None:
    """Change a setting below net. Raises OSError."""
    with open(f"{SETTINGS}/{name}", "w", encoding="ascii") as file:
        file.write(value)


def filter_of(device: str) -> str:
    """The name of the setting of a device's reverse path filter: 1 is strict, 2 loose."""
    return f"ipv4/conf/{device}/rp_filter"


def has_legacy_marks() -> bool:
    """Whether rules of iptables-legacy, which nobody is told of, may change connection marks."""
    return any(
        read_lenient(f"/proc/net/{name}_tables_names")
        and "CONNMARK" in read_lenient(f"/proc/net/{name}_tables_targets").split()
        for name in ("ip", "ip6")
    )


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
    what = because("not_forwarding", ", ".join(off))
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
    four = dict(parse_netstat(read_lenient(f"{root}/netstat")))
    six = dict(parse_snmp6(read_lenient(f"{root}/snmp6")))
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


def parse_snmp6(text: str) -> Iterator[tuple[str, int]]:
    """A name and its value a line."""
    for words in map(str.split, text.splitlines()):
        with suppress(ValueError):
            name, value = words
            yield name, int(value)


def is_strict(device: str) -> bool:
    """Whether the reverse-path filter of a device is strict: of its own value and that of `all`
    the larger one counts (ip-sysctl, rp_filter).
    """
    values = [read_setting(filter_of(name)) for name in ("all", device)]
    return max((int(value) for value in values if value.isdigit()), default=0) == 1


def read_lenient(path: str) -> str:
    """A file's text, '' where it can't be read; a device's name in it may be no ASCII."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return file.read().decode(errors="replace")
    return ""


@dataclass(frozen=True, slots=True)
class DeviceCounters:
    """What a network device has received and sent since it was made."""

    rx_bytes: int
    tx_bytes: int
    tx_packets: int


def read_devices(path: str = "/proc/self/net/dev") -> dict[str, DeviceCounters]:
    """The counters of each network device; {} where none can be read."""
    return parse_devices(read_lenient(path))


def device_bytes(path: str = "/proc/self/net/dev") -> dict[str, tuple[int, int]]:
    """Bytes received and sent by each network device; {} where none can be read."""
    return {name: (each.rx_bytes, each.tx_bytes) for name, each in read_devices(path).items()}


def parse_devices(text: str) -> dict[str, DeviceCounters]:
    """Read /proc/net/dev (dev_seq_printf_stats, net/core/net-procfs.c: eight numbers received, of
    which the first are bytes and packets, then those sent).
    """
    found = {}
    for line in text.split("\n"):
        name, colon, rest = line.rpartition(":")
        numbers = rest.split()
        if colon and len(numbers) >= 10:
            with suppress(ValueError):
                found[name.strip()] = DeviceCounters(*(int(numbers[place]) for place in (0, 8, 9)))
    return found
