"""Takes back all that the service ever made on this machine, for a package that is removed.

It needs nothing that a service remembered: what is ours is told by its mark in UCI, by the names of
devices and nftables' tables, by the numbers of routing tables, packet marks and routing protocols.
Our own configuration and the keys stay, so that a later install makes the same uplinks again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from .config.options import Settings
from .errors import CommandFailed, UplinkError
from .model import DEVICE_GROUP, OUTER_MARK, Family
from .mwan3.sync import Keeper
from .platform.protocol import Platform
from .platform.tunnels import NETWORK, plan_sections
from .provider.device import Provider
from .steering.plan import DIVERTING, STANDING, UNDERLAY_TABLE
from .steering.watchdog import ReversePath, Watchdog
from .system import iproute, process

OUR_TABLES = range(UNDERLAY_TABLE, UNDERLAY_TABLE + 200)
OUR_MARKS = (OUTER_MARK, 0x01000000)  # of rules of releases before those had a protocol number
OUR_PROTOCOLS = (str(STANDING), str(DIVERTING))


async def take_back(platform: Platform, run_dir: str) -> list[str]:
    """Take everything back; a sentence for each part that could not be, the others go all the same.

    The service must not run: it would make all of it again. `run_dir` is steering's.
    """
    steps: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("routing", remove_routing),
        ("the provider", lambda: _remove_provider(platform)),
        ("tunnels", lambda: _remove_tunnels(platform)),
        ("mwan3", lambda: Keeper(platform).apply((), Settings(), (), final=True)),
        ("nftables", remove_tables),
        ("device groups", _reset_groups),
        ("the run folder", lambda: _remove_run_folder(run_dir)),
    )
    failed = []
    for what, step in steps:
        try:
            await step()
        except UplinkError as error:
            failed.append(f"{what}: {error}")
    return failed


async def _remove_provider(platform: Platform) -> None:
    await platform.remove_provider()
    await Provider().remove()


async def _remove_tunnels(platform: Platform) -> None:
    plan = plan_sections((), (await platform.read(NETWORK)).sections)
    if plan:
        await platform.edit(NETWORK, plan.apply)
        await platform.reload_network()
    await platform.sync(())


async def remove_routing() -> None:
    """Our rules, our routing tables, and our routes in other tables."""
    for family in Family:
        lines = rule_deletions(await iproute.read_rules(family))
        lines += route_deletions(await iproute.read_all_routes(family))
        lines += [f"route flush table all protocol {number}" for number in OUR_PROTOCOLS]
        await iproute.batch(family, lines, force=True)


def rule_deletions(rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines for `ip -batch` that delete our rules among those that `ip -j rule` printed."""
    lines = []
    for rule in rules:
        table, mark = str(rule.get("table", "")), str(rule.get("fwmark", ""))
        is_ours = (
            (table.isdigit() and int(table) in OUR_TABLES)
            or str(rule.get("protocol", "")) in OUR_PROTOCOLS
            or (mark != "" and int(mark, 16) in OUR_MARKS)
        )
        if is_ours:
            mask = f"/{rule['fwmask']}" if "fwmask" in rule else ""
            selectors = [f"fwmark {mark}{mask}"] if mark else []
            selectors += [f"{name} {rule[name]}" for name in ("iif", "oif") if name in rule]
            selectors += [f"lookup {table}"] if table else []
            protocol = str(rule.get("protocol", ""))
            selectors += [f"protocol {protocol}"] if protocol in OUR_PROTOCOLS else []
            lines.append(" ".join(["rule del pref", str(rule["priority"]), *selectors]))
    return lines


def route_deletions(routes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines for `ip -batch` that empty our tables of what `ip -j route show table all` printed.

    IPv6's routes without a way are not flushed with their table (iproute.c, print_route).
    """
    ours = [r for r in routes if (t := str(r.get("table", ""))).isdigit() and int(t) in OUR_TABLES]
    pathless = [route for route in ours if route.get("type", "unicast") != "unicast"]
    lines = [
        f"route del {r['type']} {r['dst']} table {r['table']} metric {r.get('metric', 0)}"
        for r in pathless
    ]
    tables = dict.fromkeys(route["table"] for route in ours)
    return [*lines, *(f"route flush table {table}" for table in tables)]


async def remove_tables() -> None:
    """Our tables of nftables."""
    listed = json.loads((await process.run(["nft", "-j", "list", "tables"])).stdout or "{}")
    for row in listed.get("nftables", ()):
        table = row.get("table", {})
        name = str(table.get("name", ""))
        if name == "wgup" or name.startswith("wgup_"):
            await process.run(["nft", "delete", "table", table["family"], name], check=False)


async def _remove_run_folder(run_dir: str) -> None:
    """What steering keeps for its next start; rp_filter has its values back then."""
    watchdog = Watchdog(run_dir)
    if why := ReversePath(watchdog.saved_path).loosen(()):
        raise CommandFailed(why)
    watchdog.end()
    shutil.rmtree(run_dir, ignore_errors=True)


async def _reset_groups() -> None:
    """Devices of the mesh are the owner's again."""
    for link in await iproute.read_links():
        if link.group == DEVICE_GROUP:
            await process.run(["ip", "link", "set", "dev", link.name, "group", "default"])
