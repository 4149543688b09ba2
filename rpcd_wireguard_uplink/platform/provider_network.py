"""What a provider needs in `network` and `firewall` of a router, and putting it in force.

fw4 rejects whatever no zone of its own lets through, and an accept in another nft table does not
change that: hence these sections. They let consumers out by the WANs and to nothing of the router
but an echo and the renewal of leases; DNS needs no rule, because fw4 sees it on its way to a
resolver behind a WAN. What is narrower than zones, our own table keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import CommandFailed, ConfigError, UplinkError
from ..model import MARK_OPTION, PROVIDER_DEVICE, is_marked
from ..reasons import because
from ..system import process
from ..uci import Section, Value
from .linux import Platform
from .netifd import Netifd
from .tunnels import (
    LOST_NETWORK,
    NETWORK,
    ROLE_OPTION,
    SectionPlan,
    has_interfaces,
    plan_sections,
    words_of,
)

FIREWALL = "firewall"
INIT = "/etc/init.d/firewall"
RENDER_S = 20.0  # a slow router renders its rules for seconds
PROVIDER_ROLE = "provider"
ZONE = "wgup"

Wanted = Mapping[str, Sequence[Section]]
"""The provider's sections by configuration."""


class ProviderNetwork:
    def __init__(self, files: Platform, netifd: Netifd) -> None:
        self._files = files
        self._netifd = netifd

    async def install(self, network: Section, firewall: Sequence[Section]) -> None:
        """Put these in force; what is installed is neither written nor reloaded again.

        On an error all is as before. Raises ConfigError, CommandFailed, BusError.
        """
        wanted = {FIREWALL: firewall, NETWORK: (network,)}
        if not has_interfaces((await self._files.read(NETWORK)).sections):
            raise ConfigError(LOST_NETWORK)
        before = {c: installed_sections(c, (await self._files.read(c)).sections) for c in wanted}
        try:
            await self._apply(wanted)
        except BaseException:
            with contextlib.suppress(UplinkError):
                await asyncio.shield(self._apply(before))
            raise

    async def remove(self) -> None:
        """The files are then as they were before `install`."""
        await self._apply({FIREWALL: (), NETWORK: ()})

    async def _apply(self, wanted: Wanted) -> None:
        """Files first, both of them: a reload that fails leaves none of them half done."""
        changed = set()
        for config, sections in wanted.items():
            plan = plan_provider(config, sections, (await self._files.read(config)).sections)
            if plan:
                await self._files.edit(config, plan.apply)
                changed.add(config)
        if FIREWALL in changed or await has_zone(ZONE) != bool(wanted[FIREWALL]):
            await reload_firewall()
        if NETWORK in changed or (
            (PROVIDER_DEVICE in await self._netifd.dump()) != bool(wanted[NETWORK])
        ):
            await self._netifd.reload()


# --- sections


def network_section(gateways: Iterable[str]) -> Section:
    """netifd's part: a device that it did not make gets these addresses (with prefix lengths)."""
    addresses = tuple(gateways)
    options: dict[str, Value] = {
        "proto": "static",
        "device": PROVIDER_DEVICE,
        "ipaddr": tuple(a for a in addresses if ":" not in a),
        "ip6addr": tuple(a for a in addresses if ":" in a),
        ROLE_OPTION: PROVIDER_ROLE,
    }
    return _section("interface", PROVIDER_DEVICE, options)


def firewall_sections(
    zones: Iterable[str], listen_port: int, mesh_devices: Iterable[str], renewal_port: int
) -> tuple[Section, ...]:
    """Our zone, its ways out to these zones, and what is accepted from whom.

    The zone names its device: of a `network` that netifd does not know yet fw4 makes a zone that
    matches nothing (fw4.uc, parse_zone). WireGuard's port is open everywhere, because a consumer
    comes over a WAN or over a neighbour link of any zone, and nobody without a key gets an answer
    there. `mesh_devices` get the renewal port whatever zone they are in.
    """
    policies = {"input": "REJECT", "output": "ACCEPT", "forward": "REJECT"}
    renewal = {"proto": "tcp", "dest_port": str(renewal_port)}
    ping = {"src": ZONE, "proto": "icmp", "icmp_type": "echo-request"}
    listen = {"src": "*", "proto": "udp", "dest_port": str(listen_port)}
    return (
        _section("zone", "zone", {"name": ZONE, "device": (PROVIDER_DEVICE,), **policies}),
        *(
            _section("forwarding", f"forward{number}", {"src": ZONE, "dest": zone})
            for number, zone in enumerate(zones, 1)
        ),
        _accept("ping", "Ping", ping),
        _accept("renew", "Renewal", {"src": ZONE, **renewal}),
        _accept("listen", "WireGuard", listen),
        *(
            _accept(f"mesh{number}", f"Mesh-{device}", {"src": "*", "device": device, **renewal})
            for number, device in enumerate(sorted(mesh_devices), 1)
        ),
    )


def _accept(name: str, title: str, options: dict[str, str]) -> Section:
    named: dict[str, Value] = {"name": f"Allow-Uplink-{title}", **options, "target": "ACCEPT"}
    return _section("rule", name, named)


def _section(section_type: str, name: str, options: Mapping[str, Value]) -> Section:
    name = name if section_type == "interface" else f"{ZONE}_{name}"
    marked = {**options, MARK_OPTION: "1"}
    return Section(section_type, name, False, {key: v for key, v in marked.items() if v})


def plan_provider(config: str, wanted: Sequence[Section], found: Sequence[Section]) -> SectionPlan:
    """What makes the provider's sections of a configuration the wanted ones.

    Raises ConfigError where a section that is not ours has a name that is needed.
    """
    theirs = {section.name for section in found if not is_marked(section.options)}
    for section in wanted:
        if section.name in theirs:
            raise ConfigError(because("section_not_ours", config, section.name))
    return plan_sections(wanted, found, _role(config))


def installed_sections(config: str, found: Iterable[Section]) -> tuple[Section, ...]:
    """Those of a configuration's sections that are the provider's."""
    role = _role(config)
    return tuple(s for s in found if is_marked(s.options) and s.text(ROLE_OPTION) == role)


def _role(config: str) -> str:
    # All that is ours in `firewall` is the provider's; fw4 warns of each option it does not know.
    return PROVIDER_ROLE if config == NETWORK else ""


# --- zones


def provider_zones(firewall: Sequence[Section], wans: Iterable[Collection[str]]) -> tuple[str, ...]:
    """The zones that consumers leave by. Raises ConfigError where no zone has a WAN.

    `wans` are netifd's names of each WAN's interfaces. A zone that we forward to already stays
    while it is there: a WAN that is down for a moment is not worth a write to flash.
    """
    theirs = [section for section in firewall if not is_marked(section.options)]
    names = {s.text("name") for s in theirs if s.type == "zone"}
    found = {wan_zone(theirs, interfaces) for interfaces in wans}
    found |= {
        section.text("dest")
        for section in firewall
        if section.type == "forwarding" and is_marked(section.options)
    }
    zones = tuple(sorted(found & names)) or tuple(filter(None, [wan_zone(theirs, ())]))
    if not zones:
        raise ConfigError(because("no_wan_zone"))
    return zones


def wan_zone(firewall: Iterable[Section], interfaces: Collection[str]) -> str:
    """The name of the firewall's zone that holds one of these interfaces.

    Where none does (the WAN is down and has no interface now), the first zone that masquerades;
    '' where there is none either.
    """
    zones = [section for section in firewall if section.type == "zone"]
    for zone in zones:
        if any(name in interfaces for name in words_of(zone, "network")):
            return zone.text("name")
    return next((zone.text("name") for zone in zones if zone.text("masq") == "1"), "")


# --- fw4 as a program


async def has_zone(zone: str) -> bool:
    """Whether fw4 has a zone of that name in force.

    Its chain alone proves nothing: a reload only empties the chains of a zone that is gone.
    """
    return "jump" in await _chain(f"input_{zone}")


async def reload_firewall() -> None:
    """Put /etc/config/firewall in force, in one transaction of nft's.

    Rendered and checked first, because a reload that nft refuses ends with status 0 (fw4, start).
    Where fw4 isn't running nothing is reloaded: it will read its file when it starts. Raises
    CommandFailed, with the rules in force as they were.
    """
    checked = await process.run(["fw4", "check"], timeout_s=RENDER_S, check=False)
    if checked.returncode != 0:
        raise CommandFailed(because("fw4_refuses"))
    done = await process.run([INIT, "reload"], timeout_s=RENDER_S, check=False)
    if done.returncode != 0 and await _chain("input"):
        raise CommandFailed(because("fw4_reload", INIT, INIT))


async def _chain(chain: str) -> str:
    """A chain of fw4's as nft prints it, '' where there is none."""
    argv = ["nft", "list", "chain", "inet", "fw4", chain]
    return (await process.run(argv, check=False)).stdout
