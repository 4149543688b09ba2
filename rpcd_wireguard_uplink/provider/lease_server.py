"""This router's consumers: who has a lease, and what they used.

Brings together the pool of leases, the router's part (site.py), the sections of the configuration
that keep the leases, and the ledger of bytes. Whether new leases are given at all is decided by
offer.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import date

from ..config.options import Consumer, consumer_name
from ..config.store import ConfigStore
from ..errors import UplinkError
from ..events import Events, NumbersChanged, PeerNews
from ..mesh.rate_limit import Buckets
from ..mesh.registry.peers import Peers
from ..mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRequest
from ..model import NOT_COUNTED, ConsumerRow, PeerCounters
from ..reasons import because
from ..storage.usage_file import UsageFile
from ..tasks import TaskSet, rest
from ..values import dataclass
from ..warnings import Warnings
from .lease_pool import SESSION_S, LeasePool
from .plan import Lease
from .site import Site
from .unkept_leases import UnkeptLeases

HOUSEKEEPING_S = 10.0
SILENT_S = 180.0  # a known consumer without a new handshake for so long has no session any more
QUIET_S = 15.0  # and is not heard: its clock may have gone back
READMIT_S = 60.0
NEW_BURST, NEW_PER_S = 4, 1 / 60  # leases of one peer that are new, or of another key
DAY_S = 86400.0
# Leases that are written at once: a peer's once a day, of all peers so many in the first day and so
# many in each later one. Others are written with the next counters.
WRITES, WRITES_A_DAY = 32, 4


@dataclass(eq=False, repr=False)
class LeaseServer:
    """The consumers of one router; there is a `pool` of leases while the owner wants to serve."""

    site: Site
    _store: ConfigStore
    _mesh_peers: Peers
    _usage: UsageFile
    _unkept: UnkeptLeases
    _warnings: Warnings
    _tasks: TaskSet
    _events: Events
    pool: LeasePool | None = None
    peers: Mapping[str, PeerCounters] = field(default_factory=dict)
    _chosen: object = None
    _mesh_devices: set[str] = field(default_factory=set)
    _readmitted: dict[str, float] = field(default_factory=dict)
    _pace: Buckets = field(default_factory=lambda: Buckets(NEW_BURST, NEW_PER_S))
    _first_writes: Buckets = field(default_factory=lambda: Buckets(1, 1 / DAY_S))
    _writes: Buckets = field(default_factory=lambda: Buckets(WRITES, WRITES_A_DAY / DAY_S))
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def gateways(self) -> tuple[str, ...]:
        """This router's own addresses in consumers' tunnels; () while nothing is offered."""
        return self.pool.gateways if self.pool is not None else ()

    @property
    def failure(self) -> str:
        """Why nothing can be offered although the owner wants it; '' where all is well."""
        return self._warnings.get("provider", "")

    @property
    def quota_left_gb(self) -> float:
        """GB left in this month; -1 without a quota."""
        return self._usage.ledger.quota_left_gb(self.site.settings.quota_gb)

    @property
    def is_spent(self) -> bool:
        return self.quota_left_gb == 0.0

    async def stop(self) -> None:
        """Keep what was counted and granted; what the kernel has for consumers stays."""
        if self.pool is not None:
            await self._keep_now()
            await self._usage.save()

    async def follow_mesh(self) -> None:
        """Let consumers in by the mesh's devices as they are now."""
        devices = set(self._mesh_peers.mesh.own)
        if devices != self._mesh_devices:
            self._mesh_devices = devices
            await self.follow()

    async def follow(self) -> None:
        """Bring everything in line with the configuration; a failure is a warning."""
        with self._warnings.catch("provider"):
            async with self._applying:
                await self._follow()

    async def _follow(self) -> None:
        if not self._store.understood:
            return  # a configuration that is lost withdraws nothing
        site = self.site
        if not site.enabled:
            self._warnings.clear_topic("forwarding")
            if self.pool is not None or not site.is_clean:
                self.pool = None
                await site.remove()
            return
        await site.prepare()
        self.pool = self._follow_book()
        await site.install(self.pool.gateways)
        await self._apply_kernel()

    def _follow_book(self) -> LeasePool:
        """A book by the settings; other pools make a new one, and what fits is kept."""
        settings, pool = self.site.settings, self.pool
        chosen = (self.site.node_id, settings.pool4, settings.pool6)
        if pool is None or chosen != self._chosen:
            if pool is None:
                held = self._unkept.complete(self._store.current.consumers)
            else:
                held = self._consumers(pool)
            pool = LeasePool(*self.site.pools(settings))
            self._chosen = chosen
            if pool.restore(held, time.monotonic()):
                self._tasks.spawn("keeping leases", self._keep())
        pool.limit(settings.max_consumers, settings.lease_s)
        return pool

    async def _apply_kernel(self) -> None:
        if self.pool is not None:
            await self.site.serve(self.pool, is_open=not self.is_spent)

    async def grant(self, request: LeaseRequest) -> LeaseGrant | Denial:
        """Give a trusted peer a place, or say why not; it is in the kernel when this returns."""
        async with self._applying:
            if self.pool is None:
                told = f"{self.site.node_id} does not offer its internet"
                return Denial(Deny.NOT_OFFERING, told)
            now_s = time.monotonic()
            held = self.pool.by_key(request.public_key)
            is_new = held is None or held.peer_id != request.peer_id
            if is_new and not self._pace.take(request.peer_id, now_s):
                told = "too many new keys of this router: its next one is taken in a minute"
                return Denial(Deny.TOO_MANY, told)
            lease = self.pool.request(
                request, now_s, own_networks=self.site.networks, own_keys={self.site.public_key}
            )
            if isinstance(lease, Denial):
                return lease
            if is_new:
                await self._keep_new(lease, now_s)
                self._note()
                await self._apply_kernel()
        if is_new:
            granted = PeerNews("lease", "lease_granted", request.peer_id, because("asked_for"))
            self._events.publish(granted)
            await self._store.tell()
        elif self._is_silent(lease.public_key):
            await self._readmit(lease.public_key)
        return self._grant_of(lease)

    def _grant_of(self, lease: Lease) -> LeaseGrant:
        assert self.pool is not None
        gateways = tuple(text.partition("/")[0] for text in self.pool.gateways)
        return LeaseGrant.of(
            *(self.site, self.site.settings),
            peer_id=self.site.node_id,
            addresses=lease.addresses,
            gateways=gateways,
            dns=gateways,
        )

    async def release(self, public_key: str, peer_id: str) -> bool:
        """Take a lease back that its holder gives up; whether there was one."""
        if self.pool is None:
            return False
        lease = self.pool.by_key(public_key)
        if lease is None or lease.peer_id != peer_id:
            return False
        self.pool.release(public_key, time.monotonic())
        await self._lost_leases([lease], because("given_back"))
        return True

    async def revoke(self) -> None:
        """End the leases of peers that are not trusted any more."""
        if self.pool is None:
            return
        for peer_id in {lease.peer_id for lease in self.pool.leases}:
            if self._mesh_peers.verdict(peer_id).reason:
                gone = self.pool.revoke(peer_id, time.monotonic())
                await self._lost_leases(gone, because("trust_lost"))
                await self._keep()

    async def _lost_leases(self, leases: list[Lease], cause: str) -> None:
        if not leases:
            return
        self._note()
        async with self._applying:
            await self._apply_kernel()
        for lease in leases:
            self._events.publish(PeerNews("lease", "lease_ended", lease.peer_id, cause))

    async def _keep_new(self, lease: Lease, now_s: float) -> None:
        """Have a peer's lease in the configuration before it is granted.

        Who comes with another key, or comes and goes, costs no write: that is kept with the next.
        """
        kept = {(each.peer_id, each.addresses) for each in self._store.current.consumers}
        if (lease.peer_id, lease.addresses) in kept:
            return
        if self._first_writes.take(lease.peer_id, now_s) and self._writes.take("", now_s):
            await self._keep_now()

    async def _keep_now(self) -> None:
        """Whatever fails is told, and stops nobody; who waits for it may vanish."""
        await asyncio.wait({self._tasks.spawn("keeping leases", self._keep(tell=False))})

    async def _keep(self, *, tell: bool = True) -> None:
        """Have the configuration hold the set of leases; nothing is written where it does."""
        if self.pool is None:
            return
        wanted = {consumer.name: consumer for consumer in self._consumers(self.pool)}
        with self._warnings.catch("consumers", sentence=lambda e: because("leases_not_kept", e)):
            if {consumer.name: consumer for consumer in self._store.current.consumers} != wanted:
                consumers = tuple(wanted.values())
                await self._store.edit(lambda c: replace(c, consumers=consumers), tell=tell)
                self._note()

    def _consumers(self, pool: LeasePool) -> list[Consumer]:
        return [
            Consumer(consumer_name(each.public_key), each.peer_id, each.public_key, each.addresses)
            for each in pool.leases
        ]

    def _note(self) -> None:
        if self.pool is not None:
            self._unkept.note(self._consumers(self.pool), self._store.current.consumers)

    async def run(self) -> None:
        """The task: look after leases and counters, for ever."""
        while True:
            await rest(min(HOUSEKEEPING_S, self.site.settings.lease_s / 4))
            if self.pool is not None:
                await self._keep_house(self.pool)
            elif self.site.enabled or not self.site.is_clean:
                await self.follow()  # again, where it failed

    async def _keep_house(self, pool: LeasePool) -> None:
        now_s, was_spent = time.monotonic(), self.is_spent
        try:
            self.site.look()
            async with self._applying:
                await self._apply_kernel()
            await self.recount()
            if self.is_spent != was_spent:
                async with self._applying:
                    await self._apply_kernel()
            self._warnings.clear_topic("provider")
        except UplinkError as error:
            self._warnings.set("provider", str(error))
            return
        alive = {key for key, peer in self.peers.items() if peer.is_alive(SESSION_S)}
        await self._lost_leases(pool.expire(now_s, alive), because("not_renewed"))
        for lease in pool.leases:
            if self._is_silent(lease.public_key):
                await self._readmit(lease.public_key)
        if await self._usage.save_if_due() or "consumers" in self._warnings:
            await self._keep()
        self._events.publish(NumbersChanged())

    async def recount(self) -> None:
        """Read what consumers have moved by now."""
        if self.pool is None:
            return
        self.peers = await self.site.device.read_peers()
        moved = {key: peer.rx_bytes + peer.tx_bytes for key, peer in self.peers.items()}
        self._usage.ledger.record(moved, date.today(), self.site.settings.reset_day)

    def _is_silent(self, public_key: str) -> bool:
        peer = self.peers.get(public_key, NOT_COUNTED)
        if peer.handshake_age_s is None or peer.stale_s <= SILENT_S or peer.silent_s <= QUIET_S:
            return False
        return time.monotonic() - self._readmitted.get(public_key, float("-inf")) > READMIT_S

    async def _readmit(self, public_key: str) -> None:
        """Forget the consumer's last handshake: its clock may have gone back with a reboot."""
        self._readmitted[public_key] = time.monotonic()
        async with self._applying:
            await self.site.device.readmit(public_key)

    def consumer_rows(self) -> list[ConsumerRow]:
        if self.pool is None:
            return []
        now_s = time.monotonic()
        return [self._consumer_row(lease, now_s) for lease in self.pool.leases]

    def _consumer_row(self, lease: Lease, now_s: float) -> ConsumerRow:
        peer = self.peers.get(lease.public_key, NOT_COUNTED)
        used = self._usage.ledger.used(lease.public_key)
        return ConsumerRow.of(
            *(lease, peer),
            address=lease.addresses[0].partition("/")[0],
            address6=lease.addresses[-1].partition("/")[0],
            expires_s=max(0, int(lease.expires_s - now_s)),
            handshake_age_s=peer.shown_age_s,
            today_bytes=used.today,
            month_bytes=used.period,
        )
