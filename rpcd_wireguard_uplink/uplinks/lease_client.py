"""This router as a consumer: leases asked of providers, renewed, given back.

A lease is asked for over the mesh, and inside the tunnel too once it stands, because the mesh may
be gone with the WAN that failed. Nothing here takes an uplink away: while one carries traffic its
probes alone decide. Renewals write nothing to flash.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from ..config.store import ConfigStore
from ..errors import (
    InvalidArgument,
    NotSupported,
    NotTrusted,
    PeerUnreachable,
    TimedOut,
    UplinkError,
)
from ..events import Events, PeerAnswered, UplinkChanged
from ..failover.machine import AWAY
from ..failover.monitor import Monitor
from ..mesh.http import request
from ..mesh.rate_limit import Buckets
from ..mesh.registry.directory import MeshPeer
from ..mesh.registry.peers import Peers
from ..mesh.wire.endpoints import ScopedEndpoint
from ..mesh.wire.lease import Denial, Deny, LeaseGrant, LeaseRelease, LeaseRequest
from ..model import DEVICE_GROUP, PROVIDER_DEVICE, Uplink, is_own_name
from ..platform.linux import Platform
from ..reasons import TEMPLATES, Reason, because
from ..schema.endpoints import is_literal
from ..system.rtnetlink import Address
from ..tasks import TaskSet, rest, tell
from ..values import dataclass
from ..warnings import Warnings
from .lifecycle import Uplinks

ASK_S = 4.0
RETRY_S = 5.0
LONGEST_RETRY_S = 300.0
MOVES, MOVES_PER_S = 2, 1 / 28800  # another place of one provider: five on the first day
LEAST_PREFIX = 8  # the largest private network (RFC 1918)
_UNTRUSTED = {Deny.NOT_TRUSTED, Deny.UNBOUND, Deny.OTHER_PEER}


@dataclass(slots=True)
class _Held:
    due_s: float = 0.0
    failures: int = 0
    endpoints: tuple[ScopedEndpoint, ...] = ()
    limit_mbps: int = 0

    def postpone(self, pause_s: float) -> None:
        self.due_s = time.monotonic() + pause_s

    def hasten(self) -> None:
        """What failed is tried again soon."""
        if self.failures:
            self.due_s = min(self.due_s, time.monotonic() + RETRY_S)

    def note_failure(self) -> None:
        """It was not renewed: the pauses become longer."""
        pause_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(self.failures, 8))
        self.postpone(pause_s * random.uniform(0.8, 1.2))
        self.failures += 1

    def note_grant(self, grant: LeaseGrant, endpoints: tuple[ScopedEndpoint, ...]) -> None:
        """It was renewed; endpoints that are the same keep their order."""
        self.due_s, self.limit_mbps = _renewal_s(grant), grant.limit_mbps
        if set(endpoints) != set(self.endpoints):
            self.endpoints = endpoints

    def settle(self) -> None:
        self.failures = 0


@dataclass(eq=False, repr=False)
class LeaseClient:
    _platform: Platform
    _store: ConfigStore
    _uplinks: Uplinks
    _monitor: Monitor
    _peers: Peers
    _warnings: Warnings
    _tasks: TaskSet
    _events: Events
    _held: dict[str, _Held] = field(default_factory=dict)
    _moves: Buckets = field(default_factory=lambda: Buckets(MOVES, MOVES_PER_S))

    async def ask(self, wanted: Uplink) -> Uplink | None:
        """The uplink with the place that its provider grants; None where there is nobody to ask.

        Raises NotTrusted or NotSupported with the provider's sentence where it says no, and
        PeerUnreachable or TimedOut where it does not answer over the mesh.
        """
        peer = self._peers.directory.named(wanted.peer_id)
        if peer is None or not peer.addresses:
            return None
        try:
            grant = await self._request(wanted, peer.addresses[0], peer.device)
        except (PeerUnreachable, TimedOut) as error:
            told = because("lease_unreachable", wanted.peer_id, error)
            raise PeerUnreachable(told) from error
        endpoints = self._ordered(grant.endpoints, peer)
        if not endpoints:
            fault = self._fault_of(grant.endpoints[0], peer)
            told = because("no_endpoint", wanted.peer_id, fault)
            raise NotSupported(told, code="no_endpoint")
        self._held[wanted.peer_id] = _Held(
            _renewal_s(grant), endpoints=endpoints, limit_mbps=grant.limit_mbps
        )
        return replace(_placed(wanted, grant, endpoints), leased=True)

    def limit_mbps(self, uplink: Uplink) -> int:
        """What the provider grants each way; 0 for no limit, or while it was not asked."""
        held = self._held.get(uplink.peer_id)
        return held.limit_mbps if held is not None else 0

    def release(self, uplink: Uplink) -> None:
        """Give a removed uplink's lease back, in the background; the provider's clock does else."""
        self._held.pop(uplink.peer_id, None)
        peer = self._peers.directory.named(uplink.peer_id)
        if uplink.leased and peer is not None and peer.addresses:
            self._return(uplink, peer.addresses[0], peer.device)

    def _return(self, uplink: Uplink, host: str, device: str) -> None:
        said = LeaseRelease(peer_id=self._peers.node_id, public_key=uplink.own_public_key)

        async def give_back() -> None:
            with contextlib.suppress(UplinkError):
                await self._send("DELETE", host, device, said.as_table())

        self._tasks.spawn("giving a lease back", give_back())

    # --- keeping

    async def run(self) -> None:
        while True:
            await rest(1.0)
            now_s = time.monotonic()
            leased = [
                uplink
                for uplink in self._store.current.wanted_uplinks
                if uplink.leased
                and not uplink.pending
                and uplink.own_public_key
                and not self._peers.distrust_reason(uplink.peer_id)  # a stranger may go by its id
            ]
            kept = {uplink.interface for uplink in leased}
            self._warnings.keep("lease ", kept)
            for uplink in leased:
                held = self._held.setdefault(uplink.peer_id, _Held(now_s))
                if held.due_s <= now_s:
                    held.postpone(LONGEST_RETRY_S)
                    self._tasks.spawn("renewing a lease", self._renew(uplink, held))
                if held.endpoints:
                    self._tell_endpoints(uplink, held.endpoints)

    def _tell_endpoints(self, uplink: Uplink, granted: Iterable[ScopedEndpoint]) -> None:
        """Have the tunnel know its provider's other addresses; where the owner or the mesh itself
        reaches it is its own for certain.
        """
        others = [*uplink.other_endpoints, *(each.endpoint for each in granted)]
        peer = self._peers.directory.named(uplink.peer_id)
        sure = {_live_host(peer), *(other.host for other in uplink.other_endpoints)} - {""}
        if self._platform.endpoints.also(uplink.interface, others, sure):
            self._monitor.reread_soon()

    def hasten(self, event: PeerAnswered) -> None:
        """The peer is there: what failed is tried again soon, however long it was to wait."""
        for uplink in self._store.current.wanted_uplinks:
            held = self._held.get(uplink.peer_id)
            if uplink.peer_id == event.peer_id and held is not None:
                held.hasten()

    async def _renew(self, uplink: Uplink, held: _Held) -> None:
        try:
            await self._renew_now(uplink, held)
        except UplinkError as error:
            not_renewed = because("lease_not_renewed", uplink.peer_id, error)
            self._warnings.set(_topic(uplink), not_renewed)
            held.note_failure()
        except Exception as error:
            told = tell(f"renewing the lease of {uplink.peer_id}", error)
            self._warnings.set(_topic(uplink), told)
        else:
            self._warnings.clear_topic(_topic(uplink))
            held.settle()

    async def _renew_now(self, uplink: Uplink, held: _Held) -> None:
        grant = await self._ask_anywhere(uplink)
        peer = self._peers.directory.named(uplink.peer_id)
        endpoints = self._ordered(grant.endpoints, peer)
        held.note_grant(grant, endpoints)
        given = (grant.public_key, set(grant.addresses), grant.mtu, grant.dns)
        if given != (uplink.public_key, set(uplink.addresses), uplink.mtu, uplink.resolvers):
            await self._take_other_place(uplink, grant, endpoints)

    async def _ask_anywhere(self, uplink: Uplink) -> LeaseGrant:
        """Ask inside the tunnel while traffic uses it, else over the mesh; then the other way."""
        peer = self._peers.directory.named(uplink.peer_id)
        ways = [(peer.addresses[0], peer.device)] if peer is not None and peer.addresses else []
        inside = [(gateway, uplink.interface) for gateway in _gateways(uplink)]
        states = self._monitor.states.values()
        active = {state.active for state in states}
        away = any(state.phase in AWAY for state in states)
        ways = inside + ways if away and uplink.interface in active else ways + inside
        failure: UplinkError = PeerUnreachable(because("peer_unseen", uplink.peer_id))
        for host, device in ways:
            try:
                return await self._request(uplink, host, device)
            except (PeerUnreachable, TimedOut) as error:
                failure = error
        raise failure

    async def _take_other_place(
        self, uplink: Uplink, grant: LeaseGrant, endpoints: Sequence[ScopedEndpoint]
    ) -> None:
        """The provider was set up anew: its key or our addresses are others now.

        That is a write to flash, so one that does it again and again is not followed.
        """
        if not self._moves.take(uplink.peer_id, time.monotonic()):
            told = because("too_many_places", uplink.peer_id)
            raise NotSupported(told, code="too_many_places")
        async with self._uplinks.changing() as config:
            existing = config.uplink_to(uplink.peer_id)
            if existing != uplink:
                return
            wanted = _placed(uplink, grant, endpoints)
            await self._uplinks.change(existing, wanted)
        cause = because("other_place")
        self._events.publish(UplinkChanged("uplink_changed", wanted, cause))

    def _ordered(
        self, endpoints: Sequence[ScopedEndpoint], peer: MeshPeer | None
    ) -> tuple[ScopedEndpoint, ...]:
        """The endpoints that this router could use, those first that need none of its WANs.

        Where the mesh itself reaches the peer is the surest.
        """
        lines = {
            each.primary.device
            for each in self._monitor.network.state.wans.values()
            if each.primary is not None
        }
        live, towards = _live_host(peer), self._platform.kernel.device_towards
        ranked: list[tuple[int, int, ScopedEndpoint]] = []
        for number, endpoint in enumerate(endpoints):
            if self._fault_of(endpoint, peer):
                continue
            over_line = not is_literal(endpoint.host) or towards(endpoint.host) in lines
            rank = (0 if endpoint.host == live else 1) + (2 if over_line else 0)
            ranked.append((rank, number, endpoint))
        return tuple(endpoint for _, _, endpoint in sorted(ranked, key=lambda each: each[:2]))

    def _fault_of(self, endpoint: ScopedEndpoint, peer: MeshPeer | None) -> str:
        """Why this router can't use an endpoint, as a reason; '' where it can."""
        host, kernel = endpoint.host, self._platform.kernel
        if not is_literal(host):
            return ""
        ip, own = ipaddress.ip_address(host), kernel.addresses()
        if any(ip == ipaddress.ip_interface(each.text).ip for each in own):
            return because("own_address", host)
        device = kernel.device_towards(host)
        if not device or is_own_name(device):
            return because("behind_uplink" if device else "no_route_to", host)
        live = _live_host(peer)
        shared = {*self._monitor.network.state.wan_devices()}
        shared |= {kernel.device_towards(live)} if live else set()
        for each in own if endpoint.scope != "link" else ():
            network = ipaddress.ip_interface(each.text).network
            if ip in network and network.num_addresses > 1 and each.device not in shared:
                return because("host_of_lan", host, network)
        return ""

    # --- the wire

    async def _request(self, uplink: Uplink, host: str, device: str) -> LeaseGrant:
        wanted = LeaseRequest(
            peer_id=self._peers.node_id,
            public_key=uplink.own_public_key,
            avoid=self._own_networks(uplink),
        )
        status, table = await self._send("POST", host, device, wanted.as_table())
        if status != 200:
            refusal = Denial.parse(table)
            kind = NotTrusted if refusal.code in _UNTRUSTED else NotSupported
            why = f"deny_{refusal.code}"
            is_known = why in TEMPLATES
            told = Reason(refusal.error, why) if is_known else refusal.error
            name = "refused" if is_known else "refuses"
            raise kind(because(name, uplink.peer_id, told), code=refusal.code)
        grant = LeaseGrant.parse(table)
        if grant.peer_id != uplink.peer_id:
            raise InvalidArgument(because("lease_is_others", grant.peer_id, uplink.peer_id))
        if grant.public_key == uplink.own_public_key:
            raise InvalidArgument(because("key_is_ours", uplink.peer_id), code="key_is_ours")
        clash = next((n for n in wanted.avoid if _is_inside(grant.addresses, n)), "")
        told = because("lease_inside", uplink.peer_id, clash) if clash else ""
        routes, own = self._platform.kernel.destinations(), self._platform.kernel.addresses()
        mesh = self._peers.mesh.peers
        if set(grant.addresses) != set(uplink.addresses):  # or nothing new is taken
            where = taken(grant.addresses, routes, own, self._named(uplink), mesh)
            told = told or (because("lease_clash", uplink.peer_id, where) if where else "")
        if told:
            if not uplink.interface:
                self._return(uplink, host, device)
            raise InvalidArgument(told, code=Deny.ADDRESS_CONFLICT)
        # Look-ups are led to it: to this router itself they would go round, and what is here is
        # none of the provider's business.
        far = (each for each in grant.dns if not taken((each,), routes, own, {}, mesh))
        return grant.replaced(dns=tuple(far))

    def _named(self, uplink: Uplink) -> dict[str, str]:
        """The addresses of all other uplinks, and whose they are."""
        others = self._store.current.uplinks
        return {a: u.peer_id for u in others if u.peer_id != uplink.peer_id for a in u.addresses}

    async def _send(
        self, method: str, host: str, device: str, table: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        port = self._store.current.peering.mesh_port
        return await request(host, port, method, "/v1/lease", table, device=device, timeout_s=ASK_S)

    def _own_networks(self, uplink: Uplink) -> tuple[str, ...]:
        """What the provider's pool must not overlap: our own networks, but for this tunnel's."""
        links = self._monitor.network.state.links.values()
        ours = {link.name for link in links if link.group == DEVICE_GROUP}
        networks = {
            str(ipaddress.ip_interface(text).network)
            for device, text, _ in self._platform.kernel.addresses()
            if device not in (uplink.interface, "lo")
            and (device not in ours or is_own_name(device))
        }
        return tuple(sorted(networks))[:64]


def _placed(uplink: Uplink, grant: LeaseGrant, endpoints: Sequence[ScopedEndpoint]) -> Uplink:
    return replace(
        uplink,
        endpoint=endpoints[0].endpoint if endpoints else uplink.endpoint,
        public_key=grant.public_key,
        addresses=grant.addresses,
        mtu=grant.mtu,
        resolvers=grant.dns,
    )


def _live_host(peer: MeshPeer | None) -> str:
    """Where the mesh itself reaches a peer now; '' where it does not."""
    return peer.endpoint.rpartition(":")[0].strip("[]") if peer is not None else ""


def _topic(uplink: Uplink) -> str:
    return f"lease {uplink.interface}"


def _renewal_s(grant: LeaseGrant) -> float:
    """When the lease is to be renewed: at half of its time, not all at the same moment."""
    return time.monotonic() + grant.lease_s / 2 * random.uniform(0.9, 1.0)


def _is_inside(addresses: Sequence[str], prefix: str) -> bool:
    """Whether a network holds one of the addresses; a single host's may be what was given last."""
    network = ipaddress.ip_network(prefix)
    hosts = (ipaddress.ip_interface(text).ip for text in addresses)
    return network.num_addresses > 1 and any(host in network for host in hosts)


def taken(
    addresses: Iterable[str],
    routes: Iterable[tuple[str, str]],
    own: Iterable[Address],
    named: Mapping[str, str],
    mesh: Iterable[MeshPeer],
) -> str:
    """What stands against an address that a provider gave, as the end of a sentence; '' if nothing.

    `routes` are the devices and prefixes of those of all tables: what a route leads to is
    somebody's; half the internet is as good as a default route. `own` are this router's addresses,
    `named` maps other uplinks' addresses to their peers.
    """
    given = [ipaddress.ip_interface(text).ip for text in addresses]
    used = {ipaddress.ip_interface(text).ip: peer_id for text, peer_id in named.items()}
    for peer in mesh:
        for text in peer.allowed:
            network = ipaddress.ip_network(text, strict=False)
            if network.prefixlen >= LEAST_PREFIX and any(ip in network for ip in given):
                return because("of_mesh_peer", peer.key[:8], network)
    for ip in given:
        if ip in used:
            return because("of_other_uplink", used[ip], ip)
    for device, text, _ in own:
        ip = ipaddress.ip_interface(text).ip
        if ip in given and not _is_tunnel(device):
            return because("of_this_router", ip)
    for device, prefix in routes:
        if prefix and not _is_tunnel(device):
            network = ipaddress.ip_network(prefix)
            if network.prefixlen >= LEAST_PREFIX and any(ip in network for ip in given):
                one = network.num_addresses == 1
                return because("of_a_route", network[0] if one else network)
    return ""


def _is_tunnel(device: str) -> bool:
    return is_own_name(device) and device != PROVIDER_DEVICE


def _gateways(uplink: Uplink) -> list[str]:
    """The provider's addresses in the tunnel: the first of each pool (LeasePool.gateways)."""
    found = []
    for text in uplink.addresses:
        ip = ipaddress.ip_interface(text).ip
        length = 24 if ip.version == 4 else 64
        found.append(str(ipaddress.ip_network((ip, length), strict=False)[1]))
    return found
