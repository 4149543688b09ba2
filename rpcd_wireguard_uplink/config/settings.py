"""The sections of /etc/config/wireguard-uplink as typed settings, and back.

What concerns the exchange with peers is peer_config.py's. Reads no files and applies nothing. A bad
value raises ConfigError with section, option and value; the caller keeps the last good settings in
force. Unknown options are collected as warnings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..errors import ConfigError
from ..model import (
    DEFAULT_MTU,
    DEFAULT_WEIGHT,
    LEAST_MTU,
    NAME_LENGTH,
    TUNNEL_PREFIX,
    Cost,
    Endpoint,
    Family,
    Uplink,
    normal_address,
)
from ..schema.endpoints import parse_host
from ..schema.shapes import PEER_ID
from ..text import quoted
from ..uci import Section, Value
from .peer_settings import (
    CONSUMER_TYPE,
    MQTT_NAME,
    MQTT_TYPE,
    PIN_TYPE,
    PROVIDER_TYPE,
    check_consumers,
    check_pins,
    parse_consumer,
    parse_mesh,
    parse_mqtt,
    parse_pin,
    parse_provider,
    plain_number,
)
from .peering import Consumer, MqttSettings, PeerSettings, Pin, ProviderSettings
from .probe_profile import DEFAULT_PROFILE, FAST_PROFILE, ProbeProfile
from .reader import Reader, refuse_repeated

CONFIG = "wireguard-uplink"
MAIN_TYPE = "wireguard-uplink"
MAIN_NAME = "uplink"
UPLINK_TYPE = "uplink"
SWITCH_BOUND_S = 0.3  # from the verdict to the moved traffic, with room for a slow router
PROFILES: Mapping[str, ProbeProfile] = {"default": DEFAULT_PROFILE, "fast": FAST_PROFILE}
DEFAULT_TARGETS = (
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2620:fe::fe",
)
_PAGE = re.compile(r"http://[A-Za-z0-9.\[][!-~]{0,190}")
DEFAULT_RESOLVERS = ("1.1.1.1", "2606:4700:4700::1111")
RETIRED = {
    "drill_interval": "have cron run `wgctl uplink drill`",
    "metrics": "`wgctl uplink metrics` prints them",
    "probe_budget": "idle uplinks are probed every `check_interval`, which costs little",
    "webhook": "a hook can call curl, docs/telling.md shows how",
}
"""Options of earlier versions that are read by nobody, and what to do instead."""


@dataclass(frozen=True)  # no slots: what is derived is kept
class Settings:
    """What the main section says. Times in seconds; the specification's sample values are default.

    `min_uplinks` and `prefer_latency` steer the choice, `lines` names the WAN devices in order of
    preference ('' for all that have a default route), `declined` are peers whose uplinks the owner
    removed, so that none is made by itself, `targets` are what probes are sent to and
    `reliability` how many of a family's must answer (0: one, or of three or more half of them),
    `policies` names mwan3's policies to join ('none' for no part in mwan3). A line that came back
    is held off for `hold_s`, and for up to `max_hold_s` where it fails again and again.
    `captive_check` is a page that answers 204 where there is no portal ('' to ask none).
    `fail_closed` blocks rather than leaks when nothing is left. `sticky_s` is how long connections
    may stay on a tunnel after a failback, 0 for not at all. A path that loses more than `max_loss`
    (a share of its probes) or is slower than `max_latency_s` is degraded; 0 for no limit.
    """

    enabled: bool = True
    auto_failover: bool = True
    min_uplinks: int = 2
    check_interval_s: float = 30.0
    failover_timeout_s: float = 10.0
    prefer_latency: bool = True
    profile_name: str = "default"
    hold_s: float = 30.0
    max_hold_s: float = 1800.0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    reliability: int = 0
    trusted_peers: frozenset[str] = frozenset()
    declined: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = DEFAULT_RESOLVERS
    captive_check: str = ""
    fail_closed: bool = False
    sticky_s: float = 0.0
    max_loss: float = 0.2
    max_latency_s: float = 0.0

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

    def detection_bound_s(self, timeout_s: float | None = None) -> float:
        """The longest time from a silent death to moved traffic, while the line is used.

        `timeout_s` is how long an answer is waited for now; without it the longest that the profile
        allows, on the slowest line.
        """
        profile = self.probe_profile
        return profile.detection_bound_s(timeout_s or profile.timeout_cap_s) + SWITCH_BOUND_S

    def targets_of(self, family: Family) -> tuple[str, ...]:
        """The probe targets of one family."""
        return tuple(t for t in self.targets if ipaddress.ip_address(t).version == family.version)


@dataclass(frozen=True, slots=True)
class Config:
    """All that the file says, and warnings for what was not understood.

    `peering.carriers` names mqtt exactly where `mqtt` is enabled.
    """

    settings: Settings = field(default_factory=Settings)
    uplinks: tuple[Uplink, ...] = ()
    provider: ProviderSettings = field(default_factory=ProviderSettings)
    peering: PeerSettings = field(default_factory=PeerSettings)
    consumers: tuple[Consumer, ...] = ()
    pins: tuple[Pin, ...] = ()
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    warnings: tuple[str, ...] = ()


def parse_config(sections: Iterable[Section]) -> Config:
    """What the whole file says; ConfigError at the first bad value."""
    settings, peering = Settings(), PeerSettings()
    provider, mqtt = ProviderSettings(), MqttSettings()
    uplinks: list[Uplink] = []
    consumers: list[Consumer] = []
    pins: list[Pin] = []
    warnings: list[str] = []
    for section in sections:
        reader = Reader(CONFIG, section)
        if section.type == MAIN_TYPE:
            settings, peering = _parse_settings(reader), parse_mesh(reader)
            warnings += [
                f"{reader.where}.{option} has no effect any more: {instead}"
                for option, instead in RETIRED.items()
                if reader.items(option)
            ]
            warnings += [
                f"{reader.where}.trusted_peer names {quoted(each)}, which can't be a peer's id: it "
                f"must {PEER_ID['x-must']}"
                for each in sorted(settings.trusted_peers)
                if not re.fullmatch(PEER_ID["pattern"], each)
            ]
        elif section.type == UPLINK_TYPE:
            uplinks.append(_parse_uplink(reader))
        elif section.type == PROVIDER_TYPE:
            provider = parse_provider(reader)
        elif section.type == CONSUMER_TYPE:
            consumers.append(parse_consumer(reader))
        elif section.type == PIN_TYPE:
            pins.append(parse_pin(reader))
        elif section.type == MQTT_TYPE:
            mqtt = parse_mqtt(reader)
        else:
            warnings.append(f"{reader.where}: sections of type {section.type} are unknown")
            continue
        warnings += reader.unknown()
    refuse_repeated(((f"{CONFIG}.{u.interface}", u.peer_id) for u in uplinks), "peer_id")
    check_consumers(CONFIG, consumers)
    check_pins(CONFIG, pins)
    return Config(
        settings=settings,
        uplinks=tuple(uplinks),
        provider=provider,
        peering=_with_broker(peering, mqtt),
        consumers=tuple(consumers),
        pins=tuple(pins),
        mqtt=mqtt,
        warnings=tuple(warnings),
    )


def _with_broker(peering: PeerSettings, mqtt: MqttSettings) -> PeerSettings:
    if "mqtt" in peering.carriers and not mqtt.enabled:
        raise ConfigError(
            f"{CONFIG}.{MAIN_NAME}.carrier names mqtt: set enabled and host in a section "
            f"config {MQTT_TYPE} '{MQTT_NAME}'"
        )
    return replace(peering, carriers=peering.carriers | {"mqtt"}) if mqtt.enabled else peering


def _parse_settings(reader: Reader) -> Settings:
    settings = Settings(
        enabled=reader.flag("enabled", True),
        auto_failover=reader.flag("auto_failover", True),
        min_uplinks=reader.whole("min_uplinks", 2, 0, 60),
        check_interval_s=float(reader.whole("check_interval", 30, 1, 3600)),
        failover_timeout_s=float(reader.whole("failover_timeout", 10, 1, 3600)),
        prefer_latency=reader.flag("prefer_latency", True),
        profile_name=reader.choice("pace", "default", tuple(PROFILES)),
        hold_s=float(reader.whole("hold_time", 30, 0, 86400)),
        max_hold_s=float(reader.whole("max_hold_time", 1800, 0, 86400)),
        targets=reader.addresses("track_ip", DEFAULT_TARGETS),
        reliability=reader.whole("reliability", 0, 0, 20),
        trusted_peers=frozenset(reader.words("trusted_peer")),
        declined=frozenset(reader.words("declined")),
        lines=reader.words("wan"),
        policies=reader.words("policy"),
        resolvers=reader.addresses("dns", DEFAULT_RESOLVERS),
        captive_check=reader.matching(
            "captive_check", _PAGE, "the URL of a page that answers 204, and begin with http://"
        ),
    )
    sticky_s = reader.whole("sticky_time", 600, 1, 86400)
    settings = replace(
        settings,
        fail_closed=reader.flag("fail_closed", False),
        sticky_s=float(sticky_s if reader.flag("sticky_failback", False) else 0),
        max_loss=reader.whole("max_loss", 20, 0, 100) / 100,
        max_latency_s=reader.whole("max_latency", 0, 0, 60000) / 1000,
    )
    reader.flag("imported", False)  # asked for by older.py
    bound_s = settings.detection_bound_s()
    if bound_s > settings.failover_timeout_s:
        profile = settings.probe_profile
        raise ConfigError(
            f"{CONFIG}.{MAIN_NAME}.failover_timeout is {settings.failover_timeout_s:g} s, but pace "
            f"'{settings.profile_name}' needs {bound_s:.1f} s: {profile.interval_s:g} s to the "
            f"next probe, {bound_s - profile.interval_s - SWITCH_BOUND_S:.1f} s without an answer, "
            f"{SWITCH_BOUND_S:g} s to switch; raise failover_timeout or choose pace 'fast'"
        )
    return settings


def _parse_uplink(reader: Reader) -> Uplink:
    if not reader.name.startswith(TUNNEL_PREFIX) or len(reader.name) > NAME_LENGTH:
        raise ConfigError(
            f"{reader.where}: an uplink's section is named like its interface: {TUNNEL_PREFIX} and "
            f"up to {NAME_LENGTH - len(TUNNEL_PREFIX)} letters, digits or underscores"
        )
    peer_id = reader.needed("peer_id", reader.text("peer_id"), "names the mesh peer")
    key = reader.needed("public_key", reader.key("public_key"), "is the peer's")
    host = reader.needed(
        "endpoint_host", reader.text("endpoint_host"), "is where the peer is reached"
    )
    addresses = reader.words("address")
    return Uplink(
        peer_id=peer_id,
        interface=reader.name,
        endpoint=Endpoint(
            reader.checked("endpoint_host", host, parse_host),
            reader.whole("endpoint_port", 51820, 1, 65535),
        ),
        public_key=key,
        addresses=tuple(reader.checked("address", a, normal_address) for a in addresses),
        own_public_key=reader.text("own_public_key"),
        weight=reader.whole("weight", DEFAULT_WEIGHT, 1, 100),
        pending=reader.flag("pending", False),
        enabled=reader.flag("enabled", True),
        auto=reader.flag("auto", False),
        leased=reader.flag("leased", False),
        mtu=reader.whole("mtu", DEFAULT_MTU, LEAST_MTU, 1500),
        resolvers=reader.addresses("dns"),
        inbound=reader.flag("inbound", False),
        cost=_parse_cost(reader),
    )


def _parse_cost(reader: Reader) -> Cost | None:
    cost = Cost(
        reader.flag("metered", False),
        reader.decimal("quota_gb", 0.0, 1_000_000),
        reader.decimal("price_per_gb", 0.0, 1_000_000),
    )
    is_told = any(reader.text(option) for option in ("metered", "quota_gb", "price_per_gb"))
    return cost if is_told else None


def uplink_options(uplink: Uplink) -> dict[str, Value]:
    """The options of the uplink's own section, complete, as it is written."""
    options: dict[str, Value] = {
        "peer_id": uplink.peer_id,
        "endpoint_host": uplink.endpoint.host,
        "endpoint_port": str(uplink.endpoint.port),
        "public_key": uplink.public_key,
        "weight": str(uplink.weight),
    }
    if uplink.own_public_key:
        options["own_public_key"] = uplink.own_public_key
    if uplink.addresses:
        options["address"] = uplink.addresses
    if uplink.resolvers:
        options["dns"] = uplink.resolvers
    if uplink.mtu != DEFAULT_MTU:
        options["mtu"] = str(uplink.mtu)
    if uplink.cost is not None:
        options["metered"] = "1" if uplink.cost.metered else "0"
        prices = {"quota_gb": uplink.cost.quota_gb, "price_per_gb": uplink.cost.price_per_gb}
        options |= {option: plain_number(value) for option, value in prices.items() if value}
    if not uplink.enabled:
        options["enabled"] = "0"
    for option, is_set in (
        ("pending", uplink.pending),
        ("auto", uplink.auto),
        ("leased", uplink.leased),
        ("inbound", uplink.inbound),
    ):
        if is_set:
            options[option] = "1"
    return options
