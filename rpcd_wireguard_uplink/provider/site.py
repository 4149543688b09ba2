"""What stands on this router for its consumers: its key, its endpoints, and the kernel's plan.

Derives the plan from the configuration, the network and the pool of leases; device.py applies it.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import field, replace

from ..config.options import CONFIG, PROVIDER_NAME, ProviderSettings
from ..config.store import ConfigStore
from ..errors import ConfigError
from ..mesh.registry.peers import Peers
from ..mesh.wire.endpoints import ScopedEndpoint
from ..model import DEFAULT_MTU, DEVICE_GROUP, PROVIDER_DEVICE, Family
from ..platform.linux import Platform
from ..platform.network_reader import NetworkReader
from ..platform.tunnels import tunnel_mtu
from ..reasons import because, told_with
from ..system import wg
from ..system.proc import forwarding_fault
from ..system.rtnetlink import by_device
from ..values import dataclass
from ..warnings import Warnings
from .device import Provider
from .lease_pool import LeasePool
from .plan import ProviderPlan, pool_networks, reachable_by


@dataclass(eq=False, repr=False)
class Site:
    """One router as a provider. `endpoints` and `networks` (the router's own) are as last looked
    at; `blocked` says why the kernel would not let consumers through. `is_clean` says that nothing
    of an earlier run can be left.
    """

    _platform: Platform
    _store: ConfigStore
    _network: NetworkReader
    _peers: Peers
    _warnings: Warnings
    public_key: str = ""
    endpoints: tuple[ScopedEndpoint, ...] = ()
    networks: list[str] = field(default_factory=list)
    blocked: str = ""
    is_clean: bool = False
    device: Provider = field(init=False)
    _private: str = ""

    def __post_init__(self) -> None:
        self.device = Provider(self._platform.kernel)

    @property
    def node_id(self) -> str:
        return self._peers.node_id

    @property
    def settings(self) -> ProviderSettings:
        return self._store.current.provider

    @property
    def enabled(self) -> bool:
        return self.settings.enabled and self._store.current.settings.enabled

    def forwarding_fault(self) -> str:
        """Why the kernel would not forward for consumers, with the command; '' where it does."""
        lines = self._network.state.wans
        what, mend = forwarding_fault({family: lines[family].known for family in Family})
        more = f": `{mend}`, and keep it in {self._platform.sysctl_file}"
        return told_with(what, more) if what else ""

    def look(self) -> None:
        """See by which addresses consumers may come, and whether the kernel lets them through."""
        self.blocked = self.forwarding_fault()
        self._warnings.set("forwarding", self.blocked)
        self._find_endpoints()

    def _find_endpoints(self) -> None:
        found = by_device(self._platform.kernel.addresses())
        links = self._network.state.links.values()
        tunnels = {link.name for link in links if link.group == DEVICE_GROUP}
        found.pop(PROVIDER_DEVICE, None)
        self.networks = [address for addresses in found.values() for address in addresses]
        self.endpoints = reachable_by(found, tunnels, self.settings)

    async def prepare(self) -> None:
        """Have a key, and all that `plan` needs. Raises UplinkError."""
        if not self.is_clean:
            self.device.sweep()
            self.is_clean = True
        platform = self._platform
        self._private = await platform.read_key(PROVIDER_DEVICE)
        if not self._private:
            self._private, self.public_key = await platform.generate_keys(PROVIDER_DEVICE)
        elif not self.public_key:
            self.public_key = await wg.public_key(self._private)
        self.look()

    async def install(self, gateways: tuple[str, ...]) -> None:
        """Have the platform's part: who comes in by the mesh reaches the API and the tunnels."""
        devices = tuple(sorted(self._peers.mesh.own))
        port = self._store.current.peering.mesh_port
        await self._platform.install_provider(gateways, self.settings.listen_port, devices, port)

    async def remove(self) -> None:
        """Remove everything, also what an earlier run has installed."""
        self.is_clean = False
        await self._platform.remove_provider()  # what is open is shut first
        await self.device.remove()
        self.is_clean = True

    async def serve(self, pool: LeasePool, *, is_open: bool) -> None:
        """Have the kernel let the consumers of the pool in; only while open they reach anything."""
        lines = self._network.state.wans
        resolvers = self.settings.resolvers or tuple(await self._platform.read_resolvers())
        usable = [r for r in resolvers if not ipaddress.ip_address(r).is_loopback]
        plan = ProviderPlan(
            private_key=self._private,
            listen_port=self.settings.listen_port,
            gateways=pool.gateways,
            leases=tuple(replace(lease, expires_s=0.0) for lease in pool.leases),
            wans={family: tuple(sorted(lines[family].known)) for family in Family},
            resolvers=tuple(usable) or self._store.current.settings.resolvers,
            limit_mbps=self.settings.limit_mbps,
            renewal_port=self._store.current.peering.mesh_port,
            mtu=self.mtu,
            is_open=is_open,
        )
        await self.device.apply(plan)

    @property
    def mtu(self) -> int:
        """What the narrowest of our WANs has room for: consumers may come in by any of them."""
        return tunnel_mtu(DEFAULT_MTU, self._network.state.narrowest_wan())

    def pools(
        self, settings: ProviderSettings
    ) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
        """The networks that consumers get addresses of. Raises ConfigError."""
        try:
            return pool_networks(self.node_id, self.networks, settings.pool4, settings.pool6)
        except ValueError as error:
            raise ConfigError(because("of", f"{CONFIG}.{PROVIDER_NAME}", error)) from error

    def with_pools(self, settings: ProviderSettings) -> ProviderSettings:
        """Settings whose pools are chosen, to be kept: a network that comes later moves nobody."""
        self._find_endpoints()
        four, six = self.pools(settings)
        if not settings.pool6:  # random, as RFC 4193 (section 3.2) wants it
            six = ipaddress.IPv6Network((b"\xfd" + os.urandom(7) + bytes(8), 64))
        return replace(settings, pool4=str(four), pool6=str(six))
