"""Keeps /etc/config/mwan3 in line with the uplinks, and the lane's marks in line with it.

Does nothing where mwan3 isn't installed. What it should hold is mwan3.py's business. Never has
mwan3 reload or restart, and never tells it that a path is dead: it would get stuck there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .. import process
from ..config import Settings
from ..model import Uplink
from ..platform import Platform
from ..reconcile import SectionPlan
from ..uci import Draft, Section
from .mwan3 import MWAN3, Plan, Wanted, carry_out, plan_mwan3, render, wanted_mwan3
from .mwan3_words import lane_marks, rebuild_command

REBUILD_S = 10.0  # it takes 0.14 s, but waits for procd's lock


@dataclass(frozen=True, slots=True)
class Keeper:
    """mwan3's part on one machine. `state_dir` is where mwan3 notes which interfaces are online."""

    platform: Platform
    state_dir: str = "/var/run/mwan3/iface_state"

    @property
    def installed(self) -> bool:
        """Whether there is an mwan3 to keep in line."""
        return self.platform.name == "openwrt" and self.platform.signature(MWAN3) is not None

    async def apply(
        self, uplinks: Sequence[Uplink], settings: Settings, devices: Sequence[str], *, final: bool
    ) -> None:
        """Bring the configuration in line; without `final` only what is added.

        mwan3 must know of a tunnel's interface before netifd brings it up, and still when netifd
        takes it down: that is when it makes and clears its rules. `devices` are the lines'.
        Raises ConfigError, and leaves the file as it is, where mwan3 can't do what is wanted.
        """
        if not self.installed:
            return
        lines = self._lines(devices)

        def plan(found: Sequence[Section]) -> tuple[Wanted, Plan]:
            wanted = wanted_mwan3(found, uplinks, settings, lines)
            whole = plan_mwan3(wanted, found)
            if final:
                return wanted, whole
            return wanted, replace(whole, sections=SectionPlan(whole.sections.write, ()), leave=())

        def change(draft: Draft) -> None:
            carry_out(plan(draft.sections)[1], draft)

        wanted, todo = plan((await self.platform.read(MWAN3)).sections)
        if todo:
            await self.platform.edit(MWAN3, change)
        if final:
            await self.platform.keep_rendered(render(wanted) if wanted.sections else "")

    async def marks(self, devices: Sequence[str]) -> tuple[int, ...]:
        """The marks of traffic that the lane should lead away from a dead line."""
        if not self.installed:
            return (0,)
        return lane_marks((await self.platform.read(MWAN3)).sections, self._lines(devices))

    async def rebuild(self, devices: Sequence[str]) -> None:
        """Have mwan3 build its policies anew, by way of a line that it holds to be online."""
        if not self.installed:
            return
        for device in devices:
            for name in self.platform.interfaces_on(device):
                if self._is_online(name):
                    await process.run(rebuild_command(name, device), timeout_s=REBUILD_S)
                    return

    def _lines(self, devices: Sequence[str]) -> list[str]:
        return [name for device in devices for name in self.platform.interfaces_on(device)]

    def _is_online(self, interface: str) -> bool:
        try:
            with open(os.path.join(self.state_dir, interface), encoding="ascii") as file:
                return file.read().strip() == "online"
        except (OSError, ValueError):
            return False  # mwan3 is stopped, or does not watch it
