"""Replies of the service as plain text for people: aligned tables and sentences.

Owns what is shown of which reply; columns.py lays it out. Knows nothing of the bus or the command
line. What a peer has said is in these replies, so that every cell passes `quoting.printable`
before it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..text import printable
from . import choice_tables
from .columns import aligned, duration, milliseconds, painted

Reply = Mapping[str, Any]


def render(method: str, reply: Reply, *, colour: bool = False) -> str:
    """Return what `wgctl` prints for a method's reply, with a line break at the end.

    Raises KeyError, TypeError or AttributeError where the reply is not what the table promises.
    """
    return "\n".join(_VIEWS.get(method, _message)(reply, colour)) + "\n"


def _list(reply: Reply, colour: bool) -> Iterator[str]:
    offers, uplinks = reply["offers"], reply["uplinks"]
    if offers:
        yield "Offers of mesh peers"
        yield from aligned(
            ("PEER", "OFFER", "LINE", "MBIT/S", "LATENCY", "ENDPOINT", "RECEIVED"),
            [
                (
                    row["peer_id"],
                    "usable" if row["usable"] else str(row["reason"]),
                    row["wan_type"] or "-",
                    str(row["bandwidth_mbps"] or "-"),
                    milliseconds(row["latency_ms"]),
                    row["endpoint"] or "-",
                    f"{duration(row['age_s'])} ago",
                )
                for row in offers
            ],
            colour=colour,
        )
    else:
        yield "No mesh peer offers its internet."
    yield ""
    if not uplinks:
        yield "No uplinks are configured; `wgctl uplink add PEER_ID` makes one."
        return
    yield "Uplinks"
    yield from aligned(
        ("PEER", "INTERFACE", "WEIGHT", "STATE", "TRAFFIC", "ADDRESS", "ENDPOINT"),
        [
            (
                row["peer_id"],
                row["interface"],
                str(row["weight"]),
                row["state"],
                "yes" if row["active"] else "no",
                row["address"] or row["address6"] or "-",
                row["endpoint"] or "-",
            )
            for row in uplinks
        ],
        colour=colour,
    )
    yield from _notes(uplinks)


def _status(reply: Reply, colour: bool) -> Iterator[str]:
    cause = f": {printable(reply['cause'])}" if reply["cause"] else ""
    state = painted(printable(reply["state"])) if colour else printable(reply["state"])
    yield f"State     {state} for {duration(reply['since_s'])}{cause}"
    if reply["release_s"] >= 0:
        yield f"Failback  in {duration(reply['release_s'])}, if the line stays good"
    yield f"Traffic   leaves by {_path(reply)}"
    for name, family in reply["families"].items():
        shown = {"ipv4": "IPv4", "ipv6": "IPv6"}.get(name, printable(name))
        silent = ", and nothing comes back" if family.get("carrying") is False else ""
        yield f"{shown:<10}{printable(family['state'])}, leaves by {_path(family)}{silent}"
    if not reply["enabled"]:
        yield "Failover  the service is switched off (option enabled)"
    elif reply["auto_failover"]:
        bound = reply["detection_bound_ms"] / 1000
        yield f"Failover  automatic; a dead line is noticed within {bound:g} s"
    else:
        yield "Failover  off; `wgctl uplink failover enable` turns it on"
    yield ""
    yield from _paths(reply, colour)
    yield from _notes(reply["uplinks"])
    yield from _use(reply["uplinks"], colour)
    if reply["consumers"]:
        names = ", ".join(printable(row["peer_id"]) for row in reply["consumers"])
        yield f"Serves {names}; `wgctl uplink consumers` tells more."
    if reply["events"]:
        yield ""
        yield "Last changes"
        yield from _events(reply["events"], colour)
    if reply["problems"]:
        yield ""
        yield "Problems"
        for problem in reply["problems"]:
            yield f"- {printable(problem)}"


def _path(family: Reply) -> str:
    return printable(family["active_path"]) or "nothing"


def _paths(reply: Reply, colour: bool) -> Iterator[str]:
    lines = reply["wans"] or [reply["primary"]]
    own = [
        (
            row["path"],
            row["device"],
            row["state"],
            milliseconds(row["latency_ms"]),
            f"{row['loss_pct']:g} %",
            f"answered {duration(row['last_ok_s'])} ago" if row["last_ok_s"] >= 0 else "-",
            "-",
        )
        for row in lines
    ]
    tunnels = [
        (
            row["peer_id"],
            row["interface"],
            row["state"],
            milliseconds(row["latency_ms"]),
            f"{row['loss_pct']:g} %",
            "no handshake"
            if row["handshake_age_s"] < 0
            else f"handshake {duration(row['handshake_age_s'])} ago",
            "yes" if row["usable"] else f"no: {row['reason']}",
        )
        for row in reply["uplinks"]
    ]
    head = ("PATH", "DEVICE", "STATE", "LATENCY", "LOSS", "LAST SIGN", "USABLE")
    yield from aligned(head, own + tunnels, colour=colour)


def _notes(uplinks: Iterable[Reply]) -> Iterator[str]:
    for row in uplinks:
        if row["note"]:
            yield f"{printable(row['peer_id'])}: {printable(row['note'])}"


def _use(uplinks: Iterable[Reply], colour: bool) -> Iterator[str]:
    rows = [
        (
            row["peer_id"],
            _size(row["today_bytes"]),
            _size(row["month_bytes"]),
            f"{row['quota_left_gb']:g} GB" if row["quota_left_gb"] >= 0 else "-",
        )
        for row in uplinks
        if row["month_bytes"] or row["quota_left_gb"] >= 0
    ]
    if rows:
        yield ""
        yield from aligned(("UPLINK", "TODAY", "THIS MONTH", "QUOTA LEFT"), rows, colour=colour)


def _history(reply: Reply, colour: bool) -> Iterator[str]:
    if reply["events"]:
        yield from _events(reply["events"], colour)
    else:
        yield "Nothing has happened yet."


def _events(events: Iterable[Reply], colour: bool) -> Iterator[str]:
    yield from aligned(
        (
            "WHEN",
            "WHAT",
            "FAMILY",
            "FROM",
            "TO",
            "NOTICED",
            "SWITCHED",
            "OUTAGE",
            "BEFORE",
            "CAUSE",
        ),
        [
            (
                row["at"],
                row["kind"],
                row["family"] or "-",
                row["from"] or "-",
                row["to"] or row["peer_id"] or "-",
                milliseconds(row["detection_ms"]),
                milliseconds(row["switch_ms"]),
                milliseconds(row["outage_ms"]),
                duration(row["duration_s"]),
                row["cause"],
            )
            for row in events
        ],
        colour=colour,
    )


def _add(reply: Reply, colour: bool) -> Iterator[str]:
    yield from _message(reply, colour)
    yield from aligned(
        ("PEER", "INTERFACE", "WEIGHT", "ADDRESS", "ENDPOINT"),
        [
            (
                reply["peer_id"],
                reply["interface"],
                str(reply["weight"]),
                ", ".join(filter(None, (reply["address"], reply["address6"]))) or "-",
                reply["endpoint"] or "-",
            )
        ],
        colour=colour,
    )
    if not reply["leased"]:
        yield f"The peer must know this public key: {printable(reply['public_key'])}"
    yield from _notes([reply])


def _test(reply: Reply, _colour: bool) -> Iterator[str]:
    peer, path = printable(reply["peer_id"]), printable(reply["interface"])
    answered = f"{reply['received']} of {reply['sent']} probes to {printable(reply['target'])}"
    if reply["reachable"]:
        lost = f"{reply['loss_pct']:g} % lost"
        yield f"{peer} carries traffic: {answered} were answered through {path}"
        yield f"Round trip {milliseconds(reply['latency_ms'])}, {lost}"
        if reply["exit_address"]:
            yield f"The internet sees {printable(reply['exit_address'])}"
        return
    yield f"{peer} does not carry traffic: {answered} were answered through {path}"
    if reply["error"]:
        yield printable(reply["error"])
    age = reply["handshake_age_s"]
    yield "There was no handshake yet" if age < 0 else f"Last handshake {duration(age)} ago"


def _offer(reply: Reply, colour: bool) -> Iterator[str]:
    yield from _message(reply, colour)
    yield from _own_offer(reply["offer"])
    if reply["note"]:
        yield printable(reply["note"])


def _own_offer(offer: Reply) -> Iterator[str]:
    stands = "stands" if offer["available"] else f"does not stand: {printable(offer['reason'])}"
    yield f"Offer      of {printable(offer['peer_id'])}, {stands}"
    yield f"Endpoint   {printable(offer['endpoint']) or '-'}"
    speed = f"{offer['bandwidth_mbps']} Mbit/s" if offer["bandwidth_mbps"] else "speed not said"
    metered = ", metered" if offer["metered"] else ""
    line = printable(offer["wan_type"]) or "line"
    yield f"Line       {line}, {speed}, {milliseconds(offer['latency_ms'])}{metered}"
    limit = f"{offer['limit_mbps']} Mbit/s each" if offer["limit_mbps"] else "no limit"
    yield f"Consumers  {offer['consumers']} of {offer['max_consumers']}, {limit}"
    if offer["quota_gb"]:
        yield f"Quota      {offer['quota_left_gb']:g} of {offer['quota_gb']:g} GB left this month"


def _consumers(reply: Reply, colour: bool) -> Iterator[str]:
    if reply["offering"]:
        yield from _own_offer(reply["offer"])
    else:
        yield "This router does not offer its internet; `wgctl uplink offer` does."
    rows = [
        (
            row["peer_id"],
            row["address"] or row["address6"],
            "no handshake" if row["handshake_age_s"] < 0 else duration(row["handshake_age_s"]),
            duration(row["expires_s"]),
            _size(row["today_bytes"]),
            _size(row["month_bytes"]),
        )
        for row in reply["consumers"]
    ]
    if rows:
        yield ""
        head = ("CONSUMER", "ADDRESS", "HANDSHAKE", "LEASE ENDS IN", "TODAY", "THIS MONTH")
        yield from aligned(head, rows, colour=colour)
    if reply["refused"]:
        told = ", ".join(f"{row['count']} x {printable(row['code'])}" for row in reply["refused"])
        yield f"Refused: {told}"


def _trust(reply: Reply, colour: bool) -> Iterator[str]:
    yield f"This router is {printable(reply['node_id'])}."
    if not reply["peers"]:
        yield "No mesh peer has been seen: no WireGuard device but the uplinks' own has a peer."
        return
    yield from aligned(
        ("PEER", "STATE", "MESH ADDRESS", "IDENTITY", "HANDSHAKE", "WHAT IS MISSING"),
        [
            (
                row["peer_id"] or f"({row['mesh_key'][:8]})",
                row["state"],
                row["mesh_address"] or "-",
                row["identity"][:8] or "-",
                duration(row["handshake_age_s"]),
                row["reason"] or "-",
            )
            for row in reply["peers"]
        ],
        colour=colour,
    )


def _size(number: float) -> str:
    for limit, divisor, unit in ((1e3, 1, "B"), (1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        if number < limit:
            return f"{number / divisor:.0f} {unit}"
    return f"{number / 1e9:.1f} GB"


def _message(reply: Reply, _colour: bool) -> Iterator[str]:
    yield printable(reply["message"])


_VIEWS: Mapping[str, Callable[[Reply, bool], Iterator[str]]] = {
    "uplink_list": _list,
    "uplink_status": _status,
    "uplink_history": _history,
    "uplink_add": _add,
    "uplink_test": _test,
    "uplink_offer": _offer,
    "uplink_consumers": _consumers,
    "uplink_trust": _trust,
    "uplink_explain": choice_tables.explain,
    "uplink_simulate": choice_tables.simulate,
    "uplink_drill": choice_tables.drill,
}
