"""The `ip` command: links, addresses, default routes, rules. Plain reads and batches; no policy.

Reading is JSON (`ip -j`). Changes of one family go as one batch, which is one process for any
number of lines.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import CommandFailed
from ..model import DefaultRoute, Family, Link
from . import process

MAIN = "main"


def _flag(family: Family) -> str:
    return f"-{family.version}"


async def _read(argv: Sequence[str], *, missing_ok: bool = False) -> list[dict[str, Any]]:
    """The rows that `ip` prints; with `missing_ok` none where it says that there is no such thing.

    What it prints and nobody understands is never taken for nothing.
    """
    done = await process.run(["ip", "-j", *argv], check=not missing_ok)
    text = done.stdout.strip()
    if not text or done.returncode != 0:
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"ip {' '.join(argv)} did not print JSON: is it ip-full?") from error
    with process.understood("ip"):
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TypeError("rows")
    return [row for row in rows if row]


async def read_links() -> list[Link]:
    """Every network device."""
    with process.understood("ip"):
        return [parse_link(row) for row in await _read(["link", "show"])]


def parse_link(row: Mapping[str, Any]) -> Link:
    """One row of `ip -j link show`; the group `default` is 0."""
    group = str(row.get("group", "0"))
    return Link(
        name=row["ifname"],
        index=row["ifindex"],
        group=int(group) if group.isdigit() else 0,
        alias=row.get("ifalias", ""),
        carrier="NO-CARRIER" not in row.get("flags", ()) and "UP" in row.get("flags", ()),
        mtu=int(row.get("mtu", 0)),
    )


async def read_addresses(device: str) -> list[str]:
    """The device's global addresses with their prefix lengths; [] where it is not there."""
    rows = await _read(["address", "show", "dev", device], missing_ok=True)
    with process.understood("ip"):
        return [address for row in rows for address in _global_addresses(row)]


def _global_addresses(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{info['local']}/{info['prefixlen']}"
        for info in row.get("addr_info", ())
        if info.get("scope") == "global" and "local" in info
    ]


async def set_addresses(device: str, wanted: Collection[str]) -> None:
    """Let the device have these global addresses (with prefix lengths) and no others."""
    found = await read_addresses(device)
    for family in Family:
        # Deleted first: a network's first address takes the later ones with it when it goes.
        lines = [f"address delete {a} dev {device}" for a in found if a not in wanted]
        lines += [f"address replace {a} dev {device}" for a in wanted]
        await batch(family, [line for line in lines if (":" in line) == (family is Family.IPV6)])


async def read_all_addresses() -> dict[str, list[str]]:
    """Every device's global addresses with their prefix lengths."""
    with process.understood("ip"):
        return {row["ifname"]: _global_addresses(row) for row in await _read(["address", "show"])}


async def read_neighbour(device: str, address: str) -> str:
    """The hardware address that a neighbour was seen to have; '' if it was not."""
    rows = await _read(["neighbour", "show", "to", address, "dev", device], missing_ok=True)
    return str(rows[0].get("lladdr", "")) if rows else ""


async def read_default_routes(family: Family, table: str = MAIN) -> list[DefaultRoute]:
    """The default routes of a table, lowest metric first; unreachable ones are left out."""
    # Where the table does not exist yet, or the family is off, there is none.
    words = [_flag(family), "route", "show", "default", "table", table]
    rows = await _read(words, missing_ok=True)
    with process.understood("ip"):
        found = [route for row in rows for route in parse_default_route(family, row)]
        return sorted(found, key=lambda route: route.metric)


def parse_default_route(family: Family, row: Mapping[str, Any]) -> list[DefaultRoute]:
    """One row of `ip -j route show default`; a multipath route is one entry a nexthop."""
    if row.get("type", "unicast") != "unicast":
        return []
    metric = int(row.get("metric", 0))
    hops = row.get("nexthops") or [row]
    routes = []
    for hop in hops:
        device = hop.get("dev")
        if device:
            gateway = hop.get("gateway") or (hop.get("via") or {}).get("host", "")
            routes.append(DefaultRoute(family, device, gateway, metric))
    return routes


async def read_routes() -> list[dict[str, Any]]:
    """The routes of all tables in both families as `ip -j route` prints them."""
    return await _read(["route", "show", "table", "all"])


async def read_rules(family: Family) -> list[dict[str, Any]]:
    """The policy rules as `ip -j rule` prints them; [] where the family is off."""
    return await _read([_flag(family), "rule", "show"], missing_ok=True)


async def read_all_routes(family: Family) -> list[dict[str, Any]]:
    """The routes of every table as `ip -j route` prints them."""
    return await _read([_flag(family), "route", "show", "table", "all"])


async def device_towards(address: str, mark: int) -> str:
    """The device that packets of that mark leave by towards an address; '' if there is none."""
    rows = await _read(["route", "get", address, "mark", hex(mark)], missing_ok=True)
    return str(rows[0].get("dev", "")) if rows else ""


async def has_route(address: str, source: str, device: str) -> bool:
    """Whether a packet that came in by that device from there would be sent on."""
    argv = ["ip", "route", "get", address, "from", source, "iif", device]
    return (await process.run(argv, check=False)).returncode == 0


async def batch(family: Family, lines: Sequence[str], *, force: bool = False) -> None:
    """Carry out `ip` commands of one family in order, in one process.

    With `force` a line that fails does not stop the ones behind it, and no error is raised:
    for deletions of what may be gone already.
    """
    if not lines:
        return
    argv = ["ip", _flag(family), *(["-force"] if force else []), "-batch", "-"]
    await process.run(argv, stdin="\n".join(lines) + "\n", check=not force)
