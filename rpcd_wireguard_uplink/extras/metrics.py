"""Prometheus text format of the status, as `wgctl uplink metrics` prints it.

Pure: replies of `uplink_status` and `uplink_list` in, text out. Names and units follow Prometheus'
conventions: base units, and `_total` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import __version__
from ..api.replies import STATES

Table = Mapping[str, Any]
Sample = tuple[Mapping[str, str], float]
Metric = tuple[str, str, Sequence[Sample]]
PREFIX = "wireguard_uplink_"

Of = Callable[[Table], float | None]
"""A row's value, None where it is not known."""

OF_PATHS: tuple[tuple[str, str, Of], ...] = (
    ("path_up", "1 where probes through the path are answered.", lambda row: row["state"] == "up"),
    (
        "path_latency_seconds",
        "Round trip of probes through the path.",
        lambda row: row["latency_ms"] / 1000 if row["latency_ms"] >= 0 else None,
    ),
    (
        "path_loss_ratio",
        "Share of probes through the path that were lost.",
        lambda row: row["loss_pct"] / 100,
    ),
)
OF_UPLINKS: tuple[tuple[str, str, Of], ...] = (
    ("path_usable", "1 where traffic could be moved to the uplink now.", lambda row: row["usable"]),
    (
        "handshake_age_seconds",
        "Time since WireGuard's last handshake.",
        lambda row: row["handshake_age_s"] if row["handshake_age_s"] >= 0 else None,
    ),
    (
        "path_received_bytes_total",
        "Bytes received through the uplink's tunnel since it was made.",
        lambda row: row["rx_bytes"],
    ),
    (
        "path_sent_bytes_total",
        "Bytes sent through the uplink's tunnel since it was made.",
        lambda row: row["tx_bytes"],
    ),
)
OF_CONSUMERS: tuple[tuple[str, str, Of], ...] = (
    (
        "consumer_received_bytes_total",
        "Bytes received through a consumer's tunnel.",
        lambda row: row["rx_bytes"],
    ),
    (
        "consumer_sent_bytes_total",
        "Bytes sent through a consumer's tunnel.",
        lambda row: row["tx_bytes"],
    ),
)


def exposition(status: Table, offers: Iterable[Table]) -> str:
    """The text for a reply of `uplink_status` and the offers in one of `uplink_list`."""
    lines: list[str] = []
    for name, meaning, samples in _metrics(status, offers):
        if samples:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}"]
            lines += [f"{PREFIX}{name}{_labels(labels)} {value:.12g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(status: Table, offers: Iterable[Table]) -> Iterator[Metric]:
    families = status["families"].items()
    usable = [bool(offer["usable"]) for offer in offers]
    wans = [({"path": w["path"], "device": w["device"], "kind": "wan"}, w) for w in status["wans"]]
    uplinks = [
        ({"path": row["peer_id"], "device": row["interface"], "kind": "uplink"}, row)
        for row in status["uplinks"]
    ]
    consumers = [({"peer": row["peer_id"]}, row) for row in status["consumers"]]
    yield "info", "The service's version.", [({"version": __version__}, 1)]
    yield (
        "state",
        "1 for the state that an address family is in.",
        [
            ({"family": name, "state": state}, state == family["state"])
            for name, family in families
            for state in STATES
        ],
    )
    yield (
        "path_active",
        "1 where a family's traffic leaves by the path.",
        [
            ({"family": name, **path}, path["device"] == family["active_path"])
            for name, family in families
            for path, _ in (*wans, *uplinks)
        ],
    )
    yield from _of_rows(OF_PATHS, [*wans, *uplinks])
    yield from _of_rows(OF_UPLINKS, uplinks)
    yield (
        "offers",
        "Offers of mesh peers.",
        [({"usable": name}, usable.count(name == "true")) for name in ("true", "false")],
    )
    yield "offering", "Whether this router offers its internet.", [({}, status["offering"])]
    yield "consumers", "Leases given to peers.", [({}, len(consumers))]
    yield from _of_rows(OF_CONSUMERS, consumers)
    meaning = "Sentences in the status that the owner should mend."
    yield "problems", meaning, [({}, len(status["problems"]))]


def _of_rows(
    metrics: Iterable[tuple[str, str, Of]], rows: Sequence[tuple[Mapping[str, str], Table]]
) -> Iterator[Metric]:
    for name, meaning, of in metrics:
        samples = [(labels, of(row)) for labels, row in rows]
        yield name, meaning, [(labels, value) for labels, value in samples if value is not None]


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
