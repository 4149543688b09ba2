"""Replies as text for people: sentences, and tables of the columns that replies.py declares.

A cell is shown by the unit in its member's name (`_ms`, `_s`, `_pct`, `_bytes`, `_gb`); a column
without anything in it is left out. Peers' words are in these replies, so that every cell and
sentence passes `printable` before it is shown.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..api import replies as r
from ..failover.selection import PAGE_MBIT, PAGE_ROUND_TRIPS, UNKNOWN_MBPS, UNKNOWN_MS
from ..model import ConsumerRow, HistoryEntry, TrustRow, is_key
from ..schema.record import Record
from ..text import printable

Reply = Mapping[str, Any]
_COLOURS = {
    **dict.fromkeys(("up", "primary", "trusted", "yes"), "32"),
    **dict.fromkeys(("suspect", "degraded", "holding", "connecting", "unbound"), "33"),
    **dict.fromkeys(("failed_over", "captive"), "33"),
    **dict.fromkeys(("down", "stranded", "changed"), "31"),
}
MINOR = (
    *("MOVED IN", "LASTED BEFORE", "FROM", "NOTICED IN", "IDENTITY", "MESH KEY", "MEASURED"),
    *("METRIC", "ANSWERED", "HANDSHAKE", "TODAY", "LOSS", "ADDRESS", "RECEIVED", "THIS MONTH"),
    *("MESH ADDRESS", "MBIT/S", "EXPECTED"),
)
"""Columns that a narrow terminal does without, the first ones first; `--json` has all."""
LEAST = 24  # characters of a sentence on a line
TOGETHER = timedelta(seconds=2)  # the families of one move are told so close to one another
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}


def render(method: str, reply: Reply, *, colour: bool = False) -> str:
    """Return what `wgctl` prints for a method's reply, with a line break at the end.

    Raises KeyError, TypeError or AttributeError where the reply is not what the table promises.
    """
    return "\n".join(_VIEWS.get(method, _message)(reply, colour)) + "\n"


# --- tables


def table(record: type[Record], rows: Iterable[Reply], colour: bool) -> Iterator[str]:
    yield from _aligned([_cells(record, row) for row in rows], [record], colour)


def _cells(record: type[Record], row: Reply) -> dict[str, str]:
    """A row's cells by the heads of their columns."""
    found: dict[str, list[str]] = {}
    for each in record.members.values():
        if each.column and (text := _cell(each.wire, row.get(each.wire))):
            found.setdefault(each.column, []).append(text)
    return {head: ", ".join(texts) for head, texts in found.items()}


def _cell(name: str, value: Any) -> str:
    """A value with the unit that its name ends in; '' for what is unknown or nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value[:8] if is_key(value) else value)
    if value is None or value < 0:
        return ""
    if name.endswith("_ms"):
        return milliseconds(value)
    if name.endswith("_s"):
        is_age = name.endswith("age_s") or name.startswith("last_")
        return duration(value) + (" ago" if is_age else "")
    if name.endswith("_pct"):
        return f"{value:g} %"
    if name.endswith("left_gb"):
        return f"{value:g} GB left"
    if name.endswith("per_gb") and value:
        return f"{value:g} a GB"
    if name.endswith("_bytes") and value:
        return size(value)
    return f"{value:g}" if value else ""


def _aligned(
    rows: list[dict[str, str]], records: Iterable[type[Record]], colour: bool
) -> Iterator[str]:
    """The lines, as wide as the terminal: what can be missed is left out, the last column wraps."""
    shown = [each for record in records for each in record.members.values() if each.column]
    last = {each.column for each in shown if each.is_last}
    heads = sorted(dict.fromkeys(each.column for each in shown), key=lambda head: head in last)
    heads = [head for head in heads if any(head in row for row in rows)]
    widths = {head: max(len(head), *(len(row.get(head, "-")) for row in rows)) for head in heads}
    room, wraps = shutil.get_terminal_size((80, 24)).columns, heads[-1] in last

    def left() -> int:
        """The room that the last column has."""
        return room - sum(widths[head] + 2 for head in heads[:-1])

    for head in MINOR:
        wanted = min(widths[heads[-1]], LEAST) if wraps else widths[heads[-1]]
        if head in (heads[:-1] if wraps else heads) and left() < wanted:
            heads.remove(head)
    at_most = max(LEAST, left()) if wraps else room
    for row in ({head: head for head in heads}, *rows):
        cells = [row.get(head, "-").ljust(widths[head]) for head in heads]
        if colour and row in rows:
            cells = [painted(cell) for cell in cells]
        first, *more = _wrapped(row.get(heads[-1], "-"), at_most)
        yield "  ".join([*cells[:-1], painted(first) if colour and row in rows else first]).rstrip()
        indent = " " * (room - left())
        yield from (f"{indent}{text}" for text in more)


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a sentence; a command in it stays on one, so that it can be copied."""
    whole = re.sub(r"`[^`]+`|wgctl .*", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines] or [""]


def painted(cell: str) -> str:
    """Return the cell in the colour of the state that it names, if it names one."""
    code = _COLOURS.get(cell.rstrip())
    return f"\x1b[{code}m{cell}\x1b[0m" if code else cell


def duration(seconds: float) -> str:
    """Return a time span in its largest unit: "12 s", "3 min", "2 h", "5 d"; "-" if unknown."""
    if seconds < 0:
        return "-"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def milliseconds(value: float) -> str:
    """Return a time in ms, below 100 with a decimal where it has one; "-" if unknown."""
    if value < 0:
        return "-"
    return f"{value:.{int(value < 100)}f}".removesuffix(".0") + " ms"


def size(number: float) -> str:
    for limit, divisor, unit in ((1e3, 1, "B"), (1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        if number < limit:
            return f"{number / divisor:.0f} {unit}"
    return f"{number / 1e9:.1f} GB"


def _gb(number: float) -> str:
    return f"{number:.0f} GB" if number >= 10 else size(number * 1e9)


# --- views


def _message(reply: Reply, _colour: bool) -> Iterator[str]:
    yield printable(reply["message"])


def _list(reply: Reply, colour: bool) -> Iterator[str]:
    if reply["offers"]:
        yield "Offers of mesh peers"
        yield from table(r.OfferRow, reply["offers"], colour)
    else:
        yield "No mesh peer offers its internet."
    yield ""
    if reply["uplinks"]:
        yield "Uplinks"
        yield from table(r.UplinkRow, reply["uplinks"], colour)
        yield from _notes(reply["uplinks"])
    else:
        yield "No uplinks are configured; `wgctl uplink add PEER` makes one."


def _notes(uplinks: Iterable[Reply]) -> Iterator[str]:
    for row in uplinks:
        if row["note"]:
            yield f"{printable(row['peer_id'])}: {printable(row['note'])}"


def _status(reply: Reply, colour: bool) -> Iterator[str]:
    cause = f": {printable(reply['cause'])}" if reply["cause"] else ""
    state = painted(printable(reply["state"])) if colour else printable(reply["state"])
    yield f"State     {state} for {duration(reply['since_s'])}{cause}"
    if reply["release_s"] >= 0:
        yield f"Failback  in {duration(reply['release_s'])}, if the WAN stays good"
    if by_hand := reply.get("by_hand"):
        chosen, left = printable(by_hand["path"]), duration(by_hand["left_s"])
        yield f"By hand   {chosen} for {left} more; `wgctl uplink use auto` ends it"
    worst = min(reply["families"].values(), key=lambda each: each["state"] != reply["state"])
    yield f"Traffic   {_way(worst)}"
    for name, family in reply["families"].items():
        silent = ", and nothing comes back" if family.get("carrying") is False else ""
        shown = _FAMILIES.get(name, printable(name))
        yield f"{shown:<10}{printable(family['state'])}, {_way(family)}{silent}"
    if not reply["enabled"]:
        yield "Failover  the service is switched off (option enabled)"
    elif reply["auto_failover"]:
        bound = reply["detection_bound_ms"] / 1000
        yield f"Failover  automatic; a dead WAN is noticed within {bound:g} s"
    else:
        yield "Failover  off; `wgctl uplink failover enable` turns it on"
    if reply["problems"]:
        yield from ("", "Problems")
        yield from (f"- {printable(problem)}" for problem in reply["problems"])
    wans, uplinks = reply["wans"] or [reply["primary"]], reply["uplinks"]
    rows = [_cells(r.WanHealth, row) for row in wans if row["path"]]
    rows += [_cells(r.UplinkHealth, row) for row in uplinks]
    if rows:
        yield ""
        yield from _aligned(rows, (r.WanHealth, r.UplinkHealth), colour)
    yield from _notes(uplinks)
    if anchors := reply.get("anchors"):
        yield ""
        yield from table(r.AnchorRow, anchors, colour)
    if reply["consumers"]:
        names = ", ".join(printable(row["peer_id"]) for row in reply["consumers"])
        yield f"Serves {names}; `wgctl uplink consumers` tells more."
    if reply["events"]:
        yield from ("", "Last changes")
        yield from _happened(reply["events"], colour)


def _way(family: Reply) -> str:
    """Where the family's traffic goes."""
    if family["state"] == "stranded":
        blocked = " (fail_closed blocks it)" if family.get("blocked") else ""
        return f"goes nowhere, since no path answers{blocked}"
    early = family.get("early_path")
    more = f", new connections by {printable(early)}, since the WAN is in doubt" if early else ""
    others = [printable(name) for name in family.get("spread", ()) if name != family["active_path"]]
    shared = f", shared with {', '.join(others)}" if others else ""
    return f"leaves by {printable(family['active_path']) or 'nothing'}{shared}{more}"


def _history(reply: Reply, colour: bool) -> Iterator[str]:
    if reply["events"]:
        yield from _happened(reply["events"], colour)
    else:
        yield "Nothing has happened yet."


def _happened(entries: Iterable[Reply], colour: bool) -> Iterator[str]:
    """A row for each change; the two families of one change are one row, without its peer twice."""
    rows: list[dict[str, str]] = []
    before: Reply = {}
    for entry in entries:
        is_same = all(before.get(name) == entry[name] for name in ("kind", "from", "to", "peer_id"))
        is_same = is_same and {before["family"], entry["family"]} == {"ipv4", "ipv6"}
        if is_same and abs(_time(before["at"]) - _time(entry["at"])) < TOGETHER:
            rows[-1]["FAMILY"], before = "both", {}
            continue
        row, before = _cells(HistoryEntry, entry), entry
        row["WHEN"] = _local(entry["at"])
        if entry["peer_id"] and entry["peer_id"].lower() in f"{entry['from']} {entry['to']}":
            row.pop("PEER", None)
        rows.append(row)
    yield from _aligned(rows, [HistoryEntry], colour)


def _time(at: str) -> datetime:
    """A time as this router's clock shows it; that of no entry where it can't be read."""
    try:
        return datetime.fromisoformat(at).astimezone()
    except ValueError:
        return datetime.fromtimestamp(0).astimezone()


def _local(at: str) -> str:
    then = _time(at)
    is_today = then.date() == datetime.now(then.tzinfo).date()
    return then.strftime("%H:%M:%S" if is_today else "%d %b %H:%M")


def _add(reply: Reply, colour: bool) -> Iterator[str]:
    yield from _message(reply, colour)
    yield from table(r.Added, [reply], colour)
    if not reply["leased"]:
        yield f"The peer must know this public key: {printable(reply['public_key'])}"
    yield from _notes([reply])


def _test(reply: Reply, _colour: bool) -> Iterator[str]:
    peer, path = printable(reply["peer_id"]), printable(reply["interface"])
    answered = f"{reply['received']} of {reply['sent']} probes to {printable(reply['target'])}"
    if reply["reachable"]:
        yield f"{peer} carries traffic: {answered} were answered through {path}"
        yield f"Round trip {milliseconds(reply['latency_ms'])}, {reply['loss_pct']:g} % lost"
        if reply["exit_address"]:
            yield f"The internet sees {printable(reply['exit_address'])}"
        return
    yield f"{peer} does not carry traffic: {answered} were answered through {path}"
    if reply["error"]:
        yield printable(reply["error"])
    age_s = reply["handshake_age_s"]
    yield f"Last handshake {duration(age_s)} ago" if age_s >= 0 else "There was no handshake yet"


def _explain(reply: Reply, colour: bool) -> Iterator[str]:
    for family in reply["families"]:
        yield printable(family["sentence"])
        yield from (
            printable(family[name])
            for name in ("cause", "note")
            if family[name] not in family["sentence"]
        )
        if family["candidates"]:
            yield from table(r.CandidateRow, family["candidates"], colour)
            yield from (f"- {printable(row['sentence'])}" for row in family["candidates"])
        yield ""
    if any(family["candidates"] for family in reply["families"]):
        yield f"A page load is {PAGE_MBIT / 8:g} MB in {PAGE_ROUND_TRIPS} round trips. An unknown"
        yield f"speed counts as {UNKNOWN_MBPS} Mbit/s, an unknown latency as {UNKNOWN_MS:g} ms."
    if reply["others"]:
        yield from ("", "No candidates")
        for row in reply["others"]:
            yield f"- {printable(row['peer_id'])}: {printable(row['reason'])}"


def _simulate(reply: Reply, _colour: bool) -> Iterator[str]:
    yield f"If {', '.join(map(printable, reply['fail']))} failed (nothing was touched):"
    yield from (printable(family["sentence"]) for family in reply["families"])


def _drill(reply: Reply, colour: bool) -> Iterator[str]:
    yield f"{printable(reply['message'])} The drill took {reply['took_s']:g} s."
    for drill in reply["drills"]:
        yield from ("", printable(drill["peer_id"]))
        yield from table(r.DrillStep, drill["steps"], colour)


def _offer(reply: Reply, colour: bool) -> Iterator[str]:
    yield from _message(reply, colour)
    yield from _own_offer(reply["offer"])
    if reply["note"]:
        yield printable(reply["note"])


def _own_offer(offer: Reply) -> Iterator[str]:
    state = "available" if offer["available"] else f"not available: {printable(offer['reason'])}"
    yield f"Offer      of {printable(offer['peer_id'])}, {state}"
    yield f"Endpoint   {printable(offer['endpoint']) or '-'}"
    speed = f"{offer['bandwidth_mbps']} Mbit/s" if offer["bandwidth_mbps"] else "speed not said"
    metered = ", metered" if offer["metered"] else ""
    wan = f"{printable(offer['wan_type'])}, " if offer["wan_type"] else ""
    yield f"WAN        {wan}{speed}, {milliseconds(offer['latency_ms'])}{metered}"
    limit = f"{offer['limit_mbps']} Mbit/s each" if offer["limit_mbps"] else "no limit"
    yield f"Consumers  {offer['consumers']} of {offer['max_consumers']}, {limit}"
    if offer["quota_gb"]:
        left, all_of_it = _gb(offer["quota_left_gb"]), _gb(offer["quota_gb"])
        yield f"Quota      {left} of {all_of_it} left this month"


def _consumers(reply: Reply, colour: bool) -> Iterator[str]:
    if reply["offering"]:
        yield from _own_offer(reply["offer"])
    else:
        yield "This router does not offer its internet; `wgctl uplink offer` does."
    if reply["consumers"]:
        yield ""
        yield from table(ConsumerRow, reply["consumers"], colour)
    if reply["refused"]:
        refused = (f"{row['count']} x {printable(row['code'])}" for row in reply["refused"])
        yield f"Refused: {', '.join(refused)}"


def _trust(reply: Reply, colour: bool) -> Iterator[str]:
    yield f"This router is {printable(reply['node_id'])}."
    if reply["peers"]:
        yield from table(TrustRow, reply["peers"], colour)
    else:
        yield "No mesh peer has been seen: no WireGuard device but the uplinks' own has a peer."


_VIEWS: Mapping[str, Callable[[Reply, bool], Iterator[str]]] = {
    "uplink_list": _list,
    "uplink_status": _status,
    "uplink_history": _history,
    "uplink_add": _add,
    "uplink_test": _test,
    "uplink_explain": _explain,
    "uplink_simulate": _simulate,
    "uplink_drill": _drill,
    "uplink_offer": _offer,
    "uplink_consumers": _consumers,
    "uplink_trust": _trust,
}
