"""What /etc/config/wireguard-uplink says of the exchange with peers, as settings, and back.

Owns the sections `provider`, `consumer`, `trust` and `mqtt` and the main section's options about
the mesh. Reads no files; what is wrong raises ConfigError with section, option and value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from ..errors import ConfigError
from ..model import TUNNEL_PREFIX, normal_address
from ..schema.endpoints import parse_host
from ..schema.shapes import PEER_ID
from ..uci import Value
from .peering import (
    LEASE_S,
    MESH_PORT,
    PROVIDER_PORT,
    Consumer,
    MqttSettings,
    PeerSettings,
    Pin,
    ProviderSettings,
)
from .reader import Reader, refuse_repeated

PROVIDER_TYPE = "provider"
PROVIDER_NAME = "local"
CONSUMER_TYPE = "consumer"
PIN_TYPE = "trust"
MQTT_TYPE = "mqtt"
MQTT_NAME = "broker"
CARRIERS = ("mesh", "bus", "mqtt")
TRUST_SOURCES = ("auto", "uci", "master-link")
# Where a consumer takes addresses from; 100.64.0.0/10 is left to Tailscale and carriers' NAT.
POOLS4 = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
POOLS6 = (ipaddress.IPv6Network("fc00::/7"),)

_PEER_ID = re.compile(PEER_ID["pattern"])
_PEER_ID_WANT = PEER_ID["x-must"].removeprefix("be ")
_DEVICE = re.compile(rf"(?!{TUNNEL_PREFIX.rstrip('_')})[A-Za-z0-9_.-]{{1,15}}")
_WAN_TYPE = re.compile(r"[0-9A-Za-z_./+ -]{1,32}")
_FINGERPRINT = re.compile(r"[0-9A-Za-z:+/=._-]{1,128}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,254}")
_TOPIC = re.compile(r"[0-9A-Za-z_.-]+(?:/[0-9A-Za-z_.-]+)*")


def parse_mesh(reader: Reader) -> PeerSettings:
    """The main section's options about the mesh. `trusted_peer` is not among them."""
    devices = reader.words("mesh")
    for device in devices:
        if not _DEVICE.fullmatch(device):
            raise reader.bad("mesh", device, "a WireGuard device that is none of this service's")
    carriers = reader.words("carrier", ("mesh", "bus"))
    for carrier in carriers:
        if carrier not in CARRIERS:
            raise reader.bad("carrier", carrier, "one of " + ", ".join(CARRIERS))
    peers = tuple(_parse_peer(reader, item) for item in reader.items("peer"))
    refuse_repeated(((f"peer {peer_id}", address) for peer_id, address in peers), "mesh address")
    return PeerSettings(
        node_id=reader.matching("node_id", _PEER_ID, _PEER_ID_WANT),
        mesh_devices=devices,
        mesh_port=reader.whole("mesh_port", MESH_PORT, 1, 65535),
        carriers=frozenset(carriers),
        peers=peers,
        trust_source=reader.choice("trust", "auto", TRUST_SOURCES),
        poll_s=float(reader.whole("poll_interval", 120, 1, 3600)),
    )


def _parse_peer(reader: Reader, item: str) -> tuple[str, str]:
    want = "a peer's id and its address in the mesh, as in 'nodeA 10.9.0.1'"
    peer_id, _, address = item.partition(" ")
    if not _PEER_ID.fullmatch(peer_id):
        raise reader.bad("peer", item, want)
    try:
        return peer_id, str(ipaddress.ip_address(address.strip()))
    except ValueError as error:
        raise reader.bad("peer", item, want) from error


def parse_provider(reader: Reader) -> ProviderSettings:
    """The section 'local' of the type provider."""
    _require_name(reader, PROVIDER_TYPE, PROVIDER_NAME)
    endpoint = reader.text("endpoint")
    return ProviderSettings(
        enabled=reader.flag("enabled", False),
        bandwidth_mbps=reader.whole("bandwidth_mbps", 0, 0, 1_000_000),
        latency_ms=reader.decimal("latency_ms", -1.0, 60_000),
        wan_type=reader.matching("wan_type", _WAN_TYPE, "at most 32 plain characters"),
        metered=reader.flag("metered", False),
        quota_gb=reader.decimal("quota_gb", 0.0, 1_000_000),
        price_per_gb=reader.decimal("price_per_gb", 0.0, 1_000_000),
        reset_day=reader.whole("reset_day", 1, 1, 31),
        limit_mbps=reader.whole("limit_mbps", 0, 0, 100_000),
        max_consumers=reader.whole("max_consumers", 8, 1, 200),
        lease_s=reader.whole("lease_time", LEASE_S, 5, 604_800),
        listen_port=reader.whole("listen_port", PROVIDER_PORT, 1, 65535),
        endpoint=reader.checked("endpoint", endpoint, parse_host) if endpoint else "",
        pool4=_parse_pool(reader, "pool4", POOLS4, 30),
        pool6=_parse_pool(reader, "pool6", POOLS6, 120),
        resolvers=reader.addresses("dns"),
    )


def _parse_pool(
    reader: Reader,
    option: str,
    ranges: Sequence[ipaddress.IPv4Network] | Sequence[ipaddress.IPv6Network],
    longest: int,
) -> str:
    text = reader.text(option)
    if not text:
        return ""
    try:
        pool = ipaddress.ip_network(text)
    except ValueError:
        pool = None
    if (
        pool is None
        or pool.prefixlen > longest
        or not any(pool.version == one.version and pool.subnet_of(one) for one in ranges)  # type: ignore[arg-type]
    ):
        inside = ", ".join(map(str, ranges))
        raise reader.bad(option, text, f"a network up to /{longest} inside {inside}")
    return str(pool)


def parse_consumer(reader: Reader) -> Consumer:
    """A section of the type consumer."""
    addresses = tuple(reader.checked("address", a, normal_address) for a in reader.words("address"))
    for address in addresses:
        if not address.endswith(("/32", "/128")):
            raise reader.bad("address", address, "one consumer's: /32 or /128")
    reader.needed("address", " ".join(addresses), "is the consumer's place in the pools")
    return Consumer(
        name=reader.name,
        peer_id=_parse_peer_id(reader),
        public_key=reader.needed("public_key", reader.key("public_key"), "is the consumer's"),
        addresses=addresses,
    )


def parse_pin(reader: Reader) -> Pin:
    """A section of the type trust."""
    return Pin(
        name=reader.name,
        peer_id=_parse_peer_id(reader),
        mesh_key=reader.needed("mesh_key", reader.key("mesh_key"), "is the peer's in the mesh"),
        identity=reader.key("identity", "an Ed25519 key"),
        fingerprint=reader.matching("fingerprint", _FINGERPRINT, "a fingerprint of master-link's"),
    )


def parse_mqtt(reader: Reader) -> MqttSettings:
    """The section 'broker' of the type mqtt. A password in it is refused: the settings page may
    read this file, so that other people's sessions could.
    """
    _require_name(reader, MQTT_TYPE, MQTT_NAME)
    if reader.text("password"):
        raise ConfigError(
            f"{reader.where}.password: LuCI may read this file, so no password can be in it; put "
            "it into a file of its own that only root can read, and name that in password_file"
        )
    enabled = reader.flag("enabled", False)
    tls = reader.flag("tls", False)
    default = MqttSettings()
    host = _parse_broker(reader)
    if enabled:
        reader.needed("host", host, "is where the broker listens")
    return MqttSettings(
        enabled=enabled,
        host=host,
        port=reader.whole("port", 8883 if tls else default.port, 1, 65535),
        user=reader.text("user"),
        password_file=reader.matching("password_file", _PATH, "a file's whole path"),
        tls=tls,
        ca_file=reader.matching("ca_file", _PATH, "a file's whole path"),
        prefix=reader.matching(
            "prefix", _TOPIC, "words of a topic with / between them", default.prefix
        ),
    )


def _parse_broker(reader: Reader) -> str:
    host = reader.text("host")
    try:
        # Unlike a peer, a broker may run on this router.
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    return reader.checked("host", host, parse_host) if host else ""


def _parse_peer_id(reader: Reader) -> str:
    peer_id = reader.matching("peer_id", _PEER_ID, _PEER_ID_WANT)
    return reader.needed("peer_id", peer_id, "names the mesh peer")


def _require_name(reader: Reader, section_type: str, name: str) -> None:
    if reader.name != name:
        raise ConfigError(f"{reader.where}: name it: config {section_type} '{name}'")


def check_consumers(config: str, consumers: Iterable[Consumer]) -> None:
    """Raise ConfigError where two have the same peer, key or address."""
    named = [(f"{config}.{one.name}", one) for one in consumers]
    refuse_repeated(((where, one.peer_id) for where, one in named), "peer_id")
    refuse_repeated(((where, one.public_key) for where, one in named), "public_key")
    refuse_repeated(((where, a) for where, one in named for a in one.addresses), "address")


def check_pins(config: str, pins: Iterable[Pin]) -> None:
    """Raise ConfigError where two are for the same peer, or share what tells peers apart."""
    named = [(f"{config}.{one.name}", one) for one in pins]
    refuse_repeated(((where, one.peer_id) for where, one in named), "peer_id")
    refuse_repeated(((where, one.mesh_key) for where, one in named), "mesh_key")
    refuse_repeated(((where, one.identity) for where, one in named), "identity")


def provider_options(settings: ProviderSettings) -> dict[str, Value]:
    """The options of the provider's section, complete: those that are not as by default."""
    default = ProviderSettings()
    options: dict[str, Value] = {}
    for option, value, usual in (
        ("enabled", settings.enabled, default.enabled),
        ("bandwidth_mbps", settings.bandwidth_mbps, default.bandwidth_mbps),
        ("latency_ms", settings.latency_ms, default.latency_ms),
        ("wan_type", settings.wan_type, default.wan_type),
        ("metered", settings.metered, default.metered),
        ("quota_gb", settings.quota_gb, default.quota_gb),
        ("price_per_gb", settings.price_per_gb, default.price_per_gb),
        ("reset_day", settings.reset_day, default.reset_day),
        ("limit_mbps", settings.limit_mbps, default.limit_mbps),
        ("max_consumers", settings.max_consumers, default.max_consumers),
        ("lease_time", settings.lease_s, default.lease_s),
        ("listen_port", settings.listen_port, default.listen_port),
        ("endpoint", settings.endpoint, default.endpoint),
        ("pool4", settings.pool4, default.pool4),
        ("pool6", settings.pool6, default.pool6),
        ("dns", settings.resolvers, default.resolvers),
    ):
        if value != usual:
            options[option] = value if isinstance(value, str | tuple) else plain_number(value)
    return options


def plain_number(value: float) -> str:
    """A number as people write it: up to six decimals, none where there are none."""
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")


def consumer_options(consumer: Consumer) -> dict[str, Value]:
    """The options of a consumer's section, complete."""
    return {
        "peer_id": consumer.peer_id,
        "public_key": consumer.public_key,
        "address": consumer.addresses,
    }


def pin_options(pin: Pin) -> dict[str, Value]:
    """The options of a pin's section, complete."""
    options: dict[str, Value] = {"peer_id": pin.peer_id, "mesh_key": pin.mesh_key}
    if pin.identity:
        options["identity"] = pin.identity
    if pin.fingerprint:
        options["fingerprint"] = pin.fingerprint
    return options
