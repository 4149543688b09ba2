"""What the service needs of the machine it runs on; one implementation a kind of machine.

Configuration, tunnels and the kernel's view, behind one Protocol, so that the same service runs on
a router and on any Linux. What has a body here is so where there is neither netifd nor procd.
Implementations raise UplinkError's children only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from ..errors import NotSupported
from ..model import Endpoint, PeerCounters, Tunnel, Uplink
from ..system.nft import ConnectionTracking
from ..system.rtnetlink import Kernel
from ..uci import Document, Draft, Section
from ..warnings import Warnings


class Platform(Protocol):
    """A machine. Reads are cheap enough to be repeated at every kernel event."""

    name: str
    shares_network: bool
    """Whether `network` is the owner's, with all of the router's interfaces in it."""
    warnings: Warnings
    """Of this machine."""
    kernel: Kernel
    connections: ConnectionTracking

    async def read(self, config: str) -> Document:
        """A configuration file's sections; an absent file is an empty document."""

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        """Apply `change` to a file under its lock; atomic, and nothing is written on an error.

        Returns the file's signature behind the edit.
        """

    def signature(self, config: str) -> object:
        """A value that differs once the file was changed by anybody."""

    async def generate_keys(self, interface: str) -> tuple[str, str]:
        """A new key pair (private, public) for an interface, kept where only root reads it."""

    async def write_key(self, interface: str, private: str) -> None:
        """Keep a private key for an interface, where only root reads it."""

    async def read_key(self, interface: str) -> str:
        """The private key that was made for an interface, '' if there is none.

        Raises UnusableFile where something else is in its place.
        """

    async def keep_keys(self, interfaces: Collection[str]) -> None:
        """Put every key aside but those of these interfaces; it is deleted a day later.

        To be called now and then.
        """

    async def read_removed_key(self, interface: str) -> str:
        """The private key of an interface that was put aside, '' if there is none."""

    async def wanted_sections(
        self, keyed: Sequence[tuple[Uplink, str]], found: Sequence[Section], *, routed: bool = False
    ) -> list[Section]:
        """The `network` sections of uplinks with their private keys; `found` are those there.

        With `routed` the tunnels have default routes, which mwan3 needs.
        """

    async def guard_tunnels(self, opened: Collection[str] | None) -> None:
        """Let only answers in by tunnels, but by those `opened`; None where no tunnel is left.

        To be called before the first tunnel is made and after the last has gone.
        """

    async def sync(self, tunnels: Sequence[Tunnel]) -> Mapping[str, str]:
        """Install these tunnels, and no other marked one; interface -> why it could not be."""

    async def install_provider(
        self,
        gateways: Sequence[str],
        listen_port: int,
        mesh_devices: Collection[str],
        renewal_port: int,
    ) -> None:
        """Have the machine's own network and firewall let consumers of PROVIDER_DEVICE through.

        `gateways` are the device's addresses with prefix lengths. To be called again when WANs or
        `mesh_devices` change; what is installed is left alone. On an error all is as before.
        """
        return

    async def remove_provider(self) -> None:
        """Undo `install_provider`; nothing where there is nothing to undo."""
        return

    def know_endpoints(self, interface: str, endpoints: Sequence[Endpoint]) -> None:
        """Other endpoints of a tunnel's provider."""

    async def follow_names(self, stalled: Sequence[str]) -> bool:
        """Have silent tunnels go on to their provider's next address, names looked up again, and
        keep what answered; whether an address is another now. Cheap while nothing is stalled.
        """

    def endpoint_address(self, interface: str) -> str:
        """The address literal of a tunnel's endpoint, '' while its name is not resolved."""

    async def read_protocols(self) -> Mapping[str, str]:
        """Device -> netifd's protocol of the interface on it."""
        return {}

    def logical_name(self, device: str) -> str:
        """What the owner calls the WAN with that device; the device itself where not known."""
        return device

    def interfaces_on(self, device: str) -> list[str]:
        """netifd's names of the interfaces on a device."""
        return []

    async def read_interfaces(self) -> Mapping[str, str]:
        """netifd's interfaces and the devices that they have or had, '' where that is not known."""
        return {}

    async def sweep(self) -> None:
        """Remove the files that writes left which were killed in the middle; for a start."""

    async def keep_rendered(self, text: str) -> None:
        """Keep, for people, what mwan3 should hold of ours; '' removes it."""

    def is_enabled(self, service: str) -> bool:
        """Whether a service is started at boot, as a router's init scripts are."""
        return False

    async def reload_network(self) -> None:
        """Have `network` read again by whoever makes interfaces of it."""
        return

    async def call(
        self, path: str, method: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What an object on netifd's and procd's bus replies. Raises UplinkError."""
        raise NotSupported(f"there is no {path} without netifd")

    async def read_resolvers(self) -> list[str]:
        """The name servers that the WANs brought, address literals."""

    async def read_counters(self) -> dict[str, PeerCounters]:
        """WireGuard's counters of every device with a peer, by device."""
