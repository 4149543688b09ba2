"""Lease pool: which consumer has which address, and until when. Pure.

All decisions about leases but trust are made here.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Container, Iterable
from dataclasses import field, replace

from ..config.options import LEASE_S, Consumer
from ..mesh.wire.lease import Denial, Deny, LeaseRequest
from ..values import dataclass
from .plan import Lease, Network

SESSION_S = 180.0  # a session is given up after it (WireGuard's whitepaper, section 6.1)
COOL_DOWN_TERMS = 2
FIRST_PLACE = 2  # 0 is the network's own address, 1 the gateway's
MOST_PLACES = 1022  # bounds what is remembered, however large a pool is


@dataclass(frozen=True, slots=True)
class _CoolDown:
    """A place that was left: by whom, and until when nobody else gets it."""

    peer_id: str
    until_s: float


@dataclass(slots=True)
class LeasePool:
    """The leases of one provider. A place is a number; its addresses are both pools' plus it.

    A peer has one lease. A place that was left cools down for two terms, since packets for its last
    peer may still be on their way: until then others get it only where every other place is taken
    too.
    """

    pool4: ipaddress.IPv4Network
    pool6: ipaddress.IPv6Network
    max_consumers: int = 8
    lease_s: float = LEASE_S
    _leases: dict[int, Lease] = field(default_factory=dict)
    _cooling: dict[int, _CoolDown] = field(default_factory=dict)

    def limit(self, max_consumers: int, lease_s: float) -> None:
        """Serve so many, for so long, from the next request on."""
        self.max_consumers, self.lease_s = max_consumers, lease_s

    @property
    def gateways(self) -> tuple[str, str]:
        """The provider's own addresses, with the pools' prefix lengths."""
        return f"{self.pool4[1]}/{self.pool4.prefixlen}", f"{self.pool6[1]}/{self.pool6.prefixlen}"

    @property
    def leases(self) -> tuple[Lease, ...]:
        return tuple(lease for _, lease in sorted(self._leases.items()))

    def by_key(self, public_key: str) -> Lease | None:
        return next((one for one in self._leases.values() if one.public_key == public_key), None)

    def by_address(self, address: str) -> Lease | None:
        """The lease of this address, given as text without a prefix length."""
        try:
            place = self._place(ipaddress.ip_address(address))
        except ValueError:
            return None
        return None if place is None else self._leases.get(place)

    def request(
        self,
        request: LeaseRequest,
        now_s: float,
        *,
        own_networks: Iterable[str] = (),
        own_keys: Container[str] = (),
    ) -> Lease | Denial:
        """Grant a lease, or renew the peer's own one for a full term; else say why not.

        A peer that comes with another key keeps its address, and its former key has no lease any
        more. `own_networks` are this router's, without those of the provider's device; these and
        `avoid` must be prefixes (ValueError). Where a denial is the answer nothing is changed.
        """
        denial = self._refused_key(request, own_keys) or self._conflict(request, own_networks)
        if denial is not None:
            return denial
        place = self._place_of(request.peer_id)
        if place is None and len(self._leases) >= self.max_consumers:
            return Denial(
                Deny.FULL,
                f"the provider already serves {len(self._leases)} consumers, all that it takes: "
                "choose another one, or ask its owner to raise max_consumers",
            )
        if place is None:
            place = self._free_place(request, now_s)
        if place is None:
            return Denial(
                Deny.NO_ADDRESS,
                f"no address is left in the provider's pool {self.pool4}: choose another one, or "
                "ask its owner for a larger pool4",
            )
        return self._take(place, request.peer_id, request.public_key, now_s)

    def release(self, public_key: str, now_s: float) -> Lease | None:
        """End the lease of this key; None where there is none."""
        for place, lease in self._leases.items():
            if lease.public_key == public_key:
                return self._end(place, now_s)
        return None

    def revoke(self, peer_id: str, now_s: float) -> list[Lease]:
        """End the leases of a peer that is not trusted any more."""
        gone = [place for place, lease in self._leases.items() if lease.peer_id == peer_id]
        return [self._end(place, max(now_s, self._leases[place].expires_s)) for place in gone]

    def expire(self, now_s: float, alive: Container[str] = ()) -> list[Lease]:
        """End the leases whose time is over. `alive` are the keys that were heard in SESSION_S.

        Their leases are in use and renewed: while its consumer has no other way to the internet,
        it may be unable to ask.
        """
        gone: list[int] = []
        for place, lease in self._leases.items():
            if lease.public_key in alive:
                self._leases[place] = replace(lease, expires_s=now_s + self.lease_s)
            elif lease.expires_s <= now_s:
                gone.append(place)
        return [self._end(place, now_s) for place in gone]

    def restore(self, consumers: Iterable[Consumer], now_s: float) -> list[Consumer]:
        """Take over what the configuration has kept, each for a full term from now.

        Returns those that have no place here: of another pool, or of a place, key or peer that
        has a lease already.
        """
        left_out: list[Consumer] = []
        for consumer in consumers:
            place = self._kept_place(consumer.addresses)
            if (
                place is None
                or place in self._leases
                or self.by_key(consumer.public_key) is not None
                or self._place_of(consumer.peer_id) is not None
            ):
                left_out.append(consumer)
            else:
                self._take(place, consumer.peer_id, consumer.public_key, now_s)
        return left_out

    def _refused_key(self, request: LeaseRequest, own_keys: Container[str]) -> Denial | None:
        held = self.by_key(request.public_key)
        if request.public_key in own_keys:
            whose = "is the provider's own"
        elif held is not None and held.peer_id != request.peer_id:
            whose = "has a lease under another peer's name"
        else:
            return None
        return Denial(
            Deny.KEY_IN_USE,
            f"the key {whose}: remove the uplink and add it again, which makes a new key",
        )

    def _conflict(self, request: LeaseRequest, own_networks: Iterable[str]) -> Denial | None:
        mine = self._given_to(request)
        for whose, texts in (("your", request.avoid), ("the provider's own", own_networks)):
            for text in texts:
                network = ipaddress.ip_network(text, strict=False)
                # Everybody has a default route; and a consumer that asks again may still have what
                # it was given here.
                if network.prefixlen == 0 or (whose == "your" and str(network) in mine):
                    continue
                pool = self.pool4 if network.version == 4 else self.pool6
                if network.overlaps(pool):
                    return Denial(
                        Deny.ADDRESS_CONFLICT,
                        f"{whose} network {network} overlaps the provider's pool {pool}: ask its "
                        f"owner to set another pool{network.version}",
                    )
        return None

    def _given_to(self, request: LeaseRequest) -> Collection[str]:
        """The addresses that the peer has, or had last, and the gateways that came with them."""
        place = self._place_of(request.peer_id)
        if place is None:
            place = self._former_place(request.peer_id)
        return () if place is None else (*self._addresses(place), *self._addresses(1))

    def _former_place(self, peer_id: str) -> int | None:
        return next((p for p, cooling in self._cooling.items() if cooling.peer_id == peer_id), None)

    def _free_place(self, request: LeaseRequest, now_s: float) -> int | None:
        """The place that the peer had last; else one that follows from its key and is not in
        doubt; else the one that was left first.
        """
        former = self._former_place(request.peer_id)
        if former is not None:
            return former
        count = min(self.pool4.num_addresses - 3, self.pool6.num_addresses - 2, MOST_PLACES)
        if count < 1:
            return None
        digest = hashlib.sha256(request.public_key.encode()).digest()
        start = int.from_bytes(digest[:4], "big")
        for number in range(count):
            place = FIRST_PLACE + (start + number) % count
            cooling = self._cooling.get(place)
            if place not in self._leases and (cooling is None or cooling.until_s <= now_s):
                return place
        return min(self._cooling, key=lambda place: self._cooling[place].until_s, default=None)

    def _take(self, place: int, peer_id: str, public_key: str, now_s: float) -> Lease:
        self._cooling.pop(place, None)
        lease = Lease(peer_id, public_key, self._addresses(place), now_s + self.lease_s)
        self._leases[place] = lease
        return lease

    def _end(self, place: int, freed_s: float) -> Lease:
        lease = self._leases.pop(place)
        until_s = freed_s + COOL_DOWN_TERMS * self.lease_s
        self._cooling[place] = _CoolDown(lease.peer_id, until_s)
        return lease

    def _addresses(self, place: int) -> tuple[str, str]:
        return f"{self.pool4[place]}/32", f"{self.pool6[place]}/128"

    def _place_of(self, peer_id: str) -> int | None:
        return next((p for p, lease in self._leases.items() if lease.peer_id == peer_id), None)

    def _place(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int | None:
        pool: Network = self.pool4 if address.version == 4 else self.pool6
        return int(address) - int(pool.network_address) if address in pool else None

    def _kept_place(self, addresses: Collection[str]) -> int | None:
        """The place that a consumer's addresses are, if they are exactly those of one."""
        try:
            places = {self._place(ipaddress.ip_interface(text).ip) for text in addresses}
        except ValueError:
            return None
        place = places.pop() if len(places) == 1 else None
        if place is None or not FIRST_PLACE <= place < self.pool4.num_addresses - 1:
            return None
        return place if set(addresses) == set(self._addresses(place)) else None
