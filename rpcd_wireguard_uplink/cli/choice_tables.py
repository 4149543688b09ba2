"""Explanations, suppositions and rehearsals as plain text for people.

A part of tables.py, which says what holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..text import printable
from .columns import aligned, duration, milliseconds

Reply = Mapping[str, Any]


def explain(reply: Reply, colour: bool) -> Iterator[str]:
    """`wgctl uplink why`"""
    for family in reply["families"]:
        yield printable(family["sentence"])
        rows = family["candidates"]
        if rows:
            yield from _candidates(rows, colour)
            for row in rows:
                yield f"- {printable(row['sentence'])}"
        yield ""
    if reply["others"]:
        yield "No candidates"
        for row in reply["others"]:
            yield f"- {printable(row['peer_id'])}: {printable(row['reason'])}"


def _candidates(rows: list[Reply], colour: bool) -> Iterator[str]:
    head = ("PATH", "HEALTH", "COST", "WEIGHT", "LATENCY", "LOSS", "MBIT/S", "PAGE", "ANSWERED")
    cells = [
        (
            row["name"],
            row["health"],
            _cost(row) if row["kind"] == "uplink" else f"metric {row['metric']}",
            str(row["weight"] or "-"),
            milliseconds(row["latency_ms"]),
            f"{row['loss_pct']:g} %",
            _speed(row),
            f"{row['score_ms'] / 1000:.2f} s",
            f"{duration(row['last_answer_s'])} ago" if row["last_answer_s"] >= 0 else "-",
        )
        for row in rows
    ]
    yield from aligned(head, cells, colour=colour)


def _cost(row: Reply) -> str:
    price = f", {row['price_per_gb']:g} a GB" if row["price_per_gb"] else ""
    left = f", {row['quota_left_gb']:g} GB left" if row["quota_left_gb"] >= 0 else ""
    return f"{row['tier']}{price}{left}"


def _speed(row: Reply) -> str:
    if row["measured_mbps"]:
        return f"{row['measured_mbps']} of {row['advertised_mbps'] or '?'}"
    return str(row["advertised_mbps"] or "-")


def simulate(reply: Reply, _colour: bool) -> Iterator[str]:
    """`wgctl uplink simulate`"""
    yield f"Supposed dead: {', '.join(map(printable, reply['fail']))}. Nothing was touched."
    for family in reply["families"]:
        yield printable(family["sentence"])


def drill(reply: Reply, colour: bool) -> Iterator[str]:
    """`wgctl uplink drill`"""
    yield f"{printable(reply['message'])} The rehearsal took {reply['took_s']:g} s."
    rows = [
        (
            drill["peer_id"] if not number else "",
            step["step"],
            "up" if step["ok"] else "down",
            f"{step['took_ms']} ms" if step["took_ms"] else "-",
            step["told"],
        )
        for drill in reply["drills"]
        for number, step in enumerate(drill["steps"])
    ]
    yield from aligned(("PEER", "STEP", "STATE", "TOOK", "FOUND"), rows, colour=colour)
