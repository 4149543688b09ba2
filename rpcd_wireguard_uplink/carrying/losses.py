"""Packets that the kernel itself threw away, by its own counters: no route, reverse-path filter.

From /proc/net/netstat and /proc/net/snmp6 (proc.c of net/ipv4 and net/ipv6).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..model import Family


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


def is_strict(device: str, root: str = "/proc/sys/net/ipv4/conf") -> bool:
    """Whether the reverse-path filter of a device is strict: of its own value and that of `all`
    the larger one counts (ip-sysctl, rp_filter).
    """
    values = [_text(f"{root}/{name}/rp_filter").strip() for name in ("all", device)]
    return max((int(value) for value in values if value.isdigit()), default=0) == 1


def _text(path: str) -> str:
    with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read()
    return ""
