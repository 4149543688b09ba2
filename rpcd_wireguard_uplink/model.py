"""The nouns that cross layers, as frozen dataclasses, and the rules about them that need no I/O.

Times named `*_s` are seconds of the monotonic
clock or durations; wall-clock times are ISO 8601 strings in UTC, for people only.
"""

from __future__ import annotations

import binascii
import hashlib
import ipaddress
from collections.abc import Container, Mapping
from dataclasses import field
from enum import Enum

from .errors import InvalidArgument
from .reasons import because
from .schema.endpoints import DEFAULT_PORT as DEFAULT_PORT
from .schema.endpoints import Endpoint as Endpoint
from .schema.record import Record, member
from .values import dataclass

TUNNEL_PREFIX = "wgup_"
ALIAS_PREFIX = "wgup6"
PROVIDER_DEVICE = "wgup_srv"
IFB_DEVICE = "wgup_ifb"
TRIAL_DEVICE = "wgup_try"
RESERVED = frozenset({PROVIDER_DEVICE, IFB_DEVICE, TRIAL_DEVICE})
"""Devices of the provider's side, which no uplink may have the name of."""
TABLE = "wgup"  # of nftables
OWN_PROTOCOLS = (151, 152)  # of rules and routes: those that stand, those of a diversion
OUTER_MARK = 0x51  # WireGuard's own packets of our tunnels
PROBE_MARK = 0x52  # sockets of ours that are bound to a path
MWAN3_MASK = 0x3F00  # mwan3's mmx_mask
SLOT_MASK = 0x3F000000  # of connection marks, and of packets that a connection's mark steers
INBOUND = 0x40000000  # of connection marks: it came in by that WAN
FOREIGN_MASK = 0xFFFFFFFF ^ MWAN3_MASK ^ SLOT_MASK  # marks in these bits are other programs'
LED_MARK = 0x80000000  # of packets that bear a slot: the owner's rules are asked before its table
DEVICE_GROUP = 51  # mesh and uplink devices: never a WAN, never an underlay
NAME_LENGTH = 13  # mwan3's limit for an interface name (iptables chain mwan3_iface_in_X)
DEFAULT_WEIGHT = 10
DEFAULT_MTU = 1420
LEAST_MTU = 1280  # IPv6 needs it (RFC 8200, section 5)
MARK_OPTION = "secubox_uplink"
PEER_OPTION = "secubox_peer_id"


class Family(Enum):
    """An address family; every decision is made for each of them by itself."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    __hash__ = object.__hash__  # Enum's own is written in Python, and a switch asks for 800 of them

    @property
    def version(self) -> int:
        return 4 if self is Family.IPV4 else 6

    @property
    def shown(self) -> str:
        return "IPv4" if self is Family.IPV4 else "IPv6"

    @property
    def word(self) -> str:
        """What nftables calls its header; its `nfproto` is the family's value."""
        return "ip" if self is Family.IPV4 else "ip6"

    @staticmethod
    def of(text: str) -> Family:
        """That of an address or prefix."""
        return Family.IPV6 if ":" in text else Family.IPV4


class Health(Enum):
    """What is known of one path in one family."""

    UNKNOWN = "unknown"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class PathKind(Enum):
    """A path to the internet is a line of the router itself, or a tunnel to a peer."""

    WAN = "wan"
    UPLINK = "uplink"


@dataclass(frozen=True, slots=True)
class Cost:
    """What using an uplink costs, as its peer last offered it or its owner wrote it."""

    metered: bool = False
    quota_gb: float = 0.0
    price_per_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class Uplink:
    """A configured tunnel to one provider. `pending` says that its making was not finished yet,
    `auto` that nobody asked for it by hand, `leased` that its addresses are the provider's lease.
    `other_endpoints` are more ways to the provider.
    `mtu` and `resolvers` are what the provider offers in the tunnel, `inbound` says that the owner
    lets it begin connections to this router and what lies behind, `cost` is None while not known.
    """

    peer_id: str
    interface: str
    endpoint: Endpoint
    public_key: str
    addresses: tuple[str, ...]
    own_public_key: str = ""
    weight: int = DEFAULT_WEIGHT
    pending: bool = False
    enabled: bool = True
    auto: bool = False
    leased: bool = False
    mtu: int = DEFAULT_MTU
    resolvers: tuple[str, ...] = ()
    inbound: bool = False
    cost: Cost | None = None
    other_endpoints: tuple[Endpoint, ...] = ()

    def carries(self, family: Family) -> bool:
        return any(ipaddress.ip_interface(a).version == family.version for a in self.addresses)

    def address(self, family: Family) -> str:
        """The tunnel's first address of that family with its prefix length, or ''."""
        for text in self.addresses:
            if ipaddress.ip_interface(text).version == family.version:
                return text
        return ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A WireGuard device as it should stand in the kernel; the private key never shows in repr.

    `metric` is that of its default routes, 0 where it has none.
    """

    interface: str
    peer_id: str
    private_key: str = field(repr=False)
    addresses: tuple[str, ...] = ()
    public_key: str = ""
    endpoint: Endpoint | None = None
    mtu: int = DEFAULT_MTU
    keepalive_s: int = 25
    metric: int = 0


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    family: Family
    device: str
    gateway: str = ""
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel has it. `alias` is where we put our mark, `kind` the driver's
    word (wireguard, tun; '' for hardware), `hardware` the ARPHRD number.
    """

    name: str
    index: int
    group: int = 0
    alias: str = ""
    carrier: bool = True
    mtu: int = 0
    kind: str = ""
    hardware: int = 1


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """What WireGuard says of a peer; `handshake_age_s` is None before the first, `allowed` are the
    networks that it may send from.

    Decisions rest on how long we have watched the peer: `silent_s` without a handshake or a
    received byte, `stale_s` without a handshake. The handshake's age may be a guess by the wall
    clock, and is for people.
    """

    public_key: str
    endpoint: str
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int
    silent_s: float = 0.0
    stale_s: float = 0.0
    allowed: tuple[str, ...] = ()

    def is_alive(self, within_s: float) -> bool:
        """Whether the peer has shaken hands, and was heard or not yet watched for so long."""
        return self.handshake_age_s is not None and self.silent_s < within_s

    @property
    def shown_age_s(self) -> int:
        """The age of the last handshake as replies have it: -1 if there was none."""
        return -1 if self.handshake_age_s is None else int(self.handshake_age_s)


NOT_COUNTED = PeerCounters("", "", None, 0, 0)
"""What is known of a peer that WireGuard does not have."""


class HistoryEntry(Record):
    """One thing that happened, as `uplink_history` and the events on the bus tell it.

    Durations that are not known are -1.
    """

    at: str = member("when, ISO 8601 in UTC", column="WHEN")
    kind: str = member(
        "failover, failback, switch (from uplink to uplink), stranded, doubted, not_carrying, "
        "carrying, uplink_added, uplink_removed and others",
        pattern=r"^[a-z_]{1,32}$(?!\n)",
        column="WHAT",
    )
    family: str = member(
        'the address family it concerns; "" for both or none',
        enum=["ipv4", "ipv6", ""],
        column="FAMILY",
        default="",
    )
    from_path: str = member('path before; "" if none', wire="from", column="FROM", default="")
    to_path: str = member('path after; "" if none', wire="to", column="TO", default="")
    peer_id: str = member('the peer it concerns; "" if none', column="PEER", default="")
    cause: str = member("why, as a sentence", column="CAUSE", last=True, default="", coded=True)
    detection_ms: int = member(
        "ms from first lost probe to decision; -1 if none", low=-1, column="NOTICED IN", default=-1
    )
    switch_ms: int = member(
        "ms from decision to moved traffic; -1 if none", low=-1, column="MOVED IN", default=-1
    )
    duration_s: float = member(
        "seconds in the state before; -1 if unknown", low=-1, column="LASTED BEFORE", default=-1.0
    )
    outage_ms: int = member(
        "ms without internet; -1 if none or unknown", low=-1, column="OUTAGE", default=-1
    )
    used_bytes: int = member(
        "bytes both ways through the uplink that was left; -1 if none was or unknown",
        low=-1,
        default=-1,
    )


PEER = "the peer's id"
PEER_KEY = "the peer's WireGuard public key"
HANDSHAKE = {"description": "seconds since the last handshake; -1 if there was none", "minimum": -1}


class ConsumerRow(Record):
    """A peer with a lease of this router's."""

    peer_id: str = member(PEER, column="CONSUMER")
    public_key: str = member(PEER_KEY)
    address: str = member("its IPv4 address in the tunnel", column="ADDRESS")
    address6: str = member("its IPv6 address in the tunnel", column="ADDRESS")
    expires_s: int = member("seconds until the lease ends unless renewed", column="LEASE ENDS IN")
    handshake_age_s: int = member(HANDSHAKE, column="HANDSHAKE")
    endpoint: str = member('where it comes from, "host:port"; "" if unknown')
    rx_bytes: int = member("bytes that it sent since its tunnel was made")
    tx_bytes: int = member("bytes that it received since its tunnel was made")
    today_bytes: int = member("bytes both ways today", column="TODAY")
    month_bytes: int = member("bytes both ways since the quota's reset day", column="THIS MONTH")


class TrustRow(Record):
    peer_id: str = member('the peer\'s id; "" while it is not known', column="PEER")
    state: str = member(
        "trusted; unbound: approved, but its mesh key is not confirmed yet; untrusted; "
        "changed: its key or identity is not the one that was confirmed",
        enum=["trusted", "unbound", "untrusted", "changed"],
        column="STATE",
    )
    reason: str = member(
        'what is missing, or why it can\'t be used now, and what mends it; else ""',
        column="WHAT IS MISSING",
        last=True,
        coded=True,
    )
    mesh_address: str = member('its own address on the mesh; "" if not seen', column="MESH ADDRESS")
    mesh_key: str = member('its public key on the mesh; "" if not seen', column="MESH KEY")
    device: str | None = member(
        'WireGuard device that it is a peer of; "" if not seen', default=None
    )
    identity: str = member('the key that it signs with; "" if it does not sign', column="IDENTITY")
    fingerprint: str = member('master-link\'s fingerprint; "" without')
    handshake_age_s: int = member(HANDSHAKE, column="HANDSHAKE")
    offering: bool = member("whether an offer of it is known")


def interface_name(peer_id: str, taken: Container[str]) -> str:
    """`wgup_` and up to 8 characters of the peer id, unlike every name in `taken`.

    A UCI section, an mwan3 interface and a device must all be able to carry it, so only lower-case
    letters and digits are kept. Raises InvalidArgument where no free name is left.
    """
    plain = "".join(c for c in peer_id.lower() if c.isascii() and c.isalnum())
    first = TUNNEL_PREFIX + plain[:8]
    if plain and first not in taken and first not in RESERVED:
        return first
    for number in range(256):
        digest = hashlib.sha256(f"{peer_id}/{number}".encode()).hexdigest()
        name = TUNNEL_PREFIX + plain[:4] + digest[:4]
        if name not in taken:
            return name
    raise InvalidArgument(because("no_name_free", peer_id))


def is_own_name(interface: str) -> bool:
    """Whether an interface or device has a name that only ours have: a tunnel's, the provider's,
    or a tunnel's second name in netifd. config.py holds uplinks to it, so that whose a device is
    is known before it exists.
    """
    return interface.startswith((TUNNEL_PREFIX, ALIAS_PREFIX))


def alias_name(interface: str) -> str:
    """The name of a tunnel's second netifd interface, for IPv6: no longer than the tunnel's own."""
    return ALIAS_PREFIX + interface.removeprefix(TUNNEL_PREFIX)


def is_key(text: str) -> bool:
    """Whether the text is a WireGuard key: 32 bytes in base64, in its one canonical form."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == 32 and binascii.b2a_base64(raw, newline=False).decode() == text


def derived_addresses(public_key: str) -> tuple[str, str]:
    """Tunnel addresses for a consumer that was given none: a /32 inside 10/8 and a ULA /128.

    Both come from a hash of the consumer's own public key, so they stay the same and two consumers
    of one provider hardly ever meet (24 bits); the provider admits them as it admits the key.
    """
    digest = hashlib.sha256(public_key.encode()).digest()
    second, third, fourth = digest[0], digest[1], 1 + digest[2] % 254
    ula = ipaddress.IPv6Address(b"\xfd" + digest[3:18])
    return f"10.{second}.{third}.{fourth}/32", f"{ula}/128"


def normal_address(text: str) -> str:
    """A tunnel address with its prefix length (/32 or /128 if none was given).

    Raises InvalidArgument for what is not an address of a host.
    """
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidArgument(because("address_is_none")) from error
    ip = interface.ip
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
        raise InvalidArgument(because("address_no_tunnels", ip))
    return str(interface)


def mark_alias(peer_id: str) -> str:
    """The alias that marks a device as ours (`ip link set ... alias`)."""
    return f"{MARK_OPTION}:{peer_id}"


def is_marked(options: Mapping[str, object]) -> bool:
    """Whether a UCI section is one that we made."""
    return options.get(MARK_OPTION) == "1"
