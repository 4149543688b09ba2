"""The switch: the only thing that moves traffic from a dead path to a live one.

A verdict map of our own nftables table decides which packets leave the router's ordinary routing
for table 5180, whose default route is the path chosen. The map's elements lapse by themselves
unless they are refreshed, so a service that dies gives the traffic back. Only packets that routing
would send out of a dead line, or nowhere, enter. The tunnels' own outer packets have table 5179:
the live lines, never a tunnel. Sockets that are bound to a tunnel (our probes) find its default
route in table 5181, which nothing else looks into. This module knows nothing of health or of who
is preferred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import iproute, process
from ..errors import UplinkError
from ..model import PROVIDER_DEVICE, DefaultRoute, Family
from ..wireguard import OUTER_MARK
from .listing import compared_names, map_elements, parse_heard

TABLE = "wgup"
UNDERLAY_TABLE = 5179
LANE_TABLE = 5180
BOUND_TABLE = 5181
BOUND_PREF = 32769
LANE_MARK = 0x01000000
PROBE_MARK = 0x52  # our probes of a line itself: they must never be led into a tunnel
POLICY_MASK = 0x3F00  # mwan3's mmx_mask
CHOSEN_MASK = 0x00FF0000  # where pbr (fw_mask) and Tailscale keep their marks
BYPASS_MARK = 0x00080000  # tailscaled's own packets: they ask for the main table
LAPSE_S = 5.0
REFRESH_S = 1.5
LAST_METRIC = 4294967295

_NFPROTO = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}
_SADDR = {Family.IPV4: "ip saddr", Family.IPV6: "ip6 saddr"}
_RULES: tuple[tuple[int, str], ...] = (
    (99, f"fwmark {OUTER_MARK:#x}/0xff lookup main suppress_prefixlength 0 suppress_ifgroup 51"),
    (100, f"fwmark {OUTER_MARK:#x}/0xff lookup {UNDERLAY_TABLE}"),
    (110, f"fwmark {LANE_MARK:#x}/{LANE_MARK:#x} lookup main suppress_prefixlength 0"),
    (120, f"fwmark {LANE_MARK:#x}/{LANE_MARK:#x} lookup {LANE_TABLE}"),
    (32768, f"iif lo lookup {LANE_TABLE}"),
)


@dataclass(frozen=True, slots=True)
class Opening:
    """An open lane of one family: which devices are dead, and where their traffic goes."""

    family: Family
    dead: tuple[str, ...]
    route: DefaultRoute


def standing_script(tunnels: Iterable[str], lines: Mapping[Family, Iterable[str]]) -> str:
    """nft commands that bring the table to its standing form and leave an open lane open.

    `tunnels` are the consumer's tunnel devices, `lines` the WAN devices of each family, whose
    answered traffic is counted. Everything is one transaction.
    """
    t = f"inet {TABLE}"
    out = [f"add table {t}", f"add set {t} tunnels {{ type ifname; }}"]
    for n, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        out += [
            f"add map {t} lane{n} {{ type mark : verdict; flags timeout; }}",
            f"add set {t} heard{n} {{ type ifname; counter; }}",
            f"add set {t} onlink{n} {{ type {kind}; flags interval; auto-merge; }}",
            f"add chain {t} enter{n}",
            f"add chain {t} leave{n}",
        ]
    out += [
        f"add chain {t} mark_it",
        f"flush chain {t} mark_it",
        f"add rule {t} mark_it meta mark set meta mark | {LANE_MARK:#x} accept",
    ]
    for name, hook in (
        ("pre", "type filter hook prerouting priority -149; policy accept;"),
        ("out", "type route hook output priority -149; policy accept;"),
        ("through", "type filter hook forward priority -1; policy accept;"),
        ("nat", "type nat hook postrouting priority 100; policy accept;"),
    ):
        out += [f"add chain {t} {name} {{ {hook} }}", f"flush chain {t} {name}"]
    out += [f"add rule {t} pre {rule}" for rule in _entry_rules()]
    out += [
        f"add rule {t} out meta mark & 0xff == {{ {OUTER_MARK:#x}, {PROBE_MARK:#x} }} return",
        # A chain before ours may have led it elsewhere by a mark, which oifname does not show.
        f"add rule {t} out meta mark & {CHOSEN_MASK:#x} != {{ 0, {BYPASS_MARK:#x} }} return",
        f"add rule {t} out fib daddr type {{ local, broadcast, multicast }} return",
        f"add rule {t} out meta nfproto ipv4 jump leave4",
        f"add rule {t} out meta nfproto ipv6 jump leave6",
        f'add rule {t} through iifname "{PROVIDER_DEVICE}" oifname @tunnels reject',
        f"add rule {t} through oifname @tunnels tcp flags syn tcp option maxseg size set rt mtu",
        f"add rule {t} nat oifname @tunnels masquerade",
        f"flush set {t} tunnels",
    ]
    out += _elements("tunnels", tunnels)
    for family in Family:
        out.append(f"flush set {t} heard{family.version}")
        out += _elements(f"heard{family.version}", lines.get(family, ()))
    return "\n".join(out) + "\n"


def _entry_rules() -> list[str]:
    rules = []
    for family in Family:
        n = family.version
        rules.append(
            f"meta nfproto {_NFPROTO[family]} ct state established ct direction reply "
            f"{_SADDR[family]} != @onlink{n} iifname @heard{n}"
        )
    rules += [
        # mwan3 has marked it; while mwan3 starts, a marked answer would find no route to the LAN.
        f"iifname @tunnels meta mark set meta mark & {0xFFFFFFFF ^ POLICY_MASK:#x} return",
        f'iifname "{PROVIDER_DEVICE}" return',
        "fib daddr type { local, broadcast, multicast } return",
    ]
    rules += [f"meta nfproto {_NFPROTO[f]} jump enter{f.version}" for f in Family]
    return rules


def _elements(name: str, devices: Iterable[str]) -> list[str]:
    quoted = ", ".join(f'"{device}"' for device in devices)
    return [f"add element inet {TABLE} {name} {{ {quoted} }}"] if quoted else []


def refresh_script(families: Iterable[Family], marks: Sequence[int]) -> str:
    """nft commands that give the open lanes' elements their full time again, without a gap."""
    out = []
    for family in families:
        name = f"inet {TABLE} lane{family.version}"
        full = ", ".join(f"{m:#x} timeout {LAPSE_S:g}s : goto mark_it" for m in marks)
        keys = ", ".join(f"{m:#x}" for m in marks)
        out += [f"add element {name} {{ {full} }}", f"delete element {name} {{ {keys} }}"]
        out.append(f"add element {name} {{ {full} }}")
    return "\n".join(out) + "\n"


def open_script(opening: Opening, marks: Sequence[int], tunnels: Collection[str] = ()) -> str:
    """nft commands that let the dead devices' traffic, and what has no route, into the lane.

    A `fib` expression looks up as the router itself would (nft_fib_ipv4.c sets iif to lo), so what
    has no route shows there as the way of the router's own sockets: the lane's tunnel.
    """
    n = opening.family.version
    nowhere = [d for d in (opening.route.device,) if d in tunnels and d not in opening.dead]
    entering = ", ".join(f'"{device}"' for device in [*opening.dead, *nowhere])
    leaving = ", ".join(f'"{device}"' for device in opening.dead)
    vmap = f"meta mark & {POLICY_MASK:#x} vmap @lane{n}"
    out = [f"flush chain inet {TABLE} enter{n}", f"flush chain inet {TABLE} leave{n}"]
    if entering:
        enter = f"add rule inet {TABLE} enter{n}"
        out.append(f"{enter} fib daddr . mark oifname {{ {entering} }} {vmap}")
    if leaving:
        out.append(f"add rule inet {TABLE} leave{n} oifname {{ {leaving} }} {vmap}")
    out.append(f"add rule inet {TABLE} enter{n} fib daddr . mark oif missing {vmap}")
    return "\n".join(out) + "\n" + refresh_script([opening.family], marks)


def close_script(family: Family) -> str:
    """nft commands that shut one family's lane at once."""
    n = family.version
    return (
        f"flush map inet {TABLE} lane{n}\n"
        f"flush chain inet {TABLE} enter{n}\n"
        f"flush chain inet {TABLE} leave{n}\n"
    )


def route_line(route: DefaultRoute, table: int, metric: int | None = None) -> str:
    """`route replace` for a default route of one of our tables; an on-link gateway is believed."""
    via = f" via {route.gateway} onlink" if route.gateway else ""
    last = f" metric {metric}" if metric is not None else ""
    return f"route replace default{via} dev {route.device} table {table}{last}"


def plan_underlay(
    routes: Sequence[DefaultRoute], dead: Iterable[str], tunnels: Iterable[str]
) -> list[DefaultRoute]:
    """The routes that outer packets may take, best first: live lines, dead ones if all are dead.

    A tunnel or the provider's device is never among them. Metrics are numbered anew, so that two
    lines never hide each other.
    """
    tunnel_set = {*tunnels, PROVIDER_DEVICE}
    dead_set = set(dead)
    able = [route for route in routes if route.device not in tunnel_set]
    live = [route for route in able if route.device not in dead_set]
    ordered = live + [route for route in able if route.device in dead_set]
    return [
        DefaultRoute(route.family, route.device, route.gateway, 10 * (index + 1))
        for index, route in enumerate(ordered)
    ]


@dataclass(slots=True)
class Lane:
    """The lane of this router. Methods run commands; one caller at a time, but `refresh`."""

    marks: tuple[int, ...] = (0,)
    openings: dict[Family, Opening] = field(default_factory=dict)
    _underlay: dict[Family, list[DefaultRoute]] = field(default_factory=dict)
    _tunnels: tuple[str, ...] = ()

    async def stand(
        self,
        tunnels: Sequence[str],
        lines: Mapping[Family, Sequence[str]],
        onlink: Sequence[str],
        more: str = "",
    ) -> None:
        """Put the standing part in place; what is there already stays, an open lane too.

        `onlink` are prefixes of the lines' own networks: what answers from there proves nothing.
        `more` are nft commands for the same transaction.
        """
        self._tunnels = tuple(tunnels)
        await _nft(standing_script(tunnels, lines) + _onlink_script(onlink) + more)
        for family in Family:
            await self._stand_routes(family, tunnels)

    async def _stand_routes(self, family: Family, tunnels: Sequence[str]) -> None:
        rules = await iproute.read_rules(family)
        if not rules:
            return  # the family is switched off on this machine
        present = {int(rule["priority"]) for rule in rules}
        bound = {rule.get("oif") for rule in rules if int(rule["priority"]) == BOUND_PREF}
        last = f"route replace unreachable default table {UNDERLAY_TABLE} metric {LAST_METRIC}"
        lines = [last]
        lines += [f"rule add pref {pref} {rule}" for pref, rule in _RULES if pref not in present]
        lines += [_bound_rule("add", name) for name in tunnels if name not in bound]
        await iproute.batch(family, lines)
        stale = [_bound_rule("del", name) for name in bound if name and name not in tunnels]
        routes = [
            f"route replace default dev {name} table {BOUND_TABLE} metric {number}"
            for number, name in enumerate(tunnels, start=1)
        ]
        if family in self.openings:
            routes.append(route_line(self.openings[family].route, LANE_TABLE))
        await iproute.batch(family, stale + routes, force=True)  # a device may be missing still

    async def read_standing(self) -> dict[Family, Opening]:
        """What an earlier run of the service left open, so that it can be taken over."""
        found: dict[Family, Opening] = {}
        for family in Family:
            n = family.version
            listed = await process.run(
                ["nft", "-j", "list", "map", "inet", TABLE, f"lane{n}"], check=False
            )
            if listed.returncode != 0 or not map_elements(listed.stdout):
                continue
            routes = await iproute.read_default_routes(family, str(LANE_TABLE))
            chain = await process.run(
                ["nft", "-j", "list", "chain", "inet", TABLE, f"enter{n}"], check=False
            )
            if routes:
                names = compared_names(chain.stdout)
                dead = tuple(name for name in names if name != routes[0].device)
                found[family] = Opening(family, dead, replace(routes[0], metric=0))
        return found

    async def move(
        self,
        wanted: Mapping[Family, Opening | None],
        more: str = "",
        kept: Collection[Family] = (),
    ) -> None:
        """Open the lane of each family as wanted, or shut it (None); one transaction for all, with
        `more`, nft commands of others.

        Opening moves the dead devices' traffic to the opening's route, shutting gives it back to
        the router's ordinary routing. An open lane moves without a gap. Where the lane of a family
        in `kept` is shut, its route stays.
        """
        opened = {family: opening for family, opening in wanted.items() if opening is not None}
        shut = [family for family in wanted if family not in opened]
        held = {family: self.openings.pop(family) for family in shut if family in self.openings}
        scripts = [open_script(o, self.marks, self._tunnels) for o in opened.values()]
        scripts += [close_script(family) for family in shut]
        routes = [iproute.batch(f, [route_line(o.route, LANE_TABLE)]) for f, o in opened.items()]
        try:
            await asyncio.gather(_nft("".join(scripts) + more), *routes)
        except UplinkError:
            self.openings.update(held)  # so that the caller's next try finds a difference
            raise
        self.openings.update(opened)
        flush = [f"route flush table {LANE_TABLE}"]
        ended = [family for family in shut if family not in kept]
        await asyncio.gather(*(iproute.batch(family, flush, force=True) for family in ended))

    async def refresh(self, more: str = "") -> None:
        """Keep what is open from lapsing, and run `more`. To be called every REFRESH_S."""
        if self.openings or more:
            await _nft(refresh_script(list(self.openings), self.marks) + more)

    async def set_underlay(self, family: Family, routes: Sequence[DefaultRoute]) -> None:
        """Let outer packets take these routes, in order, and nothing else."""
        wanted = list(routes)
        if self._underlay.get(family) == wanted:
            return
        found = await iproute.read_default_routes(family, str(UNDERLAY_TABLE))
        stale = [route for route in found if route not in wanted]
        await iproute.batch(
            family,
            [route_line(route, UNDERLAY_TABLE, route.metric) for route in wanted],
            force=True,
        )
        kept = {route.metric for route in wanted}
        gone = [
            f"route del default dev {route.device} table {UNDERLAY_TABLE} metric {route.metric}"
            for route in stale
            if route.metric not in kept
        ]
        await iproute.batch(family, gone, force=True)
        self._underlay[family] = wanted

    async def read_heard(self, family: Family) -> dict[str, int]:
        """Packets that answered ours from beyond each line, counted since the table stands."""
        listed = await process.run(
            ["nft", "-j", "list", "set", "inet", TABLE, f"heard{family.version}"], check=False
        )
        return parse_heard(listed.stdout) if listed.returncode == 0 else {}

    async def forget_flows(self, family: Family, addresses: Iterable[str]) -> None:
        """Delete the tracked connections that were translated to the addresses of a dead path.

        Entries that vanish meanwhile, or none at all, are no error.
        """
        for address in addresses:
            host = address.partition("/")[0]
            argv = ["conntrack", "-f", family.value, "-D", "-q", host]
            await process.run(argv, check=False, timeout_s=3.0)

    async def remove(self) -> None:
        """Take away everything that this module ever put up."""
        self.openings.clear()
        self._underlay.clear()
        await process.run(["nft", "delete", "table", "inet", TABLE], check=False)
        for family in Family:
            lines = [f"rule del pref {pref} {rule}" for pref, rule in _RULES]
            for rule in await iproute.read_rules(family):
                if int(rule["priority"]) == BOUND_PREF and "oif" in rule:
                    lines.append(_bound_rule("del", rule["oif"]))
            last = f"route del unreachable default table {UNDERLAY_TABLE} metric {LAST_METRIC}"
            lines.append(last)
            tables = (UNDERLAY_TABLE, LANE_TABLE, BOUND_TABLE)
            lines += [f"route flush table {table}" for table in tables]
            await iproute.batch(family, lines, force=True)


def _bound_rule(verb: str, device: str) -> str:
    return f"rule {verb} pref {BOUND_PREF} oif {device} lookup {BOUND_TABLE}"


def _onlink_script(prefixes: Iterable[str]) -> str:
    out = []
    for family in Family:
        n = family.version
        of_family = [p for p in prefixes if (":" in p) == (family is Family.IPV6)]
        out.append(f"flush set inet {TABLE} onlink{n}")
        if of_family:
            out.append(f"add element inet {TABLE} onlink{n} {{ {', '.join(of_family)} }}")
    return "\n".join(out) + "\n"


async def _nft(script: str) -> None:
    await process.run(["nft", "-f", "-"], stdin=script)
