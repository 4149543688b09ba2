"""What uplink_status says, as the text that Prometheus reads, on the router's loopback address.

Owns the names, units and labels. Values come from replies of the service; only what is counted
over time is counted here. Names and units follow Prometheus' own conventions (base units, `_total`
for what only grows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import __version__
from ..mesh.http import Request, Response, Server
from ..schema.shapes import STATES
from ..uplinks.service import Service

Table = Mapping[str, Any]
Sample = tuple[Mapping[str, str], float]
HOST = "127.0.0.1"
PATH = "/metrics"
PREFIX = "wireguard_uplink_"


class Metrics:
    """Answers GET /metrics while the configuration says so; `close` must be called in the end."""

    def __init__(self, service: Service, problems: dict[str, str]) -> None:
        self.switches: Counter[str] = Counter()
        self._service = service
        self._problems = problems
        self._server = Server(self._answer, {PATH: ("GET",)}, most_connections=4)
        self._port = 0

    def follow(self) -> None:
        """Listen, or don't, as the configuration says now."""
        config = self._service.uplinks.config
        port = config.peering.mesh_port if config.settings.metrics else 0
        if port != self._port:
            self._port = port
            self._server.rebind([(HOST, port, "")] if port else [])
        self._problems.pop("metrics", None)
        if self._server.problems:
            self._problems["metrics"] = (
                f"Another program listens on {HOST} port {port}: no metrics."
            )

    async def close(self) -> None:
        """Listen no more."""
        await self._server.close()

    async def _answer(self, request: Request) -> Response:
        offers = self._service.list_uplinks()["offers"]
        return Response(200, {}, exposition(self._service.status(), offers, self.switches))


def exposition(status: Table, offers: Iterable[Table], switches: Mapping[str, int]) -> str:
    """The text for a status, the offers of uplink_list and the number of changes by kind."""
    lines: list[str] = []
    for name, kind, told, samples in _families(status, list(offers), switches):
        found = [f"{PREFIX}{name}{_labels(labels)} {value:.12g}" for labels, value in samples]
        if found:
            lines += [f"# HELP {PREFIX}{name} {told}", f"# TYPE {PREFIX}{name} {kind}", *found]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(
    status: Table, offers: list[Table], switches: Mapping[str, int]
) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """Name, type, help and samples of every metric."""
    yield "info", "gauge", "The service's version.", [({"version": __version__}, 1)]
    yield from _of_choice(status, switches)
    yield from _of_paths(status)
    usable: Counter[str] = Counter({"true": 0, "false": 0})
    usable.update("true" if offer["usable"] else "false" for offer in offers)
    yield (
        "offers",
        "gauge",
        "Offers of mesh peers.",
        [({"usable": u}, n) for u, n in usable.items()],
    )
    offering, consumers = status["offering"], status["consumers"]
    yield "offering", "gauge", "Whether this router offers its internet.", [({}, offering)]
    yield "consumers", "gauge", "Leases given to peers.", [({}, len(consumers))]
    for name, key in (("received", "rx_bytes"), ("sent", "tx_bytes")):
        yield (
            f"consumer_{name}_bytes_total",
            "counter",
            f"Bytes {name} through a consumer's tunnel.",
            [({"peer": row["peer_id"]}, row[key]) for row in consumers],
        )
    problems = len(status["problems"])
    yield (
        "problems",
        "gauge",
        "Sentences in the status that the owner should mend.",
        [({}, problems)],
    )


def _of_choice(
    status: Table, switches: Mapping[str, int]
) -> Iterator[tuple[str, str, str, list[Sample]]]:
    families = status["families"].items()
    yield (
        "state",
        "gauge",
        "1 for the state that an address family is in.",
        [
            ({"family": name, "state": state}, state == family["state"])
            for name, family in families
            for state in STATES
        ],
    )
    paths = [_path(row) for row in (*status["wans"], *status["uplinks"])]
    yield (
        "path_active",
        "gauge",
        "1 where a family's traffic leaves by the path.",
        [
            ({"family": name, **path}, path["device"] == family["active_path"])
            for name, family in families
            for path in paths
        ],
    )
    yield (
        "changes_total",
        "counter",
        "Changes of path since the service began.",
        [({"kind": kind}, count) for kind, count in sorted(switches.items())],
    )


def _path(row: Table) -> dict[str, str]:
    if "peer_id" in row:
        return {"path": row["peer_id"], "device": row["interface"], "kind": "uplink"}
    return {"path": row["path"], "device": row["device"], "kind": "wan"}


def _of_paths(status: Table) -> Iterator[tuple[str, str, str, list[Sample]]]:
    rows = [*status["wans"], *status["uplinks"]]
    yield (
        "path_up",
        "gauge",
        "1 where probes through the path are answered.",
        [(_path(row), row["state"] == "up") for row in rows],
    )
    yield (
        "path_latency_seconds",
        "gauge",
        "Round trip of probes through the path.",
        [(_path(row), row["latency_ms"] / 1000) for row in rows if row["latency_ms"] >= 0],
    )
    yield (
        "path_loss_ratio",
        "gauge",
        "Share of probes through the path that were lost.",
        [(_path(row), row["loss_pct"] / 100) for row in rows],
    )
    tunnels = status["uplinks"]
    yield (
        "path_usable",
        "gauge",
        "1 where traffic could be moved to the uplink now.",
        [(_path(row), row["usable"]) for row in tunnels],
    )
    yield (
        "handshake_age_seconds",
        "gauge",
        "Time since WireGuard's last handshake.",
        [(_path(row), row["handshake_age_s"]) for row in tunnels if row["handshake_age_s"] >= 0],
    )
    for name, key in (("received", "rx_bytes"), ("sent", "tx_bytes")):
        yield (
            f"path_{name}_bytes_total",
            "counter",
            f"Bytes {name} through the uplink's tunnel since it was made.",
            [(_path(row), row[key]) for row in tunnels],
        )
