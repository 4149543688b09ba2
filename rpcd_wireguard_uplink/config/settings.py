"""The settings of /etc/config/wireguard-uplink, as frozen records; options.py explains each."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from ..model import Family, Uplink
from ..uci import Section
from .options import (
    DEFAULT_RESOLVERS,
    DEFAULT_TARGETS,
)
from .peering import Consumer, MqttSettings, PeerSettings, Pin, ProviderSettings
from .probe_profile import PROFILES, ProbeProfile

SWITCH_BOUND_S = 0.3  # from the verdict to the moved traffic, with room for a slow router
R = TypeVar("R")


@dataclass(frozen=True)  # no slots: what is derived is kept
class Settings:
    """What the main section says but for the mesh; options.py says what each option means."""

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
    sticky_failback: bool = False
    sticky_time_s: float = 600.0
    max_loss: float = 0.2
    max_latency_s: float = 0.0
    imported: bool = False

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

    def detection_bound_s(self, timeout_s: float | None = None) -> float:
        """The longest time from a silent death to moved traffic, while the WAN is used.

        `timeout_s` is how long an answer is waited for now; without it the longest that the profile
        allows, on the slowest WAN.
        """
        profile = self.probe_profile
        return profile.detection_bound_s(timeout_s or profile.timeout_cap_s) + SWITCH_BOUND_S

    def targets_of(self, family: Family) -> tuple[str, ...]:
        """The probe targets of one family."""
        return tuple(t for t in self.targets if ipaddress.ip_address(t).version == family.version)


@dataclass(frozen=True, slots=True)
class Fault:
    """What can't be used of the file and what follows, and the command that mends it, if any."""

    told: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.told}: `{self.mend}` mends it" if self.mend else self.told


@dataclass(frozen=True, slots=True)
class Config:
    """All that the file says. `peering.carriers` names mqtt exactly where `mqtt` is enabled.

    `faults` are what could not be used, `unknown` sentences about options that nobody knows.
    `names` are all sections' in the file, those left out too; `good` is what was good of each, and
    where it is not, what was good last.
    """

    settings: Settings = field(default_factory=Settings)
    uplinks: tuple[Uplink, ...] = ()
    provider: ProviderSettings = field(default_factory=ProviderSettings)
    peering: PeerSettings = field(default_factory=PeerSettings)
    consumers: tuple[Consumer, ...] = ()
    pins: tuple[Pin, ...] = ()
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    faults: tuple[Fault, ...] = ()
    unknown: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    good: tuple[Section, ...] = field(default=(), repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything that the owner should hear about the file."""
        return (*map(str, self.faults), *self.unknown)

    @property
    def has_made(self) -> bool:
        """Whether anything exists because of this configuration: tunnels, leases, trust."""
        return bool(self.uplinks or self.consumers or self.pins or self.provider.enabled)

    @property
    def wanted_uplinks(self) -> tuple[Uplink, ...]:
        """The uplinks whose tunnels should be there."""
        return tuple(u for u in self.uplinks if u.enabled) if self.settings.enabled else ()

    def uplink_to(self, peer_id: str) -> Uplink | None:
        """The uplink to a peer, if there is one."""
        return next((uplink for uplink in self.uplinks if uplink.peer_id == peer_id), None)

    def with_settings(self, **changes: Any) -> Config:
        """The same with other values of the main section."""
        return replace(self, settings=replace(self.settings, **changes))

    def with_uplink(self, uplink: Uplink) -> Config:
        """The same with this uplink in the place of the one of its interface, or added."""
        return replace(self, uplinks=_replaced(self.uplinks, uplink, lambda one: one.interface))

    def without_uplink(self, interface: str) -> Config:
        """The same without the uplink of that interface."""
        return replace(self, uplinks=tuple(u for u in self.uplinks if u.interface != interface))

    def without_pins(self, names: Collection[str]) -> Config:
        """The same without the pins of these names."""
        return replace(self, pins=tuple(pin for pin in self.pins if pin.name not in names))

    def with_pin(self, pin: Pin) -> Config:
        """The same with this pin in the place of the one of its name, or added."""
        return replace(self, pins=_replaced(self.pins, pin, lambda one: one.name))


def _replaced(records: Sequence[R], record: R, name_of: Callable[[R], str]) -> tuple[R, ...]:
    found = {name_of(one): one for one in records}
    return tuple({**found, name_of(record): record}.values())
