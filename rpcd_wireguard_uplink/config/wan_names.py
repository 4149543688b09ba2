"""The names of `list wan` as devices: netifd's interfaces are understood, unknown ones told.

A name that means nothing never hides a WAN that is there: where none of them means anything, every
WAN with a default route is watched. A name that meant a device once means it while that is gone,
because a PPPoE device goes with its session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field

from ..model import is_own_name
from ..reasons import because, told_with
from ..text import quoted
from ..values import dataclass

MOST_TOLD = 12


def wan_devices(
    names: Sequence[str], interfaces: Mapping[str, str], links: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The devices that are meant, in order, and the names that mean nothing here.

    `interfaces` maps netifd's names to their devices ('' for one that has none now), `links` are
    the devices that there are. An unknown name keeps its place, for a device may come; no devices
    at all say that every WAN is to be watched.
    """
    found: list[str] = []
    unknown: list[str] = []
    for name in names:
        if name in interfaces:
            parts = (interfaces.get(name + end) for end in ("", "_4", "_6"))
            found.append(next(filter(None, parts), name))
            continue
        found.append(name)
        # netifd's handlers name devices after the interface, such as pppoe-wan (ppp.sh).
        if name not in links and name.partition("-")[2] not in interfaces:
            unknown.append(name)
    is_any_known = len(unknown) < len(names)
    return (tuple(dict.fromkeys(found)) if is_any_known else ()), tuple(unknown)


def unknown_names(
    option: str, unknown: Collection[str], there: Iterable[str], instead: str = ""
) -> str:
    """A sentence for the owner about names of a list that mean nothing; '' where all do."""
    if not unknown:
        return ""
    loops = ("lo", "loopback")
    some = [name for name in dict.fromkeys(there) if name not in loops and not is_own_name(name)]
    told = ", ".join(some[:MOST_TOLD]) + (" and others" if len(some) > MOST_TOLD else "")
    names = ", ".join(map(quoted, unknown))
    code = "unknown_devices" if told else "no_devices"
    sentence = because(code, option, names, *filter(None, [told]))
    return told_with(sentence, f": {instead}") if instead else sentence


@dataclass(slots=True)
class WanNames:
    """What `list wan` means, with a memory. `devices` are in order of preference, () for all."""

    devices: tuple[str, ...] = ()
    problem: str = ""
    _seen: set[str] = field(default_factory=set)
    _meant: dict[str, str] = field(default_factory=dict)

    def follow(
        self, names: Sequence[str], interfaces: Mapping[str, str], links: Collection[str]
    ) -> bool:
        """Take things as they are now; whether other devices are meant."""
        before = self.devices
        self._seen = (self._seen | set(links)) & set(names)
        self._meant |= {name: interfaces[name] for name in names if interfaces.get(name)}
        known = {**interfaces, **{n: d for n, d in self._meant.items() if n in names}}
        self.devices, unknown = wan_devices(names, known, {*links, *self._seen})
        instead = "the others are watched" if self.devices else "every WAN is watched"
        self.problem = unknown_names("wan", unknown, interfaces or links, instead)
        return self.devices != before
