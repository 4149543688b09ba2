"""Every option of /etc/config/wireguard-uplink, a row each: what it may be, and what if it is not.

The settings that the service reads are these rows. The parser, the writer, docs/options.md, the
settings page's checks and `wgctl uplink set` all read them. Times are in seconds unless `unit` says
otherwise.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import replace
from functools import cached_property

from ..model import DEFAULT_MTU, DEFAULT_PORT, DEFAULT_WEIGHT, LEAST_MTU, TUNNEL_PREFIX, Family
from ..values import dataclass
from . import kinds as k
from .option import Fallback, Option, SectionType, option, rows
from .probe_profile import PROFILES, ProbeProfile

CONFIG = "wireguard-uplink"
MAIN_TYPE = "wireguard-uplink"
MAIN_NAME = "uplink"
UPLINK_TYPE = "uplink"
PROVIDER_TYPE = "provider"
PROVIDER_NAME = "local"
CONSUMER_TYPE = "consumer"
PIN_TYPE = "trust"
ANCHOR_TYPE = "anchor"
MQTT_TYPE = "mqtt"
MQTT_NAME = "broker"
PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "esp", "ah", "gre")
CARRIERS = ("mesh", "bus", "mqtt")
DEFAULT_TARGETS = (
    *("1.1.1.1", "8.8.8.8", "9.9.9.9"),
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe"),
)
DEFAULT_RESOLVERS = ("1.1.1.1", "2606:4700:4700::1111")
MESH_PORT = 7333
PROVIDER_PORT = 51821
LEASE_S = 3600
SWITCH_BOUND_S = 0.3  # from the verdict to the moved traffic, with room for a slow router
RETIRED = {
    "drill_interval": "have cron run `wgctl uplink drill`",
    "metrics": "`wgctl uplink metrics` prints them",
    "probe_budget": "idle uplinks are probed every `check_interval`, which costs little",
    "webhook": "a hook can call curl, docs/telling.md shows how",
}
"""Options of earlier versions that are read by nobody, and what to do instead."""


# --- the table
# fmt: off


@dataclass(frozen=True)  # no slots: what is derived is kept
class Settings:
    """What the main section says but for the mesh."""

    enabled: bool = option(k.FLAG, True,
        help="0: the service makes no tunnel, sends no probe and moves no traffic")
    auto_failover: bool = option(k.FLAG, True,
        help="0: tunnels are kept up and watched, but traffic is never moved")
    min_uplinks: int = option(k.whole(0, 60), 2,
        help="uplinks that are kept ready: where fewer are sound, the best offers of trusted "
             "mesh peers are added, and only those are ever removed by the service; 0 adds none")
    check_interval_s: float = option(k.seconds(1, 3600), 30.0, unit="s", name="check_interval",
        help="time between two probes of an idle backup")
    failover_timeout_s: float = option(k.seconds(1, 3600), 10.0, unit="s", name="failover_timeout",
        help="time within which traffic must have left a dead WAN; it must suit `pace`")
    prefer_latency: bool = option(k.FLAG, True,
        help="of uplinks with equal cost and weight the one that loads a page sooner, round "
             "trips counted; 0: by bandwidth alone")
    profile_name: str = option(k.choice(*PROFILES), "default", name="pace",
        help="how often a path in use is probed. `default` notices a dead WAN within 2 s in the "
             "usual case; `fast` within 0.3 s of silence, by ten probes a second: each way 31 "
             "MB a day for IPv4 and 48 for IPv6, on each WAN")
    early_failover: str = option(k.choice("off", "free", "all"), "free",
        bad="off",
        help="new connections leave by a backup at the first doubt of the WAN, and by the WAN "
             "again as soon as anything arrives there: by one that is not metered and has no "
             "quota and no price (free), by any (all), or never (off); at pace `fast` never")
    hold_s: float = option(k.seconds(0, 86400), 30.0, unit="s", name="hold_time",
        help="how long a WAN that came back must stay good before traffic returns to it; "
             "doubled each time that it fails again soon")
    max_hold_s: float = option(k.seconds(0, 86400), 1800.0, unit="s", name="max_hold_time",
        help="the longest that `hold_time` is doubled to")
    targets: tuple[str, ...] = option(k.ADDRESS, DEFAULT_TARGETS, many=True, name="track_ip",
        help="what probes are sent to, in turn")
    reliability: int = option(k.whole(0, 20), 0,
        help="how many of a family's `track_ip` must answer; 0: one, and half of three or more "
             "that fall silent together")
    trusted_peers: frozenset[str] = option(k.ID, frozenset(), many=True, collect=frozenset,
        name="trusted_peer",
        help="peers that may be uplinks, where they are set up by hand or bound by `list peer`")
    declined: frozenset[str] = option(k.ID, frozenset(), many=True, collect=frozenset,
        help="peers whose uplinks you removed: `min_uplinks` passes them over until you add one "
             "again")
    lines: tuple[str, ...] = option(k.TEXT, (), many=True, name="wan",
        help="the WANs in order of preference: devices, or netifd's interfaces; without it "
             "every device with a default route")
    policies: tuple[str, ...] = option(k.TEXT, (), many=True, name="policy",
        help="mwan3's policies that uplinks join as members, `none` to keep out of mwan3; "
             "without it every policy that a catch-all rule uses")
    resolvers: tuple[str, ...] = option(k.ADDRESS, DEFAULT_RESOLVERS, many=True, name="dns",
        help="resolvers that answer, through the tunnel, look-ups meant for the dead WAN's "
             "resolvers, where the provider's resolver can't")
    captive_check: str = option(k.PAGE, "",
        help="a page that answers 204, by which a captive portal on the WAN is known; none is "
             "asked without")
    fail_closed: bool = option(k.FLAG, False, bad=True,
        help="1: when no path answers, traffic of the dead WAN is refused instead of let out")
    spread: bool = option(k.FLAG, False,
        help="1: in an outage new connections spread over the usable uplinks of one cost tier by "
             "their speed, each pair of source and destination by one of them")
    sticky_failback: bool = option(k.FLAG, False,
        help="1: connections on the tunnel may finish there when traffic goes back to the WAN")
    sticky_time_s: float = option(k.seconds(1, 86400), 600.0, unit="s", name="sticky_time",
        help="how long connections may stay on the tunnel for that")
    max_loss: float = option(k.whole(0, 100, per=100), 0.2, unit="%",
        help="loss beyond which a path is degraded and left for a clearly better one; 0: no "
             "limit")
    max_latency_s: float = option(k.whole(0, 60000, per=1000), 0.0, unit="ms", name="max_latency",
        help="latency beyond which a path is degraded and left for a clearly better one; 0: no "
             "limit")
    imported: bool = option(k.FLAG, False,
        help="written by the service: SecuBox's older file was taken over")

    @property
    def sticky_s(self) -> float:
        """How long connections may stay on a tunnel after a failback; 0 for not at all."""
        return self.sticky_time_s if self.sticky_failback else 0.0

    def held_s(self, flaps: int) -> float:
        """How long the WAN must be good before traffic goes back, after so many failovers: twice
        as long each time that it failed again soon, up to `max_hold_s`.
        """
        return max(self.hold_s, min(self.max_hold_s, self.hold_s * 2.0 ** (max(flaps, 1) - 1)))

    @cached_property
    def probe_profile(self) -> ProbeProfile:
        """The named one, its timeouts cut so that detection and switch keep `failover_timeout`."""
        profile = PROFILES[self.profile_name]
        room_s = self.failover_timeout_s - SWITCH_BOUND_S
        patience_s = min(profile.patience_s, room_s - profile.idle_interval_s)
        profile = replace(
            profile,
            patience_s=patience_s,
            start_s=min(profile.start_s, room_s),
            dispute_s=min(profile.dispute_s, room_s),
        )
        spent_s = profile.idle_interval_s + profile.confirm_s
        cap_s = min(profile.timeout_cap_s, max(profile.timeout_floor_s, room_s - spent_s))
        # A silence counts anew once evidence is no longer believed.
        evidence_s = max(0.0, room_s - profile.longest_silence_s)
        return replace(profile, timeout_cap_s=cap_s, passive_limit_s=evidence_s)

    def detection_bound_s(
        self, timeout_s: float | None = None, profile: ProbeProfile | None = None
    ) -> float:
        """The longest time from a silent death to moved traffic, while the WAN is used.

        `timeout_s` is how long an answer is waited for now; without it the longest that the profile
        allows, on the slowest WAN. `profile` is what it is probed by now.
        """
        profile = profile or self.probe_profile
        bound_s = profile.detection_bound_s(timeout_s or profile.timeout_cap_s)
        return round(bound_s + SWITCH_BOUND_S, 6)  # a sum of tenths is to be 3, not a trace more

    def targets_of(self, family: Family) -> tuple[str, ...]:
        return tuple(t for t in self.targets if ipaddress.ip_address(t).version == family.version)


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the main section says of the mesh."""

    node_id: str = option(k.ID, "",
        help="this router's id in the mesh; without it that of secubox-p2p, or the host's name")
    mesh_devices: tuple[str, ...] = option(k.DEVICE, (), many=True, name="mesh",
        help="the mesh's WireGuard devices; without it each on which a peer has a /32 or /128 "
             "of its own")
    mesh_port: int = option(k.whole(1, 65535), MESH_PORT,
        help="TCP port in the mesh where peers ask for offers and leases")
    carriers: frozenset[str] = option(k.choice(*CARRIERS), frozenset({"mesh", "bus"}), many=True,
        collect=frozenset, name="carrier",
        help="how offers travel: from each peer's mesh address (mesh), by mirrornet (bus), by a "
             "broker (mqtt)")
    peers: tuple[tuple[str, str], ...] = option(k.MESH_PEER, (), many=True, name="peer",
        help="a mesh peer by hand: its id and its address in the mesh")
    trust_source: str = option(k.choice("auto", "uci", "master-link"), "auto",
        bad="master-link", name="trust",
        help="who decides on trust: master-link where it is installed (auto), this file alone "
             "(uci), or master-link alone")
    poll_s: float = option(k.seconds(1, 3600), 120.0, unit="s", name="poll_interval",
        help="time between two questions to a peer for what it did not tell by itself")


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What `config provider` says: whether and how this router serves others."""

    enabled: bool = option(k.FLAG, False,
        help="1: offer this router's internet to trusted peers")
    bandwidth_mbps: int = option(k.whole(0, 1_000_000), 0, unit="Mbit/s",
        help="the speed that is advertised; 0: not said")
    latency_ms: float = option(k.decimal(60_000), -1.0, unit="ms",
        help="the latency that is advertised; without it the service measures it")
    wan_type: str = option(k.WAN_TYPE, "",
        help="the kind of WAN that is advertised, such as fiber or lte")
    metered: bool = option(k.FLAG, False, bad=True,
        help="1: the provider's WAN costs by volume; such offers are taken last")
    quota_gb: float = option(k.decimal(1_000_000), 0.0, unit="GB", bad=Fallback.OFF,
        help="what all consumers together may use in a month, both ways; 0: no quota")
    price_per_gb: float = option(k.decimal(1_000_000), 0.0, bad=Fallback.OFF,
        help="what a GB costs, in what the mesh counts in; cheaper offers are taken first")
    reset_day: int = option(k.whole(1, 31), 1,
        help="the day that begins the quota's month")
    limit_mbps: int = option(k.whole(0, 100_000), 0, unit="Mbit/s", bad=Fallback.OFF,
        help="limit for each consumer and each way; 0: no limit")
    max_consumers: int = option(k.whole(1, 200), 8,
        help="how many peers are served at the same time")
    lease_s: int = option(k.whole(5, 604_800), LEASE_S, unit="s", name="lease_time",
        help="how long a lease holds without a sign of life")
    listen_port: int = option(k.whole(1, 65535), PROVIDER_PORT,
        help="UDP port of the consumers' tunnels")
    endpoint: str = option(k.HOST, "", bad=Fallback.OFF,
        help="name or address from outside; without it the WAN's public address")
    pool4: str = option(k.POOL4, "", bad=Fallback.OFF,
        help="the private network that consumers get IPv4 addresses of; without it one is chosen")
    pool6: str = option(k.POOL6, "", bad=Fallback.OFF,
        help="the private network that consumers get IPv6 addresses of; without it one is chosen")
    resolvers: tuple[str, ...] = option(k.ADDRESS, (), many=True, name="dns",
        help="resolvers for consumers; without any those of the WAN")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A lease as it is kept in the configuration (`config consumer`): no expiry, no secret."""

    name: str
    peer_id: str = option(k.ID, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer")
    public_key: str = option(k.WG_KEY, "", needed="is the consumer's", secret=True,
        bad=Fallback.OFF, is_unique=True,
        help="its key in the tunnel")
    addresses: tuple[str, ...] = option(k.CONSUMER_ADDRESS, (), many=True, name="address",
        needed="is the consumer's place in the pools", bad=Fallback.OFF, is_unique=True,
        help="its addresses in the pools")


@dataclass(frozen=True, slots=True)
class Pin:
    """What the owner confirmed once (`config trust`): whose mesh key and identity a peer's are."""

    name: str
    peer_id: str = option(k.ID, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer")
    mesh_key: str = option(k.WG_KEY, "", needed="is the peer's in the mesh", secret=True,
        bad=Fallback.OFF, is_unique=True,
        help="its WireGuard key in the mesh")
    identity: str = option(k.SIGNING_KEY, "", secret=True, bad=Fallback.OFF,
        is_unique=True,
        help="the key that it signs with")
    fingerprint: str = option(k.FINGERPRINT, "", bad=Fallback.OFF,
        help="its fingerprint in master-link")


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """What `config mqtt` says: the broker that carries offers beyond what a node can poll."""

    enabled: bool = option(k.FLAG, False,
        help="1: offers travel by this broker too")
    host: str = option(k.BROKER, "", bad=Fallback.OFF,
        help="where the broker listens")
    given_port: int | None = option(k.whole(1, 65535), None, name="port",
        help="the broker's TCP port; without it 1883, or 8883 with `tls`")
    user: str = option(k.TEXT, "",
        help="the name to log in with")
    password_file: str = option(k.PATH, "", bad=Fallback.OFF,
        help="the file that holds the password: of root's, below /etc/wireguard-uplink, mode "
             "0600")
    tls: bool = option(k.FLAG, False, bad=True,
        help="1: encrypted")
    ca_file: str = option(k.PATH, "", bad=Fallback.OFF,
        help="the certificate authority's file for `tls`; without it the system's own ones")
    prefix: str = option(k.TOPIC, "secubox/uplink",
        help="what the topics begin with")
    areas: tuple[str, ...] = option(k.ID, (), many=True, name="area",
        help="the parts of a large mesh whose offers are taken; this router's own goes to the "
             "first. Offers without an area are taken too")
    password: str = option(k.NO_PASSWORD, "", secret=True,
        help="not here: see `password_file`")

    @property
    def port(self) -> int:
        """The given one, else that of MQTT with or without TLS."""
        return self.given_port or (8883 if self.tls else 1883)


@dataclass(frozen=True, slots=True)
class Anchor:
    """Connections that always leave by a peer's tunnel (`config anchor`). All that is given must
    fit; of a list one item. `ports` are (first, last) of the destination's.
    """

    name: str
    peer_id: str = option(k.ID, "", name="peer", needed="names the peer by whose tunnel they go",
        bad=Fallback.OFF,
        help="the peer by whose tunnel such connections go, whatever else does")
    sources: tuple[str, ...] = option(k.NETWORK, (), many=True, name="source", bad=Fallback.OFF,
        help="where they come from: hosts or networks of the LAN")
    destinations: tuple[str, ...] = option(k.NETWORK, (), many=True, name="destination",
        bad=Fallback.OFF,
        help="where they go")
    protocols: frozenset[str] = option(k.choice(*PROTOCOLS), frozenset(), many=True,
        collect=frozenset, name="protocol", bad=Fallback.OFF,
        help="their protocols; without it all")
    ports: tuple[tuple[int, int], ...] = option(k.PORTS, (), many=True, name="port",
        bad=Fallback.OFF,
        help="their ports at the destination, of TCP and UDP; look-ups of names are anchored only "
             "where 53 is among these")
    dscp: frozenset[int] = option(k.DSCP, frozenset(), many=True, collect=frozenset,
        bad=Fallback.OFF,
        help="the code points (DSCP) of their first packet")
    enabled: bool = option(k.FLAG, True, bad=False,
        help="0: the section is not used")

    def addresses(self, family: Family) -> tuple[list[str], list[str]] | None:
        """The family's sources and destinations; None where such a connection can't fit."""
        found = []
        for given in (self.sources, self.destinations):
            found.append([each for each in given if Family.of(each) is family])
            if given and not found[-1]:
                return None
        return found[0], found[1]

    @property
    def asks_names(self) -> bool:
        """Whether look-ups of names are among them."""
        return any(low <= 53 <= high for low, high in self.ports)

    @property
    def fault(self) -> str:
        """The code of why no connection could fit, or all would; '' where it can be used."""
        if not (self.sources or self.destinations or self.protocols or self.ports or self.dscp):
            return "anchor_empty"
        if self.ports and self.protocols and not self.protocols & {"tcp", "udp"}:
            return "anchor_ports"
        if not any(self.addresses(family) for family in Family):
            return "anchor_families"
        return ""


_UPLINK = (
    Option("peer_id", k.TEXT, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer"),
    Option("endpoint_host", k.HOST, "", needed="is where the peer is reached", bad=Fallback.OFF,
        help="where the peer is reached: a name or an address"),
    Option("endpoint_port", k.whole(1, 65535), DEFAULT_PORT, bad=Fallback.OFF, is_always=True,
        help="the peer's UDP port"),
    Option("other_endpoint", k.ENDPOINT, (), field="other_endpoints", many=True,
        help="more places where the peer is reached, such as a neighbour link's: taken at once "
             "while the way to the present one is in doubt"),
    Option("public_key", k.WG_KEY, "", needed="is the peer's", secret=True, bad=Fallback.OFF,
        help="the peer's WireGuard key"),
    Option("weight", k.whole(1, 100), DEFAULT_WEIGHT, is_always=True,
        help="of uplinks with equal cost the one with the higher weight is preferred"),
    Option("own_public_key", k.TEXT, "",
        help="written by the service: this router's key in the tunnel"),
    Option("address", k.TUNNEL_ADDRESS, (), field="addresses", many=True, bad=Fallback.OFF,
        help="this router's addresses in the tunnel; made from its key without"),
    Option("dns", k.ADDRESS, (), field="resolvers", many=True,
        help="the provider's resolvers in the tunnel"),
    Option("mtu", k.whole(LEAST_MTU, 1500), DEFAULT_MTU, unit="bytes",
        help="the largest packet that the tunnel takes"),
    Option("metered", k.FLAG, None, bad=True,
        help="1: the peer's WAN costs by volume"),
    Option("quota_gb", k.decimal(1_000_000), None, unit="GB",
        help="what all of the peer's consumers may use in a month; 0: no quota"),
    Option("price_per_gb", k.decimal(1_000_000), None, bad=1_000_000.0,
        help="what a GB costs, in what the mesh counts in"),
    Option("enabled", k.FLAG, True, bad=False,
        help="0: no tunnel for this section"),
    Option("pending", k.FLAG, False,
        help="written by the service: its making was not finished yet"),
    Option("auto", k.FLAG, False,
        help="written by the service: `min_uplinks` made it"),
    Option("leased", k.FLAG, False,
        help="written by the service: its addresses are a lease"),
    Option("inbound", k.FLAG, False,
        help="1: the provider may begin connections to this router and what lies behind it"),
)
# fmt: on

SECTIONS = {
    section.type: section
    for section in (
        SectionType(MAIN_TYPE, "This router as a whole.", rows(Settings, PeerSettings), MAIN_NAME),
        SectionType(
            PROVIDER_TYPE,
            "This router's internet for mesh peers; `wgctl uplink offer` writes it.",
            rows(ProviderSettings),
            PROVIDER_NAME,
        ),
        SectionType(
            MQTT_TYPE,
            "A broker that carries offers in large meshes.",
            rows(MqttSettings),
            MQTT_NAME,
        ),
        SectionType(
            UPLINK_TYPE,
            f"One uplink; the section's name is its interface, and begins with `{TUNNEL_PREFIX}`. "
            "`wgctl uplink add` writes it; one that you write gets its key and address at the next "
            "read.",
            _UPLINK,
        ),
        SectionType(
            ANCHOR_TYPE,
            "Connections that keep one address over failover and failback: they always leave by "
            "this peer's tunnel while it answers, and by the usual way while it does not.",
            rows(Anchor),
        ),
        SectionType(
            CONSUMER_TYPE, "A lease that was given; the service writes it.", rows(Consumer)
        ),
        SectionType(
            PIN_TYPE, "A peer that you accepted; `wgctl uplink trust accept` writes it.", rows(Pin)
        ),
    )
}


def consumer_name(public_key: str) -> str:
    """The section of a consumer's lease in the configuration: a consumer with a new key is new."""
    return "consumer_" + hashlib.sha256(public_key.encode()).hexdigest()[:8]


def pin_name(peer_id: str) -> str:
    """The section of a peer's pin: what is confirmed anew replaces what was confirmed before."""
    return "trust_" + hashlib.sha256(peer_id.encode()).hexdigest()[:8]
