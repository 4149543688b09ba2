"""Prometheus text format of the status, as `wgctl uplink metrics` prints it.

Pure: replies of `uplink_status` and `uplink_list` in, text out. Names and units follow Prometheus'
conventions: base units, and `_total` for what only grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .. import __version__
from ..api.replies import STATES

Table = Mapping[str, Any]
Sample = tuple[Mapping[str, str], float]
Metric = tuple[str, str, Sequence[Sample]]
PREFIX = "wireguard_uplink_"

OF_PATHS = (
    ("path_up", "1 where probes through the path are answered.", "state", 1),
    ("path_latency_seconds", "Round trip of probes through the path.", "latency_ms", 1000),
    ("path_loss_ratio", "Share of probes through the path that were lost.", "loss_pct", 100),
)
OF_UPLINKS = (
    ("path_usable", "1 where traffic could be moved to the uplink now.", "usable", 1),
    ("handshake_age_seconds", "Time since WireGuard's last handshake.", "handshake_age_s", 1),
    (
        "path_received_bytes_total",
        "Bytes received through the uplink's tunnel since it was made.",
        "rx_bytes",
        1,
    ),
    (
        "path_sent_bytes_total",
        "Bytes sent through the uplink's tunnel since it was made.",
        "tx_bytes",
        1,
    ),
)
OF_CONSUMERS = (
    ("consumer_received_bytes_total", "Bytes received through a consumer's tunnel.", "rx_bytes", 1),
    ("consumer_sent_bytes_total", "Bytes sent through a consumer's tunnel.", "tx_bytes", 1),
)
"""Name and meaning of a metric, the member of a row that it shows, and what that is divided by."""


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
    metrics: Iterable[tuple[str, str, str, int]], rows: Sequence[tuple[Mapping[str, str], Table]]
) -> Iterator[Metric]:
    for name, meaning, member, divisor in metrics:
        values = [(labels, _number(row[member])) for labels, row in rows]
        yield name, meaning, [(labels, value / divisor) for labels, value in values if value >= 0]


def _number(value: str | float) -> float:
    """A member's value; negative where it is not known."""
    return float(value == "up" if isinstance(value, str) else value)


def _labels(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    shown = ",".join(f'{name}="{text.translate(escapes)}"' for name, text in labels.items())
    return f"{{{shown}}}" if shown else ""
