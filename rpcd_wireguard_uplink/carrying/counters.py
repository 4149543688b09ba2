"""Whether the path in use carries: are flows of the LAN through a tunnel answered?

Our nft table counts the first packets of new flows as they enter the forward hook towards a tunnel
and as they have passed everybody's rules there, and the answers from tunnels likewise. Counted are
flows that are owed an answer by a public address (TCP, echo requests, UDP to ports that always
answer): syslog or NetFlow prove nothing. `judge` is pure: samples over time in, a finding out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum

from ..model import PROVIDER_DEVICE, Family
from ..system.nft import TableReader
from ..values import dataclass

TABLE_NAME = "wgup"
TABLE = f"inet {TABLE_NAME}"
QUIET_S, WINDOW_S, DESTINATIONS = 3.0, 10.0, 3
PROVEN_QUIET_S, PROVEN_WINDOW_S, PROVEN_DESTINATIONS = 10.0, 20.0, 8
"""Once answers came, hosts that are dead explain some silence."""
PASSED_S = 1.0
SLACK_S = 0.1  # samples are taken a second apart, more or less
KEPT_S = 60.0
REMEMBERED_S = 10

_COUNTED = ("entered", "left", "back", "home")
_DESTINATIONS = ("tried", "sent")
_ANSWERED_PORTS = "53, 123, 443, 784, 853, 3478"
_PRIVATE = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, "
    "192.168.0.0/16, 224.0.0.0/3"
)
COUNTED = "carry_entered4"
"""One of the sets that hold the names of tunnels; all of them hold the same."""
ENTERING, _LEAVING = "carry_entering", "carry_leaving"
UNDER_WAY = "ct direction original ct state established"
"""Most packets: neither the first of a connection nor an answer."""
_CHAINS = ((ENTERING, "entered", "back"), (_LEAVING, "left", "home"))
_LATE = 1000  # others' filters are at -1 to 50


class Finding(Enum):
    """What is wrong with a path that should carry."""

    NONE = ""
    BLOCKED = "blocked"  # flows enter the forward hook and never pass it
    SILENT = "silent"  # they leave, and nothing comes back
    KEPT = "kept"  # answers come back, and never pass the forward hook


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of one tunnel in one family. Since the sample before, new flows to `tried` have
    entered the forward hook, and those to `sent` have passed it.
    """

    at_s: float
    entered: int = 0
    left: int = 0
    back: int = 0
    home: int = 0
    tried: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()


def carrying_script(tunnels: Collection[str], known: Iterable[str] = ()) -> str:
    """nft commands for the sets of our table; what was counted of these tunnels stays.

    `known` are the names that COUNTED holds by now.
    """
    names = ", ".join(f'"{name}"' for name in tunnels)
    gone = ", ".join(f'"{name}"' for name in known if name not in tunnels)
    out = []
    for family in Family:
        n = family.version
        for counted in _COUNTED:
            name = f"{TABLE} carry_{counted}{n}"
            out.append(f"add set {name} {{ type ifname; counter; }}")
            out += [f"add element {name} {{ {names} }}"] if names else []
            out += [f"{verb} element {name} {{ {gone} }}" for verb in ("add", "delete") if gone]
        dynamic = (
            f"type {family.value}_addr; size 128; flags dynamic,timeout; timeout {REMEMBERED_S}s;"
        )
        out += [f"add set {TABLE} carry_{seen}{n} {{ {dynamic} }}" for seen in _DESTINATIONS]
    for (chain, new, answered), seen in zip(_CHAINS, _DESTINATIONS, strict=True):
        out += [f"add chain {TABLE} {chain}_new", f"flush chain {TABLE} {chain}_new"]
        out += [f"add rule {TABLE} {chain}_new {rule}" for rule in _UNOWED]
        out += [
            f"add rule {TABLE} {chain}_new meta nfproto {f.value} oifname @carry_{new}{f.version} "
            f"update @carry_{seen}{f.version} {{ {f.word} daddr }}"
            for f in Family
        ]
        out += [f"add chain {TABLE} {chain}", f"flush chain {TABLE} {chain}"]
        # A connection is confirmed behind the last hook: until then this is its first packet.
        out.append(f"add rule {TABLE} {chain} ct status & confirmed == 0 goto {chain}_new")
        out.append(f"add rule {TABLE} {chain} ct direction original return")
        out += [
            f"add rule {TABLE} {chain} ct state established meta nfproto {f.value} "
            f"iifname @carry_{answered}{f.version}"
            for f in Family
        ]
    return "\n".join(out) + "\n"


def counting_script(*, is_counting: bool) -> str:
    """nft commands for the later chain at the forward hook, which is there while something counts:
    what leads packets to tunnels jumps to ENTERING.
    """
    add = f"add chain {TABLE} carry_late"
    if not is_counting:
        return f"{add}\nflush chain {TABLE} carry_late\ndelete chain {TABLE} carry_late\n"
    add += f" {{ type filter hook forward priority {_LATE}; policy accept; }}"
    rules = (f"{UNDER_WAY} return", f"jump {_LEAVING}")
    added = "".join(f"add rule {TABLE} carry_late {rule}\n" for rule in rules)
    return f"{add}\nflush chain {TABLE} carry_late\n{added}"


_UNOWED = (
    f'iifname "{PROVIDER_DEVICE}" return',  # consumers of ours may not enter a tunnel
    "meta l4proto != { tcp, udp, icmp, icmpv6 } return",
    f"udp dport != {{ {_ANSWERED_PORTS} }} return",
    "icmp type != echo-request return",
    "icmpv6 type != echo-request return",
    f"ip daddr {{ {_PRIVATE} }} return",
    "ip6 daddr != 2000::/3 return",
)


def read_counters(sets: TableReader) -> Mapping[str, int]:
    """Packets by "what4 device" (what: entered, left, back, home), and by "tried4 address" or
    "sent4 address" the milliseconds since a new flow to it was. Raises UplinkError.
    """
    found: dict[str, int] = {}
    for n in (family.version for family in Family):
        for what in _COUNTED:
            for each in sets.read(f"carry_{what}{n}"):
                found[f"{what}{n} {each.text}"] = each.packets
        for what in _DESTINATIONS:
            for each in sets.read(f"carry_{what}{n}"):
                found[f"{what}{n} {each.key.hex()}"] = 1000 * REMEMBERED_S - each.left_ms
    return found


def sample_of(
    counters: Mapping[str, int], family: Family, tunnel: str, at_s: float, since_s: float
) -> Sample:
    """One tunnel's sample; `since_s` is when the sample before was taken."""
    n, longest_ms = family.version, 1000 * max(1.0, at_s - since_s)

    def count(what: str) -> int:
        return counters.get(f"{what}{n} {tunnel}", 0)

    def fresh(what: str) -> frozenset[str]:
        name = f"{what}{n} "
        found = [k for k, age_ms in counters.items() if k.startswith(name) and age_ms <= longest_ms]
        return frozenset(key.removeprefix(name) for key in found)

    packets = (count("entered"), count("left"), count("back"), count("home"))
    return Sample(at_s, *packets, fresh("tried"), fresh("sent"))


def judge(samples: Sequence[Sample], *, is_proven: bool) -> Finding:
    """What is wrong, by the latest samples, oldest first; `is_proven`: answers came by this path.

    Silence counts from the last answer on. It says something where new flows to several
    destinations went unanswered meanwhile: one dead host, its retransmissions and its many ports
    say nothing.
    """
    limits = (QUIET_S, WINDOW_S, DESTINATIONS)
    if is_proven:
        limits = (PROVEN_QUIET_S, PROVEN_WINDOW_S, PROVEN_DESTINATIONS)
    quiet = _since_change(samples, "home")
    if _has_flows([(s.at_s, s.sent) for s in quiet], *limits):
        return Finding.KEPT if quiet[-1].back > quiet[0].back else Finding.SILENT
    # Both counters see a packet in the same moment: one that did not pass was dropped.
    stuck = [(s.at_s, s.tried) for s in _since_change(samples, "left")]
    return Finding.BLOCKED if _has_flows(stuck, PASSED_S, WINDOW_S, DESTINATIONS) else Finding.NONE


def _has_flows(
    seen: Sequence[tuple[float, frozenset[str]]], least_s: float, window_s: float, enough: int
) -> bool:
    """Whether new flows to enough destinations were seen lately, the first of them so long ago."""
    now_s = seen[-1][0]
    flows = [(at_s, to) for at_s, to in seen[1:] if to and at_s > now_s - window_s]
    if not flows or now_s - flows[0][0] < least_s - SLACK_S:
        return False
    return len(frozenset[str]().union(*(to for _, to in flows))) >= enough


def _since_change(samples: Sequence[Sample], name: str) -> Sequence[Sample]:
    """The samples from the last change of a counter on."""
    for number in range(len(samples) - 1, 0, -1):
        if getattr(samples[number - 1], name) != getattr(samples[-1], name):
            return samples[number:]
    return samples


@dataclass(slots=True)
class Trail:
    """What was seen of one path in one family since it was taken.

    `finding` stays until an answer comes, or nobody has tried anything for KEPT_S.
    """

    path: str
    finding: Finding = Finding.NONE
    _samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=round(KEPT_S) + 1))
    _answered_s: float | None = None
    _tried_s: float = 0.0

    @property
    def last_s(self) -> float:
        return self._samples[-1].at_s if self._samples else 0.0

    def add(self, sample: Sample) -> None:
        """Take the next sample; counters that began anew begin the trail anew."""
        before = self._samples[-1] if self._samples else None
        if before is not None and (sample.entered < before.entered or sample.home < before.home):
            self.restart()
            before = None
        self._samples.append(sample)
        if before is not None and sample.home > before.home:
            self._answered_s = sample.at_s
            self.finding = Finding.NONE
        if sample.tried:
            self._tried_s = sample.at_s
        found = judge(list(self._samples), is_proven=self._answered_s is not None)
        if found is not Finding.NONE or sample.at_s - self._tried_s > KEPT_S:
            self.finding = found

    def restart(self) -> None:
        """Forget what was seen: what was found is mended."""
        self._samples.clear()
        self.finding = Finding.NONE
        self._answered_s = None

    def has_no_way(self, least_s: float) -> bool:
        """Whether for so long no flow at all has entered the forward hook towards the path."""
        first, last = self._samples[0], self._samples[-1]
        return first.entered == last.entered and last.at_s - first.at_s >= least_s

    @property
    def carrying(self) -> bool | None:
        """Whether the path carries; None where nothing lately says so."""
        if self.finding is not Finding.NONE:
            return False
        is_fresh = self._answered_s is not None and self.last_s - self._answered_s <= KEPT_S
        return True if is_fresh else None
