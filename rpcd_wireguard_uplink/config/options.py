"""Every option of /etc/config/wireguard-uplink, a row each: what it may be, and what if it is not.

The parser, the writer, docs/options.md, the settings page's checks and `wgctl uplink set` all read
these rows. Times are in seconds unless `unit` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import InvalidArgument
from ..model import DEFAULT_MTU, DEFAULT_PORT, DEFAULT_WEIGHT, LEAST_MTU, TUNNEL_PREFIX
from ..uci import Value
from . import kinds as k
from .peering import LEASE_S, MESH_PORT, PROVIDER_PORT
from .probe_profile import PROFILES

CONFIG = "wireguard-uplink"
MAIN_TYPE = "wireguard-uplink"
MAIN_NAME = "uplink"
UPLINK_TYPE = "uplink"
PROVIDER_TYPE = "provider"
PROVIDER_NAME = "local"
CONSUMER_TYPE = "consumer"
PIN_TYPE = "trust"
MQTT_TYPE = "mqtt"
MQTT_NAME = "broker"
CARRIERS = ("mesh", "bus", "mqtt")
DEFAULT_TARGETS = (
    *("1.1.1.1", "8.8.8.8", "9.9.9.9"),
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe"),
)
DEFAULT_RESOLVERS = ("1.1.1.1", "2606:4700:4700::1111")
RETIRED = {
    "drill_interval": "have cron run `wgctl uplink drill`",
    "metrics": "`wgctl uplink metrics` prints them",
    "probe_budget": "idle uplinks are probed every `check_interval`, which costs little",
    "webhook": "a hook can call curl, docs/telling.md shows how",
}
"""Options of earlier versions that are read by nobody, and what to do instead."""


class Fallback(Enum):
    """What takes the place of a bad value that had no good one before."""

    DEFAULT = "its default"
    OFF = "nothing: the section is not used"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `field` is its name in the settings, where that differs.

    `many`: a list, whose bad items are left out alone (all of them where `bad` is OFF).
    `needed`: what a missing one would have said. `secret`: never quoted. `is_always`: written even
    where it is the default. `is_unique`: no two sections have the same.
    """

    name: str
    kind: k.Kind
    default: Any
    help: str
    field: str = ""
    unit: str = ""
    many: bool = False
    collect: Callable[[Iterable[Any]], Any] = tuple
    bad: Any = Fallback.DEFAULT
    needed: str = ""
    secret: bool = False
    is_always: bool = False
    is_unique: bool = False

    @property
    def key(self) -> str:
        """The name in the settings."""
        return self.field or self.name

    def items(self, text: Value) -> tuple[str, ...]:
        """The items of a list as UCI has it (a plain option's words), else the one value."""
        if not isinstance(text, str):
            return text
        return tuple(text.split()) if self.many and self.kind is not k.MESH_PEER else (text,)

    def why_not(self, item: str) -> str:
        """What a value or an item of a list must be, where it is not; else ''."""
        try:
            self.kind.parse(item)
        except ValueError:
            return self.kind.must
        except InvalidArgument as error:
            return f"{self.kind.must} ({error})"
        return ""

    def value(self, items: Sequence[str]) -> Any:
        """What good items come to in the settings."""
        found = map(self.kind.parse, items)
        return self.collect(found) if self.many else next(found)

    def default_items(self) -> tuple[str, ...]:
        """The default as it would be written; () where there is none."""
        return () if self.default in (None, "", (), -1) else self.items(self.text(self.default))

    def text(self, value: Any) -> Value:
        """A value as it is written."""
        if not self.many:
            return self.kind.write(value)
        items = sorted(value) if isinstance(value, frozenset) else value
        return tuple(self.kind.write(item) for item in items)


@dataclass(frozen=True, slots=True)
class SectionType:
    """The sections of one type; `name` is the one that the only section must have."""

    type: str
    help: str
    options: tuple[Option, ...]
    name: str = ""

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


# --- the table
# fmt: off

_MAIN = (
    Option("enabled", k.FLAG, True,
        help="0: no tunnels, no probes, nothing moved"),
    Option("auto_failover", k.FLAG, True,
        help="0: tunnels are kept up and watched, but traffic is never moved"),
    Option("min_uplinks", k.whole(0, 60), 2,
        help="uplinks that are kept ready: where fewer are sound, the best offers of trusted "
             "mesh peers are added, and only those are ever removed by the service; 0 adds none"),
    Option("check_interval", k.seconds(1, 3600), 30.0, field="check_interval_s", unit="s",
        help="time between two probes of an idle backup"),
    Option("failover_timeout", k.seconds(1, 3600), 10.0, field="failover_timeout_s", unit="s",
        help="time within which traffic must have left a dead WAN; it must suit `pace`"),
    Option("prefer_latency", k.FLAG, True,
        help="of uplinks with equal cost and weight the one that loads a page sooner, round "
             "trips counted; 0: by bandwidth alone"),
    Option("pace", k.choice(*PROFILES), "default", field="profile_name",
        help="how often a path in use is probed. `default` notices a dead WAN within 2 s in the "
             "usual case; `fast` within 0.3 s of silence, by ten probes a second: each way 31 "
             "MB a day for IPv4 and 48 for IPv6, on each WAN"),
    Option("hold_time", k.seconds(0, 86400), 30.0, field="hold_s", unit="s",
        help="how long a WAN that came back must stay good before traffic returns to it; "
             "doubled each time that it fails again soon"),
    Option("max_hold_time", k.seconds(0, 86400), 1800.0, field="max_hold_s", unit="s",
        help="the longest that `hold_time` is doubled to"),
    Option("track_ip", k.ADDRESS, DEFAULT_TARGETS, field="targets", many=True,
        help="what probes are sent to, in turn"),
    Option("reliability", k.whole(0, 20), 0,
        help="how many of a family's `track_ip` must answer; 0: one, and half of three or more "
             "that fall silent together"),
    Option("trusted_peer", k.ID, frozenset(), field="trusted_peers", many=True, collect=frozenset,
        help="peers that may be uplinks, where they are set up by hand or bound by `list peer`"),
    Option("declined", k.ID, frozenset(), many=True, collect=frozenset,
        help="peers whose uplinks you removed: `min_uplinks` passes them over until you add one "
             "again"),
    Option("wan", k.TEXT, (), field="lines", many=True,
        help="the WANs in order of preference: devices, or netifd's interfaces; without it "
             "every device with a default route"),
    Option("policy", k.TEXT, (), field="policies", many=True,
        help="mwan3's policies that uplinks join as members, `none` for no part in mwan3; "
             "without it every policy that a catch-all rule uses"),
    Option("dns", k.ADDRESS, DEFAULT_RESOLVERS, field="resolvers", many=True,
        help="what answers, through the tunnel, look-ups that were meant for the dead WAN's "
             "resolvers, where the provider's resolver can't"),
    Option("captive_check", k.PAGE, "",
        help="a page that answers 204, by which a captive portal on the WAN is known; none is "
             "asked without"),
    Option("fail_closed", k.FLAG, False, bad=True,
        help="1: when no path answers, traffic of the dead WAN is refused instead of let out"),
    Option("sticky_failback", k.FLAG, False,
        help="1: connections on the tunnel may finish there when traffic goes back to the WAN"),
    Option("sticky_time", k.seconds(1, 86400), 600.0, field="sticky_time_s", unit="s",
        help="how long they may"),
    Option("max_loss", k.whole(0, 100, per=100), 0.2, unit="%",
        help="loss beyond which a path is degraded and left for a clearly better one; 0: no "
             "limit"),
    Option("max_latency", k.whole(0, 60000, per=1000), 0.0, field="max_latency_s", unit="ms",
        help="latency beyond which a path is degraded and left for a clearly better one; 0: no "
             "limit"),
    Option("imported", k.FLAG, False,
        help="written by the service: SecuBox's older file was taken over"),
    Option("node_id", k.ID, "",
        help="this router's id in the mesh; without it that of secubox-p2p, or the host's name"),
    Option("mesh", k.DEVICE, (), field="mesh_devices", many=True,
        help="the mesh's WireGuard devices; without it each on which a peer has a /32 or /128 "
             "of its own"),
    Option("mesh_port", k.whole(1, 65535), MESH_PORT,
        help="TCP port in the mesh where peers ask for offers and leases"),
    Option("carrier", k.choice(*CARRIERS), frozenset({"mesh", "bus"}), field="carriers", many=True,
        collect=frozenset,
        help="how offers travel: from each peer's mesh address (mesh), by mirrornet (bus), by a "
             "broker (mqtt)"),
    Option("peer", k.MESH_PEER, (), field="peers", many=True,
        help="a mesh peer by hand: its id and its address in the mesh"),
    Option("trust", k.choice("auto", "uci", "master-link"), "auto", field="trust_source",
        bad="master-link",
        help="who decides on trust: master-link where it is installed (auto), this file alone "
             "(uci), or master-link alone"),
    Option("poll_interval", k.seconds(1, 3600), 120.0, field="poll_s", unit="s",
        help="time between two questions to a peer for what it did not tell by itself"),
)

_COST = (
    Option("metered", k.FLAG, False, bad=True,
        help="1: the provider's WAN costs by volume; such offers are taken last"),
    Option("quota_gb", k.decimal(1_000_000), 0.0, unit="GB", bad=Fallback.OFF,
        help="what all consumers together may use in a month, both ways; 0: no quota"),
    Option("price_per_gb", k.decimal(1_000_000), 0.0, bad=Fallback.OFF,
        help="what a GB costs, in what the mesh counts in; cheaper offers are taken first"),
)

_PROVIDER = (
    Option("enabled", k.FLAG, False,
        help="1: offer this router's internet to trusted peers"),
    Option("bandwidth_mbps", k.whole(0, 1_000_000), 0, unit="Mbit/s",
        help="the speed that is advertised; 0: not said"),
    Option("latency_ms", k.decimal(60_000), -1.0, unit="ms",
        help="the latency that is advertised; measured without"),
    Option("wan_type", k.WAN_TYPE, "",
        help="the kind of WAN that is advertised, such as fiber or lte"),
    *_COST,
    Option("reset_day", k.whole(1, 31), 1,
        help="the day that begins the quota's month"),
    Option("limit_mbps", k.whole(0, 100_000), 0, unit="Mbit/s", bad=Fallback.OFF,
        help="limit for each consumer and each way; 0: no limit"),
    Option("max_consumers", k.whole(1, 200), 8,
        help="how many peers are served at the same time"),
    Option("lease_time", k.whole(5, 604_800), LEASE_S, field="lease_s", unit="s",
        help="how long a lease holds without a sign of life"),
    Option("listen_port", k.whole(1, 65535), PROVIDER_PORT,
        help="UDP port of the consumers' tunnels"),
    Option("endpoint", k.HOST, "", bad=Fallback.OFF,
        help="name or address from outside; without it the WAN's public address"),
    Option("pool4", k.POOL4, "", bad=Fallback.OFF,
        help="the private network that consumers get IPv4 addresses of; without it one is chosen"),
    Option("pool6", k.POOL6, "", bad=Fallback.OFF,
        help="the private network that consumers get IPv6 addresses of; without it one is chosen"),
    Option("dns", k.ADDRESS, (), field="resolvers", many=True,
        help="resolvers for consumers; without any those of the WAN"),
)

_UPLINK = (
    Option("peer_id", k.TEXT, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer"),
    Option("endpoint_host", k.HOST, "", needed="is where the peer is reached", bad=Fallback.OFF,
        help="where the peer is reached: a name or an address"),
    Option("endpoint_port", k.whole(1, 65535), DEFAULT_PORT, bad=Fallback.OFF, is_always=True,
        help="the peer's UDP port"),
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

_CONSUMER = (
    Option("peer_id", k.ID, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer"),
    Option("public_key", k.WG_KEY, "", needed="is the consumer's", secret=True, bad=Fallback.OFF,
        is_unique=True,
        help="its key in the tunnel"),
    Option("address", k.CONSUMER_ADDRESS, (),
        field="addresses", many=True, needed="is the consumer's place in the pools",
        bad=Fallback.OFF, is_unique=True,
        help="its addresses in the pools"),
)

_PIN = (
    Option("peer_id", k.ID, "", needed="names the mesh peer", bad=Fallback.OFF,
        is_unique=True,
        help="the mesh peer"),
    Option("mesh_key", k.WG_KEY, "", needed="is the peer's in the mesh", secret=True,
        bad=Fallback.OFF, is_unique=True,
        help="its WireGuard key in the mesh"),
    Option("identity", k.key("an Ed25519 key"), "", secret=True, bad=Fallback.OFF,
        is_unique=True,
        help="the key that it signs with"),
    Option("fingerprint", k.FINGERPRINT,
        "", bad=Fallback.OFF,
        help="its fingerprint in master-link"),
)

_MQTT = (
    Option("enabled", k.FLAG, False,
        help="1: offers travel by this broker too"),
    Option("host", k.BROKER, "",
        bad=Fallback.OFF,
        help="where the broker listens"),
    Option("port", k.whole(1, 65535), None,
        help="the broker's TCP port; 1883 without, 8883 with `tls`"),
    Option("user", k.TEXT, "",
        help="the name to log in with"),
    Option("password_file", k.PATH, "", bad=Fallback.OFF,
        help="the file that holds the password: of root's, below /etc/wireguard-uplink, mode "
             "0600"),
    Option("tls", k.FLAG, False, bad=True,
        help="1: encrypted"),
    Option("ca_file", k.PATH, "", bad=Fallback.OFF,
        help="the certificate authority's file for `tls`; without it the system's own ones"),
    Option("prefix", k.TOPIC, "secubox/uplink",
        help="what the topics begin with"),
    Option("password", k.NO_PASSWORD, "", secret=True,
        help="not here: see `password_file`"),
)
# fmt: on

SECTIONS = {
    section.type: section
    for section in (
        SectionType(MAIN_TYPE, "This router as a whole.", _MAIN, MAIN_NAME),
        SectionType(
            PROVIDER_TYPE,
            "This router's internet for mesh peers; `wgctl uplink offer` writes it.",
            _PROVIDER,
            PROVIDER_NAME,
        ),
        SectionType(MQTT_TYPE, "A broker that carries offers in large meshes.", _MQTT, MQTT_NAME),
        SectionType(
            UPLINK_TYPE,
            f"One uplink; the section's name is its interface, and begins with `{TUNNEL_PREFIX}`. "
            "`wgctl uplink add` writes it; one that you write gets its key and address at the next "
            "read.",
            _UPLINK,
        ),
        SectionType(CONSUMER_TYPE, "A lease that was given; the service writes it.", _CONSUMER),
        SectionType(
            PIN_TYPE, "A peer that you accepted; `wgctl uplink trust accept` writes it.", _PIN
        ),
    )
}
