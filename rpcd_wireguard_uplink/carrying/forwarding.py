"""Whether the router's firewall forwards its LANs into the tunnels, and the rule that is missing.

A LAN that may not use the WAN either is meant to have no internet, and nothing is said of it. The
command that mends is one for whoever owns the chain that drops: ufw, firewalld, fw4, Docker,
libvirt, else iptables or nft itself.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..model import PROVIDER_DEVICE, Family
from ..reasons import because, told_with
from ..system.nft import name_text
from ..values import dataclass
from .ruleset import Chain, Ruleset
from .verdict import Outcome, Packet, Verdict, judge_packet

OURS = "wgup"
FORWARD = "forward"
MOST_LANS = 32
FW4 = ("inet", "fw4")
_KEEP = "have its own rules say so too"
_LASTING = ("uci ", "zone=", "ufw ", "firewall-cmd ")
_IPTABLES = ("filter", "mangle", "raw", "security")


@dataclass(frozen=True, slots=True)
class Paths:
    """Who forwards to whom: the LANs (device -> its addresses with prefix lengths), the WANs, and
    the tunnels with the families that they carry.
    """

    lans: Mapping[str, Sequence[str]]
    wans: Sequence[str]
    tunnels: Mapping[str, Sequence[Family]]


@dataclass(frozen=True, slots=True)
class Blockage:
    """Traffic of LANs that the firewall drops on its way into tunnels, or the answers to it.

    `what` is a sentence without its full stop, `mend` the command that adds what is missing;
    `lasts` says that it survives a reload of the firewall. `table` is the one that drops.
    """

    families: tuple[Family, ...]
    lans: tuple[str, ...]
    tunnels: tuple[str, ...]
    what: str
    mend: str
    lasts: bool
    table: tuple[str, str]

    @property
    def has_zones(self) -> bool:
        """Whether the chain's owner sorts devices into zones: fw4 and firewalld do."""
        return self.table == FW4 or self.table[1] == "firewalld"

    @property
    def sentence(self) -> str:
        """The problem and its remedy, for status."""
        if not self.mend:
            return self.what
        until = "" if self.lasts else f" until the firewall is loaded anew: {_KEEP}"
        return told_with(self.what, f": `{self.mend}` lets it pass{until}")


@dataclass(frozen=True, slots=True)
class _Gap:
    family: Family
    lan: str
    tunnel: str
    is_reply: bool
    outcome: Outcome
    wan: str


def lan_devices(
    addresses: Mapping[str, Sequence[str]], others: Collection[str]
) -> dict[str, Sequence[str]]:
    """The devices with hosts behind them: those with an address that is no loopback or link-local
    one, which are none of `others` (WANs, tunnels, mesh devices).
    """
    excluded = {*others, PROVIDER_DEVICE, "lo"}
    return {
        device: found
        for device, found in addresses.items()
        if device not in excluded and any(_has_hosts(text) for text in found)
    }


def _has_hosts(text: str) -> bool:
    interface = ipaddress.ip_interface(text)
    is_wide = interface.network.prefixlen < interface.max_prefixlen
    return is_wide and not (interface.ip.is_loopback or interface.ip.is_link_local)


def host_on(addresses: Iterable[str], family: Family) -> str:
    """An address that a host of the LAN could have, not the router's own; '' if there is none."""
    for text in addresses:
        interface = ipaddress.ip_interface(text)
        if interface.version != family.version or not _has_hosts(text):
            continue
        first = int(interface.network.network_address)
        for number in (2, 1, 3):
            host = ipaddress.ip_address(first + number)
            if host in interface.network and host != interface.ip:
                return str(host)
    return ""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the forward hook does: `blockages` are certain, and `unsure` are the tunnels of which
    it can't be said whether a LAN that may use the WAN may use them.
    """

    blockages: tuple[Blockage, ...] = ()
    unsure: frozenset[tuple[Family, str]] = frozenset()


def look_through(ruleset: Ruleset, paths: Paths) -> Forwarding:
    """What the firewall does with packets between LANs and tunnels, where the WAN is open."""
    groups: dict[tuple[object, ...], list[_Gap]] = {}
    unsure = set()
    for gap in _gaps(ruleset, paths):
        if gap.outcome.verdict is Verdict.UNKNOWN:
            unsure.add((gap.family, gap.tunnel))
            continue
        base = gap.outcome.base
        key = (_is_iptables(base) or base.family, base.table, base.name) if base else ()
        groups.setdefault(key, []).append(gap)
    return Forwarding(tuple(_told(ruleset, gaps) for gaps in groups.values()), frozenset(unsure))


def look_both_ways(ruleset: Ruleset, paths: Paths, served: Paths) -> Forwarding:
    """What the firewall does to this router's LANs, and to the consumers that it serves."""
    found, blocked = look_through(ruleset, paths), look_through(ruleset, served).blockages
    # Of consumers: what opens a zone for tunnels does not for them, where the zone is our own.
    consumers = (replace(each, mend="") if each.has_zones else each for each in blocked)
    return replace(found, blockages=(*found.blockages, *consumers))


def _gaps(ruleset: Ruleset, paths: Paths) -> Iterator[_Gap]:
    """What is dropped on its way to or from a tunnel, and what may be although it never is on the
    WAN's.
    """
    for family in Family:
        tunnels = [name for name, carried in paths.tunnels.items() if family in carried]
        for lan, addresses in list(paths.lans.items())[:MOST_LANS]:
            host = host_on(addresses, family)
            wan, wanted = _open_wan(ruleset, paths, family, lan, host) if host else (None, ())
            for tunnel in tunnels if wan is not None else ():
                for is_reply in (False, True):
                    packet = _packet(family, lan, tunnel, host, is_reply)
                    outcome = judge_packet(ruleset, packet, FORWARD, OURS)
                    if outcome.verdict in wanted:
                        yield _Gap(family, lan, tunnel, is_reply, outcome, wan or "")


def _open_wan(
    ruleset: Ruleset, paths: Paths, family: Family, lan: str, host: str
) -> tuple[str | None, Collection[Verdict]]:
    """A WAN that the LAN is kept from in neither direction ('': no WAN is known; None: there is
    none such), and the verdicts that would treat a tunnel worse.
    """
    for wan in paths.wans:
        packets = [_packet(family, lan, wan, host, is_reply) for is_reply in (False, True)]
        found = {judge_packet(ruleset, packet, FORWARD, OURS).verdict for packet in packets}
        if Verdict.DROP not in found:
            return wan, {Verdict.DROP, Verdict.UNKNOWN} - found
    return (None if paths.wans else ""), {Verdict.DROP}


def _packet(family: Family, lan: str, out: str, host: str, is_reply: bool) -> Packet:
    if is_reply:
        return Packet(family, out, lan, host, is_reply=True)
    return Packet(family, lan, out, host)


def _told(ruleset: Ruleset, gaps: Sequence[_Gap]) -> Blockage:
    families = tuple(f for f in Family if any(gap.family is f for gap in gaps))
    forth = [gap for gap in gaps if not gap.is_reply]
    first = (forth or list(gaps))[0]
    lans = tuple(dict.fromkeys(gap.lan for gap in gaps))
    tunnels = tuple(dict.fromkeys(gap.tunnel for gap in gaps))
    base = first.outcome.base or Chain("inet", "", "")
    who, mend = _owner(ruleset, base, gaps, first)
    shown = " and ".join(family.shown for family in families)
    sent, into = ", ".join(lans), ", ".join(tunnels)
    code = "drops_sent" if forth else "drops_answers"
    what = because(code, who, sent, into, f"{shown}: {_place(first)}")
    lasts, table = mend.startswith(_LASTING), (base.family, base.table)
    return Blockage(families, lans, tunnels, what, mend, lasts, table)


def _place(gap: _Gap) -> str:
    chain = gap.outcome.chain or Chain("inet", "", "")
    told = f"chain {chain.name} of table {chain.family} {chain.table}"
    return f"the policy of {told}" if gap.outcome.rule is None else f"a rule of {told}"


def _owner(ruleset: Ruleset, base: Chain, gaps: Sequence[_Gap], first: _Gap) -> tuple[str, str]:
    """Who made the chain, as an owner calls it, and the command that opens it."""
    names = {c.name for p, c in ruleset.chains.items() if p[:2] == (base.family, base.table)}
    pairs = list(dict.fromkeys((gap.lan, gap.tunnel, gap.is_reply) for gap in gaps))
    tunnels = list(dict.fromkeys(gap.tunnel for gap in gaps))
    if (base.family, base.table) == FW4:
        return "OpenWrt's firewall (fw4)", _fw4_command(ruleset, first, tunnels)
    if base.table == "firewalld":
        return "firewalld", _firewalld_command(first, tunnels)
    if base.table.startswith("libvirt"):
        return "libvirt", _nft_commands(base, gaps)
    if not _is_iptables(base):
        return f"The firewall (nftables, table {base.family} {base.table})", _nft_commands(
            base, gaps
        )
    if any(name.startswith(("ufw-", "ufw6-")) for name in names):
        ways = [(tunnel, lan) if back else (lan, tunnel) for lan, tunnel, back in pairs]
        commands = [f"ufw route allow in on {_q(a)} out on {_q(b)}" for a, b in ways]
        return "ufw", " && ".join(dict.fromkeys(commands))
    chain, who = "FORWARD", "The firewall (iptables)"
    if base.table == "filter" and "DOCKER-USER" in names:
        chain, who = "DOCKER-USER", "Docker's firewall"
    elif first.outcome.chain is not None and first.outcome.chain.name.startswith("LIBVIRT_"):
        who = "libvirt"
    return who, _iptables_commands(gaps, base.table, chain)


def _is_iptables(base: Chain) -> bool:
    return base.family in ("ip", "ip6") and base.table in _IPTABLES and base.name.isupper()


def _q(name: str) -> str:
    return shlex.quote(name)


def _iptables_commands(gaps: Iterable[_Gap], table: str, chain: str) -> str:
    where = chain if table == "filter" else f"{chain} -t {table}"
    commands = []
    for gap in gaps:
        command = "iptables" if gap.family is Family.IPV4 else "ip6tables"
        ends = f"-i {_q(gap.lan)} -o {_q(gap.tunnel)}"
        if gap.is_reply:
            ends = f"-i {_q(gap.tunnel)} -o {_q(gap.lan)} -m conntrack"
            ends += " --ctstate RELATED,ESTABLISHED"
        commands.append(f"{command} -I {where} {ends} -j ACCEPT")
    return " && ".join(dict.fromkeys(commands))


def _nft_commands(base: Chain, gaps: Iterable[_Gap]) -> str:
    """Put in front of the base chain's rules: what decides may be in any chain behind it."""
    at = f"insert rule {base.family} {base.table} {base.name}"
    commands = []
    for is_reply in (False, True):
        of_way = [gap for gap in gaps if gap.is_reply is is_reply]
        lans, tunnels = _nft_set(g.lan for g in of_way), _nft_set(g.tunnel for g in of_way)
        if of_way and is_reply:
            ends = f"iifname {tunnels} oifname {lans} ct state established,related"
            commands.append(f"{at} {ends} accept")
        elif of_way:
            commands.append(f"{at} iifname {lans} oifname {tunnels} accept")
    return " && ".join(f"nft {_q(command)}" for command in commands)


def _nft_set(names: Iterable[str]) -> str:
    quoted = [name_text(name) for name in dict.fromkeys(names)]
    return quoted[0] if len(quoted) == 1 else f"{{ {', '.join(quoted)} }}"


def _firewalld_command(first: _Gap, tunnels: Sequence[str]) -> str:
    """The tunnels join the WAN's zone; without a WAN, the zone that masquerades by default."""
    zone = "external"
    if first.wan:
        zone = f'"$(firewall-cmd --get-zone-of-interface={_q(first.wan)})"'
    moves = [f"firewall-cmd --permanent --zone={zone} --change-interface={_q(t)}" for t in tunnels]
    return " && ".join([*moves, "firewall-cmd --reload"])


def _fw4_command(ruleset: Ruleset, first: _Gap, tunnels: Sequence[str]) -> str:
    apply = "uci commit firewall && /etc/init.d/firewall reload"
    lan_zone = _fw4_zone(ruleset, first.lan) or "lan"
    joined = _fw4_zone(ruleset, first.tunnel)
    if joined:
        add = "uci add firewall forwarding && uci set firewall.@forwarding[-1].src="
        return f"{add}{lan_zone} && uci set firewall.@forwarding[-1].dest={joined} && {apply}"
    zone = _fw4_zone(ruleset, first.wan) or "wan"
    find = f"zone=$(uci show firewall | sed -n \"s/\\.name='{zone}'$//p\")"
    adds = [f'uci add_list "$zone.device={tunnel}"' for tunnel in tunnels]
    return " && ".join([find, *adds, apply])


def _fw4_zone(ruleset: Ruleset, device: str) -> str:
    """The zone that a device is in: fw4's chain `forward` jumps to forward_ZONE by device."""
    chain = ruleset.chains.get((*FW4, "forward"))
    compared: Any = None
    for statement in (s for rule in chain.rules for s in rule.statements) if chain else ():
        match = statement.get("match", {})
        if match.get("left") == {"meta": {"key": "iifname"}}:
            compared = match.get("right")
        target = str(statement.get("jump", {}).get("target", ""))
        if target.startswith("forward_"):
            names = compared.get("set", ()) if isinstance(compared, Mapping) else (compared,)
            if device in names:
                return target.removeprefix("forward_")
            compared = None
    return ""
