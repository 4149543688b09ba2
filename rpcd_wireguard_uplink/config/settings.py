"""The whole configuration file as one frozen record, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field, replace
from typing import Any

from ..model import Uplink
from ..reasons import told_with
from ..uci import Section
from ..values import dataclass
from .options import Anchor, Consumer, MqttSettings, PeerSettings, Pin, ProviderSettings, Settings


@dataclass(frozen=True, slots=True)
class Fault:
    """What can't be used of the file and what follows, and the command that mends it, if any."""

    told: str
    mend: str = ""

    def __str__(self) -> str:
        return told_with(self.told, f": `{self.mend}` mends it") if self.mend else self.told


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
    anchors: tuple[Anchor, ...] = ()
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

    @property
    def peer_names(self) -> dict[str, str]:
        """The peers of the uplinks, by interface."""
        return {uplink.interface: uplink.peer_id for uplink in self.uplinks}

    def uplink_to(self, peer_id: str) -> Uplink | None:
        return next((uplink for uplink in self.uplinks if uplink.peer_id == peer_id), None)

    def with_settings(self, **changes: Any) -> Config:
        return replace(self, settings=replace(self.settings, **changes))

    def with_uplink(self, uplink: Uplink) -> Config:
        """The same with this uplink in the place of the one of its interface, or added."""
        found = {**{each.interface: each for each in self.uplinks}, uplink.interface: uplink}
        return replace(self, uplinks=tuple(found.values()))

    def without_uplink(self, interface: str) -> Config:
        return replace(self, uplinks=tuple(u for u in self.uplinks if u.interface != interface))

    def without_pins(self, names: Collection[str]) -> Config:
        return replace(self, pins=tuple(pin for pin in self.pins if pin.name not in names))

    def with_pin(self, pin: Pin) -> Config:
        """The same with this pin in the place of the one of its name, or added."""
        found = {**{each.name: each for each in self.pins}, pin.name: pin}
        return replace(self, pins=tuple(found.values()))
