"""This router's consumers: who has a lease, what stands in the kernel for them, what they used.

Brings together the book of leases, the kernel's part (provider.py), the platform's, the sections of
the configuration that keep the leases, and the ledger of bytes. Whether new leases are given is
asked of the offer, whom to trust is told.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from ..config.options import CONFIG, CONSUMER_TYPE, PROVIDER_NAME
from ..config.peering import Consumer, ProviderSettings, consumer_name
from ..config.writer import section_of
from ..errors import ConfigError, UplinkError
from ..mesh.wire.endpoints import ScopedEndpoint
from ..mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRequest
from ..model import DEFAULT_MTU, DEVICE_GROUP, PROVIDER_DEVICE, Family, PeerCounters
from ..platform.tunnels import tunnel_mtu
from ..system import iproute, wg
from ..system.proc import forwarding_fault
from ..tasks import tell_awhile
from ..uci import Draft
from ..uplinks.service import Service
from ..usage_file import UsageFile
from .device import Provider
from .lease_pool import SESSION_S, LeasePool
from .plan import Lease, ProviderPlan, pool_networks, reachable_by

Table = dict[str, Any]
HOUSEKEEPING_S = 10.0
SILENT_S = 180.0  # a known consumer without a new handshake for so long has no session any more
QUIET_S = 15.0  # and is not heard: its clock may have gone back
READMIT_S = 60.0


class LeaseServer:
    """The consumers of one router. `refusal` says why no new lease is given now (None: it is),
    `blocked` why the kernel would not let them through.
    """

    def __init__(self, service: Service, provider: Provider, store_dir: str) -> None:
        self.service = service
        self.provider = provider
        self.problems: dict[str, str] = {}
        self.node_id = ""
        self.public_key = ""
        self.blocked = ""
        self.pool: LeasePool | None = None
        self.endpoints: tuple[ScopedEndpoint, ...] = ()
        self.peers: Mapping[str, PeerCounters] = {}
        self.mesh_devices: tuple[str, ...] = ()
        self.refusal: Callable[[], Denial | None] = lambda: None
        self._usage = UsageFile(os.path.join(store_dir, "usage.json"), self.problems)
        self._private = ""
        self._own_networks: list[str] = []
        self._chosen: object = None
        self._readmitted: dict[str, float] = {}
        self._applying = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def settings(self) -> ProviderSettings:
        """As configured."""
        return self.service.uplinks.config.provider

    @property
    def enabled(self) -> bool:
        """Whether the owner wants this router to be a provider."""
        return self.settings.enabled and self.service.uplinks.config.settings.enabled

    @property
    def quota_left_gb(self) -> float:
        """GB left in this month; -1 without a quota."""
        return self._usage.ledger.quota_left_gb(self.settings.quota_gb)

    @property
    def is_spent(self) -> bool:
        """Whether this month's quota is used up."""
        return self.quota_left_gb == 0.0

    def forwarding_fault(self) -> str:
        """Why the kernel would not forward for consumers, with the command; '' where it does."""
        lines = self.service.monitor.network.state.wans
        what, mend = forwarding_fault({family: lines[family].known for family in Family})
        return f"{what}: `{mend}`, and keep it in /etc/sysctl.conf" if what else ""

    def _look_at_forwarding(self) -> None:
        self.blocked = self.forwarding_fault()
        if self.blocked:
            self.problems["forwarding"] = self.blocked
        else:
            self.problems.pop("forwarding", None)

    def start(self) -> None:
        """Take over what an earlier run counted."""
        self._usage.load()

    async def stop(self) -> None:
        """Stop looking after consumers; what stands for them stays."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.pool is not None:
            await self._usage.save()

    async def follow(self) -> None:
        """Bring everything in line with the configuration; a failure is told in `problems`."""
        try:
            async with self._applying:
                await self._follow()
            self.problems.pop("provider", None)
        except UplinkError as error:
            self.problems["provider"] = str(error)

    async def _follow(self) -> None:
        platform = self.service.platform
        if not self.service.uplinks.understood:
            return  # a configuration that is lost withdraws nothing
        if not self.enabled:
            self.problems.pop("forwarding", None)
            links = self.service.monitor.network.state.links.values()
            if self.pool is not None or any(link.name == PROVIDER_DEVICE for link in links):
                self.pool = None
                await self.provider.remove()
                await platform.remove_provider()
            return
        self._look_at_forwarding()
        await self._ensure_key()
        self.endpoints = await self._find_endpoints()
        await self._follow_book()
        assert self.pool is not None
        port = self.service.uplinks.config.peering.mesh_port
        await platform.install_provider(
            self.pool.gateways, self.settings.listen_port, self.mesh_devices, port
        )
        await self._apply_kernel()

    async def _follow_book(self) -> None:
        """Have a book by the settings; other pools make a new one, and what fits is kept."""
        settings = self.settings
        chosen = (self.node_id, settings.pool4, settings.pool6)
        if self.pool is None or chosen != self._chosen:
            self.pool = LeasePool(*self._pools(settings))
            self._chosen = chosen
            kept = self.service.uplinks.config.consumers
            if self.pool.restore(kept, time.monotonic()):
                self._spawn_keeping()
        self.pool.limit(settings.max_consumers, settings.lease_s)

    def _pools(
        self, settings: ProviderSettings
    ) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
        try:
            return pool_networks(self.node_id, self._own_networks, settings.pool4, settings.pool6)
        except ValueError as error:
            raise ConfigError(f"{CONFIG}.{PROVIDER_NAME}: {error}") from error

    async def with_pools(self, settings: ProviderSettings) -> ProviderSettings:
        """Settings whose pools are chosen, to be kept: a network that comes later moves nobody."""
        await self._find_endpoints()
        four, six = self._pools(settings)
        if not settings.pool6:  # random, as RFC 4193 (section 3.2) wants it
            six = ipaddress.IPv6Network((b"\xfd" + os.urandom(7) + bytes(8), 64))
        return replace(settings, pool4=str(four), pool6=str(six))

    async def _ensure_key(self) -> None:
        platform = self.service.platform
        self._private = await platform.read_key(PROVIDER_DEVICE)
        if not self._private:
            self._private, self.public_key = await platform.generate_keys(PROVIDER_DEVICE)
        elif not self.public_key:
            self.public_key = await wg.public_key(self._private)

    async def _find_endpoints(self) -> tuple[ScopedEndpoint, ...]:
        found = await iproute.read_all_addresses()
        links = self.service.monitor.network.state.links.values()
        tunnels = {link.name for link in links if link.group == DEVICE_GROUP}
        found.pop(PROVIDER_DEVICE, None)
        self._own_networks = [address for addresses in found.values() for address in addresses]
        return reachable_by(found, tunnels, self.settings)

    async def _apply_kernel(self) -> None:
        if self.pool is not None:
            await self.provider.apply(await self._plan(self.pool))

    async def _plan(self, pool: LeasePool) -> ProviderPlan:
        lines = self.service.monitor.network.state.wans
        resolvers = self.settings.resolvers or tuple(await self.service.platform.read_resolvers())
        usable = [r for r in resolvers if not ipaddress.ip_address(r).is_loopback]
        return ProviderPlan(
            private_key=self._private,
            listen_port=self.settings.listen_port,
            gateways=pool.gateways,
            leases=tuple(replace(lease, expires_s=0.0) for lease in pool.leases),
            lines={family: tuple(sorted(lines[family].known)) for family in Family},
            resolvers=tuple(usable) or self.service.uplinks.config.settings.resolvers,
            limit_mbps=self.settings.limit_mbps,
            renewal_port=self.service.uplinks.config.peering.mesh_port,
            mtu=self._mtu(),
            is_open=not self.is_spent,
        )

    def _mtu(self) -> int:
        """What the narrowest of our lines has room for: consumers may come in by any of them."""
        return tunnel_mtu(DEFAULT_MTU, self.service.monitor.network.state.narrowest_wan())

    async def grant(self, request: LeaseRequest) -> LeaseGrant | Denial:
        """Give a trusted peer a place, or say why not; it is in the kernel when this returns."""
        async with self._applying:
            refusal = self._refusal(request)
            if refusal is not None or self.pool is None:
                return refusal or Denial(Deny.NOT_OFFERING, "this router offers nothing")
            before = self.pool.leases
            lease = self.pool.request(
                request,
                time.monotonic(),
                own_networks=self._own_networks,
                own_keys={self.public_key},
            )
            if isinstance(lease, Denial):
                return lease
            is_new = _places(before) != _places(self.pool.leases)
            if is_new:
                await self._apply_kernel()
        if is_new:
            self.service.journal.peer("lease", "lease_granted", request.peer_id, "asked for")
            self._spawn_keeping()
        elif self._is_silent(lease.public_key):
            await self._readmit(lease.public_key)
        return self._grant_of(lease)

    def _refusal(self, request: LeaseRequest) -> Denial | None:
        if self.pool is None:
            return Denial(Deny.NOT_OFFERING, f"{self.node_id} does not offer its internet")
        if self.pool.by_key(request.public_key) is not None:
            return None  # who has a place keeps it, whatever the line does
        return self.refusal()

    def _grant_of(self, lease: Lease) -> LeaseGrant:
        assert self.pool is not None
        gateways = tuple(text.partition("/")[0] for text in self.pool.gateways)
        return LeaseGrant(
            peer_id=self.node_id,
            public_key=self.public_key,
            addresses=lease.addresses,
            endpoints=self.endpoints,
            gateways=gateways,
            dns=gateways,
            mtu=self._mtu(),
            limit_mbps=self.settings.limit_mbps,
            lease_s=self.settings.lease_s,
        )

    async def release(self, public_key: str, peer_id: str) -> bool:
        """Take a lease back that its holder gives up; whether there was one."""
        if self.pool is None:
            return False
        lease = self.pool.by_key(public_key)
        if lease is None or lease.peer_id != peer_id:
            return False
        self.pool.release(public_key, time.monotonic())
        await self._lost_leases([lease], "given back")
        return True

    async def revoke(self, distrust_reason: Callable[[str], str]) -> None:
        """End the leases of peers that are not trusted any more."""
        if self.pool is None:
            return
        for peer_id in {lease.peer_id for lease in self.pool.leases}:
            reason = distrust_reason(peer_id)
            if reason:
                gone = self.pool.revoke(peer_id, time.monotonic())
                await self._lost_leases(gone, "not trusted any more")

    async def _lost_leases(self, leases: list[Lease], cause: str) -> None:
        if not leases:
            return
        async with self._applying:
            await self._apply_kernel()
        for lease in leases:
            self.service.journal.peer("lease", "lease_ended", lease.peer_id, cause)
        await self._keep_later()

    async def _keep_consumers(self) -> None:
        """Have the configuration hold the set of leases; nothing is written where it does."""
        async with self.service.lock:
            if self.pool is None:
                return
            wanted = {
                consumer_name(lease.public_key): Consumer(
                    consumer_name(lease.public_key),
                    lease.peer_id,
                    lease.public_key,
                    lease.addresses,
                )
                for lease in self.pool.leases
            }
            found = {c.name: c for c in self.service.uplinks.config.consumers}
            if wanted == found:
                return

            def write(draft: Draft) -> None:
                for name in found.keys() - wanted.keys():
                    draft.remove_section(name)
                for name, consumer in wanted.items():
                    if found.get(name) != consumer:
                        draft.set_section(name, CONSUMER_TYPE, section_of(consumer).options)

            if await self.service.uplinks.read():  # nothing is written on top of what is lost
                await self.service.platform.edit(CONFIG, write)
                await self.service.uplinks.read()

    async def run(self) -> None:
        """The task: look after leases and counters, for ever."""
        while True:
            await asyncio.sleep(min(HOUSEKEEPING_S, self.settings.lease_s / 4))
            if self.pool is not None:
                await self._keep_house(self.pool)

    async def _keep_house(self, pool: LeasePool) -> None:
        now_s, was_spent = time.monotonic(), self.is_spent
        self._look_at_forwarding()
        try:
            self.endpoints = await self._find_endpoints()
            async with self._applying:
                await self._apply_kernel()
            await self.recount()
            self.problems.pop("provider", None)
        except UplinkError as error:
            self.problems["provider"] = str(error)
            return
        if self.is_spent != was_spent:
            async with self._applying:
                await self._apply_kernel()
        alive = {key for key, peer in self.peers.items() if peer.is_alive(SESSION_S)}
        await self._lost_leases(pool.expire(now_s, alive), "it was not renewed")
        for lease in pool.leases:
            if self._is_silent(lease.public_key):
                await self._readmit(lease.public_key)
        await self._keep_later()  # again, where it failed
        await self._usage.save_if_due()
        self.service.journal.refreshed()

    async def recount(self) -> None:
        """Read what consumers have moved by now."""
        if self.pool is None:
            return
        self.peers = await self.provider.read_peers()
        moved = {key: peer.rx_bytes + peer.tx_bytes for key, peer in self.peers.items()}
        self._usage.ledger.record(moved, date.today(), self.settings.reset_day)

    def _is_silent(self, public_key: str) -> bool:
        peer = self.peers.get(public_key)
        if peer is None or peer.handshake_age_s is None:
            return False
        if peer.stale_s <= SILENT_S or peer.silent_s <= min(QUIET_S, SILENT_S):
            return False
        return time.monotonic() - self._readmitted.get(public_key, float("-inf")) > READMIT_S

    async def _readmit(self, public_key: str) -> None:
        """Forget the consumer's last handshake: its clock may have gone back with a reboot."""
        self._readmitted[public_key] = time.monotonic()
        async with self._applying:
            await self.provider.readmit(public_key)

    def _spawn_keeping(self) -> None:
        task = asyncio.get_running_loop().create_task(self._keep_later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_later(self) -> None:
        try:
            await self._keep_consumers()
        except UplinkError as error:
            self.problems["consumers"] = f"the leases can't be kept: {error}"
        except Exception as error:
            tell_awhile("consumers", "keeping leases", error, self.problems)
        else:
            self.problems.pop("consumers", None)

    def consumer_rows(self) -> list[Table]:
        """Every consumer with its traffic."""
        if self.pool is None:
            return []
        now_s = time.monotonic()
        return [self._consumer_row(lease, now_s) for lease in self.pool.leases]

    def _consumer_row(self, lease: Lease, now_s: float) -> Table:
        peer = self.peers.get(lease.public_key)
        used = self._usage.ledger.used(lease.public_key)
        age_s = peer.handshake_age_s if peer is not None else None
        return {
            "peer_id": lease.peer_id,
            "public_key": lease.public_key,
            "address": lease.addresses[0].partition("/")[0],
            "address6": lease.addresses[-1].partition("/")[0],
            "expires_s": max(0, int(lease.expires_s - now_s)),
            "handshake_age_s": -1 if age_s is None else int(age_s),
            "endpoint": peer.endpoint if peer is not None else "",
            "rx_bytes": peer.rx_bytes if peer is not None else 0,
            "tx_bytes": peer.tx_bytes if peer is not None else 0,
            "today_bytes": used.today,
            "month_bytes": used.period,
        }


def _places(leases: tuple[Lease, ...]) -> set[tuple[str, str]]:
    return {(lease.public_key, lease.addresses[0]) for lease in leases}
