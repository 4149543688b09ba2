"""The `nft` command: scripts in one transaction, and the counters of a set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import CommandFailed
from . import process
from .netlink import Message, parse_attributes

EVENT_GROUPS = 1 << 6  # NFNLGRP_NFTABLES
_DELTABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_TABLE_NAME = 1
_HEADER = 4  # struct nfgenmsg


async def run_script(script: str) -> None:
    """Carry out nft commands as one transaction. Raises CommandFailed where nft refuses."""
    await process.run(["nft", "-f", "-"], stdin=script)


async def delete_table(family: str, name: str) -> None:
    """Delete a table; one that is not there is no error."""
    await process.run(["nft", "delete", "table", family, name], check=False)


def deletes_table(messages: Iterable[Message], name: str) -> bool:
    """Whether one of these events says that a table of that name is gone."""
    wanted = name.encode() + b"\0"
    return any(
        message.kind == _DELTABLE
        and dict(parse_attributes(message.body, _HEADER)).get(_TABLE_NAME) == wanted
        for message in messages
    )


async def read_set_counters(table: str, name: str) -> dict[str, int]:
    """Packets counted by each element of a set of device names; {} where there is no such set."""
    listed = await process.run(["nft", "-j", "list", "set", "inet", table, name], check=False)
    return parse_set_counters(listed.stdout) if listed.returncode == 0 else {}


def parse_set_counters(text: str) -> dict[str, int]:
    """Read `nft -j list set` of a set with a counter an element: element -> packets."""
    try:
        listed: list[dict[str, Any]] = json.loads(text)["nftables"]
        found = [entry["set"] for entry in listed if "set" in entry]
        elements = [element for each in found for element in each.get("elem", ())]
        inner = [e.get("elem", {}) for e in elements if isinstance(e, dict)]
        return {e["val"]: int(e.get("counter", {}).get("packets", 0)) for e in inner if "val" in e}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CommandFailed("nft did not print the JSON that was asked for") from error
