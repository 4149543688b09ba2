"""Provider's device: applies a plan to the kernel, its WireGuard peers, firewall and rates.

Only the difference to what is there is carried out, so that consumers come and go without the
others losing a packet, and what somebody else has removed is back after the next `apply`. The rules
come before the device, and a consumer is let in last.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import field

from ..errors import CommandFailed, NotFound
from ..model import (
    DEVICE_GROUP,
    IFB_DEVICE,
    OUTER_MARK,
    PROVIDER_DEVICE,
    TRIAL_DEVICE,
    Link,
    PeerCounters,
)
from ..reasons import because
from ..system import nft, process, wg
from ..system.rtnetlink import Kernel
from ..values import dataclass
from .firewall import TABLE, provider_script
from .plan import Lease, ProviderPlan
from .rates import Shaper, can_shape, wanted_shapes

PROVIDER_ALIAS = "secubox_provider"
"""Marks our device, as no tunnel is: the platforms delete tunnels that no section means."""


@dataclass(slots=True)
class Provider:
    """The provider's device and all that belongs to it. One caller at a time, but for reading."""

    kernel: Kernel
    _leases: Mapping[str, Lease] = field(default_factory=dict)
    _script: str = ""
    _configured: object = None
    _shaper: Shaper = field(init=False)
    _ages: wg.Ages = field(default_factory=wg.Ages)

    def __post_init__(self) -> None:
        self._shaper = Shaper(self.kernel)

    async def apply(self, plan: ProviderPlan) -> None:
        """Install all of the plan, and nothing else of ours; a second time changes nothing.

        Raises CommandFailed where a command fails or a device of that name is not ours; the next
        call then takes up where this one stopped.
        """
        links = {link.name: link for link in self.kernel.devices()}
        await self._ensure_rules(plan)
        is_there = PROVIDER_DEVICE in links
        served = await wg.read_device(PROVIDER_DEVICE, self._ages) if is_there else None
        is_new = await self._ensure_device(plan, links.get(PROVIDER_DEVICE), served)
        gone = {PROVIDER_DEVICE} if is_new else set()
        wanted = {lease.public_key: _networks(lease) for lease in plan.leases}
        there = () if served is None or is_new else served.peers
        found = {peer.public_key: frozenset(peer.allowed) for peer in there}
        expelled = [key for key in found if key not in wanted]
        admitted = {k: nets for k, nets in wanted.items() if found.get(k) != frozenset(nets)}
        await wg.change_peers(PROVIDER_DEVICE, expelled, {})
        await self._shaper.apply(wanted_shapes(plan.leases), plan.limit_mbps, links.keys() - gone)
        await wg.change_peers(PROVIDER_DEVICE, (), admitted)
        self._leases = {lease.public_key: lease for lease in plan.leases}

    async def _ensure_rules(self, plan: ProviderPlan) -> None:
        wans = {name for names in plan.wans.values() for name in names}
        onlink = {each.text for each in self.kernel.addresses() if each.device in wans}
        script = provider_script(plan, sorted(onlink))
        if script != self._script or TABLE not in await nft.read_tables():
            self._script = ""
            await nft.run_script(script)
            if not plan.is_open:
                await _forget_flows(plan)
            self._script = script

    async def _ensure_device(
        self, plan: ProviderPlan, link: Link | None, served: wg.Device | None
    ) -> bool:
        """Have the device as it should be; returns whether it had to be made."""
        if link is None:
            await wg.make_device(self.kernel, PROVIDER_DEVICE)
        elif link.alias != PROVIDER_ALIAS and not _is_unfinished(link, served, plan.private_key):
            raise CommandFailed(because("device_not_ours", PROVIDER_DEVICE))
        if link is None or link.alias != PROVIDER_ALIAS:
            self.kernel.set_device(PROVIDER_DEVICE, alias=PROVIDER_ALIAS, group=DEVICE_GROUP)
        named = (plan.private_key, plan.listen_port, OUTER_MARK)
        if served is None or named != (served.private_key, served.listen_port, served.mark):
            await wg.configure_served(PROVIDER_DEVICE, plan.private_key, plan.listen_port)
        wanted = (plan.gateways, plan.mtu)
        if link is None or not link.carrier or self._configured != wanted:
            self._configured = None
            addresses = [str(ipaddress.ip_interface(text)) for text in plan.gateways]
            self.kernel.set_device(PROVIDER_DEVICE, mtu=plan.mtu, up=True)
            self.kernel.set_addresses(PROVIDER_DEVICE, addresses)
            self._configured = wanted
        return link is None

    def sweep(self) -> None:
        """Remove what a trial of rates left that was ended in the middle."""
        self.kernel.delete_device(TRIAL_DEVICE)

    async def remove(self) -> None:
        """Remove everything that was ever installed, also in an earlier run."""
        self.sweep()
        self._leases, self._script, self._configured = {}, "", None
        links = {link.name: link for link in self.kernel.devices()}
        device = links.get(PROVIDER_DEVICE)
        if device is not None and device.alias == PROVIDER_ALIAS:
            self.kernel.delete_device(PROVIDER_DEVICE)
        if IFB_DEVICE in links:
            await self._shaper.remove()
        await nft.delete_table("inet", TABLE)

    async def can_shape(self) -> str:
        """Why consumers' rates can't be limited here, '' if they can."""
        return await can_shape(self.kernel)

    async def read_peers(self) -> Mapping[str, PeerCounters]:
        """What each consumer has moved, by public key; nothing where there is no device."""
        served = await wg.read_device(PROVIDER_DEVICE, self._ages)
        return {p.public_key: p for p in served.peers} if served is not None else {}

    async def readmit(self, public_key: str) -> None:
        """Forget a consumer's last handshake: one whose clock went back gets in (rules.md 13).

        Its address and its rate stay, its counters begin anew. Raises NotFound for a key without a
        lease in the last plan.
        """
        lease = self._leases.get(public_key)
        if lease is None:
            raise NotFound(because("lease_gone"))
        await wg.change_peers(PROVIDER_DEVICE, [public_key], {public_key: _networks(lease)})


async def _forget_flows(plan: ProviderPlan) -> None:
    """Delete the consumers' tracked connections: offloaded ones would pass the rules by.

    Its exit status is 1 where it finds none, and it always says how many it found (do_command_ct
    in conntrack.c).
    """
    for text in plan.gateways:
        pool = ipaddress.ip_interface(text).network
        argv = ["conntrack", "-f", f"ipv{pool.version}", "-D", "-s", str(pool)]
        done = await process.run(argv, check=False)
        if "flow entries have been deleted" not in done.stderr:
            said = done.stderr.strip().splitlines()
            told = said[0][:200] if said else "it says nothing about it"
            raise CommandFailed(because("flows_go_on", told))


def _networks(lease: Lease) -> tuple[str, ...]:
    """A consumer's addresses as WireGuard prints them."""
    return tuple(str(ipaddress.ip_network(text, strict=False)) for text in lease.addresses)


def _is_unfinished(link: Link, served: wg.Device | None, private_key: str) -> bool:
    """Whether a run of ours died between making the device and marking it."""
    return served is not None and not link.alias and served.private_key in ("(none)", private_key)
