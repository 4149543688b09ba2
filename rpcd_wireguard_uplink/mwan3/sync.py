"""Keeps mwan3 in step with the uplinks: its configuration, what runs of it, and its marks.

Does nothing where mwan3 isn't used: neither enabled at boot nor running. mwan3 is never started,
reloaded or restarted, and never told that a path is dead: it would get stuck there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import field, replace

from ..config.options import Settings
from ..errors import UplinkError
from ..model import Family, Uplink, is_marked, is_own_name
from ..platform.linux import Platform
from ..platform.netifd import running_instances
from ..platform.tunnels import SectionPlan
from ..reasons import because
from ..system import process
from ..system.files import read_or_tell, read_text
from ..uci import Draft, Section
from ..values import dataclass
from .dialect import ROUTE_MONITOR, admit_command, dismiss_command, diverted_marks, is_enabled
from .sections import MWAN3, NO_POLICY, Plan, Wanted, plan_mwan3, render, wanted_mwan3
from .status import View, read_view

DISMISS_S = 15.0  # it takes 0.4 s an interface, more on a slow router, and waits for procd's lock


@dataclass(slots=True)
class Keeper:
    """mwan3's part on one machine.

    `state_dir` is where mwan3 notes which interfaces are online, `track_dir` where its trackers do.
    Both may be there without it: its hotplug script makes the first even where it was never
    started (common.sh, mwan3_init).
    """

    platform: Platform
    state_dir: str = "/var/run/mwan3/iface_state"
    track_dir: str = "/var/run/mwan3track"
    used: bool = field(default=False, init=False)
    _rules_changed: bool = field(default=False, init=False)
    _families: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def installed(self) -> bool:
        return self.platform.name == "openwrt" and self.platform.signature(MWAN3) is not None

    async def look(self) -> bool:
        """Whether there is an mwan3 to keep in step; `used` keeps the answer.

        It may be stopped and enabled: then it takes its configuration in when it is started.
        """
        with contextlib.suppress(UplinkError):  # without a bus it is as it was
            enabled = self.installed and self.platform.is_enabled(MWAN3)
            self.used = enabled or (self.installed and await self._runs())
        return self.used

    async def is_wanted(self, settings: Settings) -> bool:
        """Whether mwan3 should know of our uplinks, which then need default routes."""
        return await self.look() and settings.auto_failover and settings.policies != (NO_POLICY,)

    async def _runs(self) -> bool:
        """Whether mwan3 was started; one that was not takes its configuration in when it is."""
        listed = await self.platform.call("service", "list", {"name": MWAN3})
        return any(name.startswith(ROUTE_MONITOR) for name in running_instances(listed, MWAN3))

    async def apply(
        self,
        uplinks: Sequence[Uplink],
        settings: Settings,
        devices: Sequence[str],
        *,
        final: bool,
        rebuild: bool = False,
    ) -> None:
        """Bring the configuration in step; without `final` only what is added.

        mwan3 must know of a tunnel's interface before netifd brings it up, and until mwan3 itself
        has let it go: that is when it makes and clears its rules. `devices` are the WANs'. With
        `rebuild` its running policies follow what was only changed, too.
        Raises ConfigError, and leaves the file as it is, where mwan3 can't do what is wanted.
        """
        if not self.installed:
            return
        uplinks = uplinks if await self.look() else ()
        wans = self._names(devices)

        def plan(found: Sequence[Section]) -> tuple[Wanted, Plan]:
            wanted = wanted_mwan3(found, uplinks, settings, wans)
            whole = plan_mwan3(wanted, found)
            if final:
                return wanted, whole
            return wanted, replace(whole, sections=SectionPlan(whole.sections.write, ()), leave=())

        def change(draft: Draft) -> None:
            plan(draft.sections)[1].apply(draft)

        found = (await self.platform.read(MWAN3)).sections
        wanted, todo = plan(found)
        if final:
            await self._dismiss({*_watched(found)} - {*_watched(wanted.sections)})
        if todo:
            await self.platform.edit(MWAN3, change)
            self._rules_changed |= _touches_rules(todo.sections, (*found, *wanted.sections))
        if final:
            await self._admit(wanted.sections, rebuild=rebuild)
            await self.platform.keep_rendered(render(wanted) if wanted.sections else "")

    async def _admit(self, sections: Sequence[Section], *, rebuild: bool) -> None:
        """Have a running mwan3 watch our interfaces and follow our rules, without a restart."""
        names = [name for name in _watched(sections) if not self._is_tracked(name)]
        rules = self._rules_changed
        if (names or rules or rebuild) and await self._runs():
            policies = [section.name for section in sections if section.type == "policy"]
            await process.run(admit_command(names, policies, rules=rules, rebuild=rebuild))
        self._rules_changed = False

    async def _dismiss(self, names: Collection[str]) -> None:
        """Have a running mwan3 let interfaces of ours go; what it can't goes at its next start."""
        with contextlib.suppress(UplinkError):
            if names and await self._runs():
                await process.run(dismiss_command(sorted(names)), timeout_s=DISMISS_S, check=False)

    async def marks(self, devices: Sequence[str]) -> tuple[int, ...]:
        """The marks of traffic that a diversion should lead away from a dead WAN."""
        if not await self.look():
            return (0,)
        found = (await self.platform.read(MWAN3)).sections
        self._families = {
            section.name: section.text("family", "ipv4")
            for section in found
            if section.type == "interface" and is_enabled(section)
        }
        return diverted_marks(found, self._names(devices))

    async def view(self) -> View | None:
        """What mwan3 itself says now; None where it is not used."""
        return await read_view(self.platform) if await self.look() else None

    def who_refuses(self, device: str, family: Family) -> str:
        """A sentence where mwan3 holds a WAN to be dead; its policies avoid it until it does not.

        Traffic that was given back meanwhile would be pinned to the tunnel by its connection.
        """
        for name in self.platform.interfaces_on(device):
            note = _read_note(os.path.join(self.state_dir, name))
            if note == "offline" and self._families.get(name) == family.value:
                return because("mwan3_offline", name)
        return ""

    def _names(self, devices: Sequence[str]) -> list[str]:
        return [name for device in devices for name in self.platform.interfaces_on(device)]

    def _is_tracked(self, interface: str) -> bool:
        pid = _read_note(os.path.join(self.track_dir, interface, "PID"))
        return pid.isdigit() and os.path.exists(f"/proc/{pid}")


def _watched(sections: Iterable[Section]) -> list[str]:
    """The names of our interfaces that mwan3 should use."""
    return [
        section.name
        for section in sections
        if section.type == "interface"
        and is_own_name(section.name)
        and is_marked(section.options)
        and is_enabled(section)
    ]


def _touches_rules(plan: SectionPlan, sections: Iterable[Section]) -> bool:
    changed = {*plan.remove, *(section.name for section in plan.write)}
    return any(s.name in changed and s.type in ("rule", "policy") for s in sections)


def _read_note(path: str) -> str:
    """What mwan3 notes in a file; '' where it is stopped, or does not watch the interface."""
    return read_or_tell(read_text, path, "").strip()
