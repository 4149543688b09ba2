"""The router's WANs: their devices by name, the order of default routes, and mwan3 beside us.

mwan3 is the lasting policy below our own steering: what is wrong with it becomes a warning and
stops nothing. A tunnel's default route must stay behind every WAN's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

from ..config.store import ConfigStore
from ..config.wan_names import WanNames
from ..errors import UplinkError
from ..model import DefaultRoute, Family, Uplink, is_own_name
from ..mwan3.sections import MWAN3
from ..mwan3.status import View
from ..mwan3.sync import Keeper
from ..platform.linux import Platform
from ..reasons import because
from ..system.nft import can_name
from ..text import quoted
from ..values import dataclass
from ..warnings import Warnings


@dataclass(eq=False, repr=False)
class Wans:
    """The WANs of one router. `mwan3_view` is what mwan3 said last, None without it."""

    _platform: Platform
    _store: ConfigStore
    _warnings: Warnings
    mwan3_view: View | None = None
    _names: WanNames = field(default_factory=WanNames)
    _mwan3_seen: object = None
    _mwan3_was_used: bool = False
    _mwan3_asked: int = 0

    def __post_init__(self) -> None:
        self.mwan3 = Keeper(self._platform)

    @property
    def named(self) -> tuple[str, ...]:
        """The devices that `list wan` means, best first; () where every WAN is watched."""
        return self._names.devices

    async def find_devices(self) -> bool:
        """Find the devices that `list wan` means; whether they are others than before."""
        names = self._store.current.settings.lines
        interfaces = await self._platform.read_interfaces() if names else {}
        links = [link.name for link in self._platform.kernel.devices()]
        is_changed = self._names.follow(names, interfaces, links)
        self._warnings.set("wan", self._names.problem)
        odd = ", ".join(quoted(device) for device in links if not can_name(device))
        self._warnings.set("device names", because("device_name", odd) if odd else "")
        return is_changed

    def default_routes(self) -> list[DefaultRoute]:
        return [r for family in Family for r in self._platform.kernel.default_routes(family)]

    def check_order(self) -> None:
        self._warnings.replace("order ", tunnels_ahead(self.default_routes()))

    def _devices(self) -> list[str]:
        found = {device for _, device in wan_routes(self.default_routes())}
        return [*self.named] or sorted(found)

    # --- mwan3

    @property
    def mwan3_changed(self) -> bool:
        """Whether mwan3's file was changed, or its use began or ended, since `look_at_mwan3`."""
        signature = self._platform.signature(MWAN3)
        return (signature, self.mwan3.used) != (self._mwan3_seen, self._mwan3_was_used)

    async def look_at_mwan3(self) -> None:
        """Note how mwan3 is configured, and whether it is used."""
        self._mwan3_seen = self._platform.signature(MWAN3)
        self._mwan3_was_used = await self.mwan3.look()

    async def apply_mwan3(
        self, uplinks: Sequence[Uplink], *, final: bool, rebuild: bool = False
    ) -> None:
        """Have mwan3 know these uplinks; see Keeper.apply."""
        if not self.mwan3.installed:
            return
        with self._warnings.catch("mwan3"):
            settings, devices = self._store.current.settings, self._devices()
            await self.mwan3.apply(uplinks, settings, devices, final=final, rebuild=rebuild)
        self._mwan3_seen = self._platform.signature(MWAN3)

    async def follow_mwan3(self) -> bool:
        """Ask mwan3 how it sees things, for status; whether it sees them otherwise than before.

        To be called when hotplug reports an interface, and now and then. Who comes while one asks
        is served by the next asking, so a burst of news costs two.
        """
        self._mwan3_asked += 1
        if self._mwan3_asked > 1:
            return False
        before, warned = self.mwan3_view, self._warnings.all()
        try:
            asked = 0
            while asked < self._mwan3_asked:
                asked = self._mwan3_asked
                self.mwan3_view = await self.mwan3.view()
                if self.mwan3_view is not None:  # without mwan3 no tunnel has a default route
                    self.check_order()
        finally:
            self._mwan3_asked = 0
        return (self.mwan3_view, self._warnings.all()) != (before, warned)

    async def diverted_marks(self) -> tuple[int, ...]:
        """The marks that traffic of the WANs can have; (0,) where mwan3 is not used."""
        if not self.mwan3.installed:
            return (0,)
        try:
            return await self.mwan3.marks(self._devices())
        except UplinkError as error:
            self._warnings.set("mwan3", str(error))
            return (0,)


def wan_routes(routes: Iterable[DefaultRoute]) -> set[tuple[Family, str]]:
    """The devices that the router reaches the internet by, without its tunnels."""
    return {(r.family, r.device) for r in routes if not is_own_name(r.device)}


def tunnels_ahead(routes: Sequence[DefaultRoute]) -> dict[str, str]:
    """Our devices whose default route is not behind every WAN's, each with a sentence.

    A family whose WANs have no route now has nothing to be behind.
    """
    ahead: dict[str, str] = {}
    for family in Family:
        wans = [r for r in routes if r.family is family and not is_own_name(r.device)]
        last = max(wans, key=lambda route: route.metric, default=None)
        for route in routes:
            if last is None or route.family is not family or not is_own_name(route.device):
                continue
            if route.metric <= last.metric:
                own, others = (route.device, route.metric), (last.device, last.metric)
                given = *own, *others, family.shown, last.device, last.device
                ahead[route.device] = because("tunnel_ahead", *given)
    return ahead
