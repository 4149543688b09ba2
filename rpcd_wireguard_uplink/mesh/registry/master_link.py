"""SecuBox's packages around us: master-link's approvals, secubox-p2p's peers, mirrornet's gossip.

Reads what they keep, from their files where those are and over the bus elsewhere, and hands out a
message by mirrornet's own command. What is read are claims and other packages' decisions, cut down
to valid values; what they are worth is trust.py's.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from ...errors import CallFailed, CommandFailed, Status
from ...reasons import because
from ...system import process
from ...system.files import read_names, read_or_tell, read_table
from .directory import Record, is_peer_id, plain_address
from .trust import APPROVED, Approval

REQUESTS = "/var/lib/secubox-master-link/requests"  # ML_REQUESTS_DIR, master-link.sh
TRUSTED_KEYS = "/etc/secubox/trusted_peers"  # TRUSTED_PEERS_DIR, factory.sh
PEERS_FILE = "/tmp/secubox-p2p-peers.json"  # noqa: S108 (secubox-p2p writes it)
MIRRORCTL = "/usr/sbin/mirrorctl"
# rpcd names the object after the plugin's file; master-link's own page calls the second name.
MASTER_LINK = ("luci.master-link", "luci.master_link")
MOST_RECORDS = 2000
SENDING_S = 15.0
WRITING_S = 0.2  # the scripts empty a file and then fill it

Table = Mapping[str, Any]
Problems = MutableMapping[str, str]
BusCall = Callable[[str, str], Awaitable[Mapping[str, Any]]]
_FINGERPRINT = re.compile(r"[A-Za-z0-9:._-]{1,128}")
_STATUSES = frozenset({"pending", "rejected", APPROVED})


async def read_approvals(
    call: BusCall | None = None,
    requests: str = REQUESTS,
    trusted_keys: str = TRUSTED_KEYS,
    problems: Problems | None = None,
) -> tuple[Approval, ...] | None:
    """master-link's records, one a fingerprint; None where there is no master-link.

    An approved peer's key file stands for its record where that is lost: records are on tmpfs.
    `call` is asked where the folder of records isn't there. `problems` gets a sentence for what
    somebody else has put there. Raises BusError or TimedOut where the bus has master-link and it
    doesn't answer; what was read before stays right then.
    """
    names = await asyncio.to_thread(_names, requests, ".json", problems)
    if names is None:
        listed = await _ask(call, MASTER_LINK, "peers")
        found = None if listed is None else parse_approvals(_rows(listed, "peers"))
    else:
        found = await _read_requests(requests, names, problems)
    lasting = await asyncio.to_thread(_names, trusted_keys, ".pub", problems)
    if found is None and lasting is None:
        return None
    kept = {name: Approval(name) for name in lasting or ()}
    return tuple({**kept, **(found or {})}.values())


def parse_approvals(rows: Iterable[Mapping[str, Any]]) -> dict[str, Approval]:
    """Records by fingerprint (ml_join_request, ml_join_approve, master-link.sh); a row without a
    usable fingerprint is skipped, an unknown status is told as unreadable.
    """
    found = {}
    for row in rows:
        fingerprint = _text(row, "fingerprint")
        if _FINGERPRINT.fullmatch(fingerprint):
            status = _text(row, "status")
            found[fingerprint] = Approval(
                fingerprint,
                _text(row, "hostname"),
                plain_address(_text(row, "address")),
                status if status in _STATUSES else "unreadable",
            )
    return found


async def _read_requests(
    folder: str, names: Iterable[str], problems: Problems | None
) -> dict[str, Approval]:
    """The records of these fingerprints; `unreadable` where one is damaged or tells another."""
    paths = {name: os.path.join(folder, name + ".json") for name in names}

    def read(known: Mapping[str, Table | None], told: Problems | None) -> dict[str, Table | None]:
        return {
            n: known.get(n) or read_or_tell(read_table, p, None, told) for n, p in paths.items()
        }

    tables = await asyncio.to_thread(read, {}, None)
    if None in tables.values():
        await asyncio.sleep(WRITING_S)
        tables = await asyncio.to_thread(read, tables, problems)
    found = parse_approvals(table for table in tables.values() if table is not None)
    return {name: found.get(name) or Approval(name, status="unreadable") for name in names}


async def read_records(
    call: BusCall | None = None, path: str = PEERS_FILE, problems: Problems | None = None
) -> tuple[Record, ...] | None:
    """secubox-p2p's peers, from its file or the bus; None where neither has any.

    `problems` gets a sentence where the file is not to be read. Raises BusError or TimedOut where
    the bus has it and it doesn't answer.
    """
    table: Table | None = await asyncio.to_thread(read_or_tell, read_table, path, None)
    if table is None:
        if await asyncio.to_thread(os.path.exists, path):
            await asyncio.sleep(WRITING_S)
        table = await asyncio.to_thread(read_or_tell, read_table, path, None, problems)
        table = table or await _ask(call, ("luci.secubox-p2p",), "get_peers")
    elif problems is not None:
        problems.pop(f"file {path}", None)
    return None if table is None else parse_records(_rows(table, "peers"))


def parse_records(rows: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    """Peers as register_self and add_peer of secubox-p2p write them, without this router itself.

    `wg_addresses` is text, with a comma or a line break between two.
    """
    found = []
    for row in rows:
        peer_id = _text(row, "id")
        if not is_peer_id(peer_id) or row.get("is_local") is True:
            continue
        listed = [_text(entry, "address") for entry in _rows(row, "addresses")]
        wireguard = _text(row, "wg_addresses").replace(",", " ").split()
        texts = [*wireguard, *listed, _text(row, "address")]
        addresses = dict.fromkeys(address for text in texts if (address := plain_address(text)))
        found.append(Record(peer_id, _text(row, "name"), tuple(addresses)))
    return tuple(found)


async def publish_gossip(message: Mapping[str, Any], mirrorctl: str = MIRRORCTL) -> bool:
    """Hand a message to mirrornet for all its peers; False where it is not installed.

    Its type becomes the envelope's, the whole of it the data (gossip_broadcast, gossip.sh). Raises
    CommandFailed where mirrornet has no peers, TimedOut where one of them keeps it waiting.
    """
    if not os.access(mirrorctl, os.X_OK):
        return False
    argv = [mirrorctl, "broadcast", str(message["type"]), json.dumps(message)]
    # process.run's own error would quote the message.
    done = await process.run(argv, timeout_s=SENDING_S, check=False)
    if done.returncode != 0:
        raise CommandFailed(because("nothing_sent"))
    return True


# --- reading what others write


async def _ask(call: BusCall | None, paths: Iterable[str], method: str) -> Mapping[str, Any] | None:
    """The reply of the first of these objects that is on the bus; None without any."""
    if call is None:
        return None
    for path in paths:
        try:
            return await call(path, method)
        except CallFailed as error:
            if error.status != Status.NOT_FOUND:
                raise
    return None


def _names(folder: str, ending: str, problems: Problems | None) -> list[str] | None:
    """The fingerprints that files of a folder are named by; None where it isn't there."""
    files = read_or_tell(read_names, folder, None, problems)
    if files is None:
        return None
    names = [name.removesuffix(ending) for name in files[:MOST_RECORDS] if name.endswith(ending)]
    return [name for name in names if _FINGERPRINT.fullmatch(name)]


def _rows(table: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = table.get(name)
    rows = rows[:MOST_RECORDS] if isinstance(rows, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value[:256] if isinstance(value, str) else ""
