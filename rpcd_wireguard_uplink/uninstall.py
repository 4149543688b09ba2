"""Takes back all that the service ever made on this machine, for a package that is removed.

It needs nothing that a service remembered: what is ours is told by its mark in UCI, by the names of
devices and nftables' tables, by the numbers of routing tables, packet marks and routing protocols.
Our own configuration and the keys stay, so that a later install makes the same uplinks again.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

from .config.options import Settings
from .errors import CommandFailed, UplinkError
from .model import DEVICE_GROUP, INBOUND, SLOT_MASK, Family
from .mwan3.sync import Keeper
from .platform.linux import Platform
from .platform.tunnels import NETWORK, plan_sections
from .provider.device import Provider
from .steering.plan import DIVERTING, STANDING, UNDERLAY_TABLE
from .steering.watchdog import ReversePath, Watchdog
from .system import nft
from .system.rtnetlink import Kernel, Route, Rule, delete_route, delete_rule

OUR_TABLES = range(UNDERLAY_TABLE, UNDERLAY_TABLE + 200)


async def take_back(platform: Platform, run_dir: str) -> list[str]:
    """Take everything back; a sentence for each part that could not be, the others go all the same.

    The service must not run: it would make all of it again. `run_dir` is steering's.
    """
    steps: tuple[tuple[str, Callable[[], Awaitable[None] | None]], ...] = (
        ("routing", lambda: remove_routing(platform.kernel)),
        ("the provider", lambda: _remove_provider(platform)),
        ("tunnels", lambda: _remove_tunnels(platform)),
        ("mwan3", lambda: Keeper(platform).apply((), Settings(), (), final=True)),
        ("nftables", remove_tables),
        ("connections", lambda: platform.connections.clear_bits(INBOUND | SLOT_MASK)),
        ("device groups", lambda: _reset_groups(platform.kernel)),
        ("the run folder", lambda: _remove_run_folder(run_dir)),
    )
    failed = []
    for what, step in steps:
        try:
            if (work := step()) is not None:
                await work
        except UplinkError as error:
            failed.append(f"{what}: {error}")
    return failed


async def _remove_provider(platform: Platform) -> None:
    await platform.remove_provider()
    await Provider(platform.kernel).remove()


async def _remove_tunnels(platform: Platform) -> None:
    plan = plan_sections((), (await platform.read(NETWORK)).sections)
    if plan:
        await platform.edit(NETWORK, plan.apply)
        await platform.reload_network()
    await platform.sync(())


def remove_routing(kernel: Kernel) -> None:
    """Our rules, our routing tables, and our routes in other tables."""
    for family in Family:
        gone = [delete_rule(rule) for rule in kernel.rules(family) if _is_ours(rule)]
        gone += [delete_route(route) for route in kernel.routes(family) if _is_ours(route)]
        kernel.change(gone)


def _is_ours(found: Rule | Route) -> bool:
    return found.table in OUR_TABLES or found.protocol in (STANDING, DIVERTING)


async def remove_tables() -> None:
    """Our tables of nftables."""
    for name in sorted(await nft.read_tables()):
        if name == "wgup" or name.startswith("wgup_"):
            await nft.delete_table("inet", name)


async def _remove_run_folder(run_dir: str) -> None:
    """What steering keeps for its next start; rp_filter has its values back then."""
    watchdog = Watchdog(run_dir)
    if why := ReversePath(watchdog.saved_path).loosen(()):
        raise CommandFailed(why)
    watchdog.end()
    shutil.rmtree(run_dir, ignore_errors=True)


def _reset_groups(kernel: Kernel) -> None:
    """Devices of the mesh are the owner's again."""
    for link in kernel.devices():
        if link.group == DEVICE_GROUP:
            kernel.set_device(link.name, group=0)
