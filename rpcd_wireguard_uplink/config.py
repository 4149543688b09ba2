"""The sections of /etc/config/wireguard-uplink as typed settings, and back.

Reads no files and applies nothing. A bad value raises ConfigError with section, option and value;
the caller keeps the last good settings in force. Unknown options are collected as warnings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .endpoints import parse_host
from .errors import ConfigError, InvalidArgument
from .health import DEFAULT_PACE, FAST_PACE, Pace
from .model import (
    DEFAULT_WEIGHT,
    NAME_LENGTH,
    TUNNEL_PREFIX,
    Endpoint,
    Family,
    Uplink,
    is_key,
    normal_address,
)
from .uci import Section

CONFIG = "wireguard-uplink"
MAIN_TYPE = "wireguard-uplink"
MAIN_NAME = "uplink"
UPLINK_TYPE = "uplink"
SWITCH_BOUND_S = 0.3  # from the verdict to the moved traffic, with room for a slow router
PACES: Mapping[str, Pace] = {"default": DEFAULT_PACE, "fast": FAST_PACE}
DEFAULT_TARGETS = (
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2620:fe::fe",
)
DEFAULT_RESOLVERS = ("1.1.1.1", "2606:4700:4700::1111")

Options = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the main section says. Times in seconds; the specification's sample values are default.

    `min_uplinks` and `prefer_latency` steer the choice, `lines` names the WAN devices in order of
    preference ('' for all that have a default route), `targets` are what probes are sent to,
    `policies` names mwan3's policies to join ('none' for no part in mwan3).
    """

    enabled: bool = True
    auto_failover: bool = True
    min_uplinks: int = 2
    check_interval_s: float = 30.0
    failover_timeout_s: float = 10.0
    prefer_latency: bool = True
    pace_name: str = "default"
    hold_s: float = 30.0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    trusted_peers: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = DEFAULT_RESOLVERS

    @property
    def pace(self) -> Pace:
        """The named pace, its timeouts cut so that detection and switch keep `failover_timeout`."""
        pace = PACES[self.pace_name]
        room_s = self.failover_timeout_s - SWITCH_BOUND_S
        spent_s = pace.idle_interval_s + pace.confirm_s
        cap_s = min(pace.timeout_cap_s, max(pace.timeout_floor_s, room_s - spent_s))
        # A silence counts anew once evidence is no longer believed.
        evidence_s = max(0.0, room_s - pace.silence_s)
        return replace(pace, timeout_cap_s=cap_s, evidence_limit_s=evidence_s)

    def detection_bound_s(self, timeout_s: float | None = None) -> float:
        """The longest time from a silent death to moved traffic, while the line is used.

        `timeout_s` is how long an answer is waited for now; without it the longest that the pace
        allows, on the slowest line.
        """
        pace = self.pace
        return pace.detection_bound_s(timeout_s or pace.timeout_cap_s) + SWITCH_BOUND_S

    def targets_of(self, family: Family) -> tuple[str, ...]:
        """The probe targets of one family."""
        return tuple(t for t in self.targets if ipaddress.ip_address(t).version == family.version)


@dataclass(frozen=True, slots=True)
class Config:
    """All that the file says: settings, uplinks, and warnings for what was not understood."""

    settings: Settings = field(default_factory=Settings)
    uplinks: tuple[Uplink, ...] = ()
    warnings: tuple[str, ...] = ()


class _Reader:
    """Reads one section's options by type; knows which it was asked for."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._asked: set[str] = set()

    def _bad(self, option: str, value: str, want: str) -> ConfigError:
        return ConfigError(
            f"{CONFIG}.{self._section.name}.{option} is '{value[:40]}': it must be {want}"
        )

    def text(self, option: str, default: str = "") -> str:
        """A single value; of a list the last, as libuci's lookup would not give any."""
        self._asked.add(option)
        value = self._section.options.get(option, default)
        if isinstance(value, tuple):
            raise self._bad(option, " ".join(value), "an option, not a list")
        return value

    def flag(self, option: str, default: bool) -> bool:
        value = self.text(option, "1" if default else "0").lower()
        if value in ("1", "on", "true", "yes", "enabled"):
            return True
        if value in ("0", "off", "false", "no", "disabled"):
            return False
        raise self._bad(option, value, "1 or 0")

    def whole(self, option: str, default: int, low: int, high: int) -> int:
        value = self.text(option, str(default))
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
        if not low <= number <= high:
            raise self._bad(option, value, f"a whole number from {low} to {high}")
        return number

    def choice(self, option: str, default: str, allowed: Iterable[str]) -> str:
        value = self.text(option, default)
        if value not in allowed:
            raise self._bad(option, value, "one of " + ", ".join(allowed))
        return value

    def words(self, option: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        self._asked.add(option)
        value = self._section.options.get(option)
        if value is None:
            return default
        return tuple(value.split()) if isinstance(value, str) else value

    def addresses(self, option: str, default: tuple[str, ...]) -> tuple[str, ...]:
        values = self.words(option, default)
        for value in values:
            try:
                ipaddress.ip_address(value)
            except ValueError as error:
                raise self._bad(option, value, "an IPv4 or IPv6 address") from error
        return values

    def unknown(self) -> list[str]:
        """A warning for each option that nobody asked for."""
        return [
            f"{CONFIG}.{self._section.name}.{option} is not an option of this service"
            for option in self._section.options
            if option not in self._asked
        ]


def parse_config(sections: Iterable[Section]) -> Config:
    """Settings, uplinks and warnings of the whole file; ConfigError at the first bad value."""
    settings = Settings()
    uplinks: list[Uplink] = []
    warnings: list[str] = []
    for section in sections:
        reader = _Reader(section)
        if section.type == MAIN_TYPE:
            settings = _parse_settings(reader)
        elif section.type == UPLINK_TYPE:
            uplinks.append(_parse_uplink(reader, section))
        else:
            warnings.append(f"{CONFIG}.{section.name}: sections of type {section.type} are unknown")
            continue
        warnings += reader.unknown()
    _check_unique(uplinks)
    return Config(settings, tuple(uplinks), tuple(warnings))


def _parse_settings(reader: _Reader) -> Settings:
    settings = Settings(
        enabled=reader.flag("enabled", True),
        auto_failover=reader.flag("auto_failover", True),
        min_uplinks=reader.whole("min_uplinks", 2, 0, 60),
        check_interval_s=float(reader.whole("check_interval", 30, 1, 3600)),
        failover_timeout_s=float(reader.whole("failover_timeout", 10, 1, 3600)),
        prefer_latency=reader.flag("prefer_latency", True),
        pace_name=reader.choice("pace", "default", tuple(PACES)),
        hold_s=float(reader.whole("hold_time", 30, 0, 86400)),
        targets=reader.addresses("track_ip", DEFAULT_TARGETS),
        trusted_peers=frozenset(reader.words("trusted_peer")),
        lines=reader.words("wan"),
        policies=reader.words("policy"),
        resolvers=reader.addresses("dns", DEFAULT_RESOLVERS),
    )
    reader.flag("imported", False)  # asked for by older.py
    bound_s = settings.detection_bound_s()
    if bound_s > settings.failover_timeout_s:
        pace = settings.pace
        raise ConfigError(
            f"{CONFIG}.{MAIN_NAME}.failover_timeout is {settings.failover_timeout_s:g} s, but pace "
            f"'{settings.pace_name}' needs {bound_s:.1f} s: {pace.interval_s:g} s to the next "
            f"probe, {bound_s - pace.interval_s - SWITCH_BOUND_S:.1f} s without an answer, "
            f"{SWITCH_BOUND_S:g} s to switch; raise failover_timeout or choose pace 'fast'"
        )
    return settings


def _parse_uplink(reader: _Reader, section: Section) -> Uplink:
    where = f"{CONFIG}.{section.name}"
    if not section.name.startswith(TUNNEL_PREFIX) or len(section.name) > NAME_LENGTH:
        raise ConfigError(
            f"{where}: an uplink's section is named like its interface: {TUNNEL_PREFIX} and up to "
            f"{NAME_LENGTH - len(TUNNEL_PREFIX)} letters, digits or underscores"
        )
    peer_id = reader.text("peer_id")
    if not peer_id:
        raise ConfigError(f"{where}.peer_id is missing: it names the mesh peer")
    key = reader.text("public_key")
    if not is_key(key):
        raise ConfigError(f"{where}.public_key is not a WireGuard key (32 bytes in base64)")
    host = reader.text("endpoint_host")
    if not host:
        raise ConfigError(f"{where}.endpoint_host is missing: it is where the peer is reached")
    try:
        host = parse_host(host)
        addresses = tuple(normal_address(a) for a in reader.words("address"))
    except InvalidArgument as error:
        raise ConfigError(f"{where}: {error}") from error
    return Uplink(
        peer_id=peer_id,
        interface=section.name,
        endpoint=Endpoint(host, reader.whole("endpoint_port", 51820, 1, 65535)),
        public_key=key,
        addresses=addresses,
        own_public_key=reader.text("own_public_key"),
        weight=reader.whole("weight", DEFAULT_WEIGHT, 1, 100),
        pending=reader.flag("pending", False),
        enabled=reader.flag("enabled", True),
    )


def _check_unique(uplinks: Iterable[Uplink]) -> None:
    seen: dict[str, str] = {}
    for uplink in uplinks:
        if uplink.peer_id in seen:
            raise ConfigError(
                f"{CONFIG}.{uplink.interface} and {CONFIG}.{seen[uplink.peer_id]} are both for "
                f"peer {uplink.peer_id[:40]}: remove one"
            )
        seen[uplink.peer_id] = uplink.interface


def uplink_options(uplink: Uplink) -> dict[str, str | tuple[str, ...]]:
    """The options of the uplink's own section, complete, as it is written."""
    options: dict[str, str | tuple[str, ...]] = {
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
    if not uplink.enabled:
        options["enabled"] = "0"
    if uplink.pending:
        options["pending"] = "1"
    return options
