"""Prometheus' text: its form and its numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink import __version__
from rpcd_wireguard_uplink.extras.metrics import PREFIX, exposition

REPLIES = Path(__file__).resolve().parents[2] / "data" / "replies.json"
SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def replies() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPLIES.read_text(encoding="utf-8"))
    return found


def parsed(text: str) -> tuple[Samples, dict[str, str]]:
    """Samples and types, read as strictly as the format is described."""
    samples: Samples = {}
    types: dict[str, str] = {}
    helped = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split()[2]
            assert helped not in types and len(line.split()) > 3
        elif line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name == helped and kind in ("gauge", "counter")
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            name, labels, value = match.groups()
            assert name == helped and name in types
            pairs = LABEL.findall(labels or "")
            assert "".join(f'{n}="{v}",' for n, v in pairs).rstrip(",") == (labels or "")
            key = (name, frozenset(pairs))
            assert key not in samples, f"twice: {line}"
            samples[key] = float(value)
    return samples, types


def value(samples: Samples, metric: str, **labels: str) -> float:
    """The only sample with at least these labels."""
    found = [
        number
        for (name, pairs), number in samples.items()
        if name == PREFIX + metric and set(labels.items()) <= pairs
    ]
    assert len(found) == 1, (metric, labels, found)
    return found[0]


def test_the_text_is_well_formed_and_keeps_the_conventions(replies: dict[str, Any]) -> None:
    status, offers = replies["uplink_status"], replies["uplink_list"]["offers"]
    samples, types = parsed(exposition(status, offers))
    assert len(samples) > 20
    for name, kind in types.items():
        assert name.startswith(PREFIX) and name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|pct|mb|kb)(_|$)", name)


def test_the_numbers_are_those_of_the_status(replies: dict[str, Any]) -> None:
    status, offers = replies["uplink_status"], replies["uplink_list"]["offers"]
    wan, uplink = status["wans"][0], status["uplinks"][0]
    uplink |= {"latency_ms": 21.25, "loss_pct": 12.5, "rx_bytes": 9_876_543_210}
    samples, _ = parsed(exposition(status, offers))
    peer = uplink["peer_id"]
    assert value(samples, "info", version=__version__) == 1
    assert value(samples, "path_up", path=wan["path"], kind="wan") == (wan["state"] == "up")
    assert value(samples, "path_latency_seconds", path=peer, kind="uplink") == 0.02125
    assert value(samples, "path_loss_ratio", path=peer) == 0.125
    assert value(samples, "path_received_bytes_total", path=peer) == 9_876_543_210
    assert value(samples, "offers", usable="true") == sum(o["usable"] for o in offers)
    assert value(samples, "offers", usable="false") == sum(not o["usable"] for o in offers)
    assert value(samples, "consumers") == len(status["consumers"])
    assert value(samples, "problems") == len(status["problems"])
    for family, about in status["families"].items():
        assert value(samples, "state", family=family, state=about["state"]) == 1
        of_family = [
            (dict(labels)["device"], number)
            for (name, labels), number in samples.items()
            if name == PREFIX + "path_active" and ("family", family) in labels
        ]
        active = [device for device, number in of_family if number == 1]
        assert active == [about["active_path"]] * bool(about["active_path"])


def test_what_is_unknown_has_no_sample(replies: dict[str, Any]) -> None:
    status = replies["uplink_status"]
    for row in (*status["wans"], *status["uplinks"]):
        row["latency_ms"] = -1
    for row in status["uplinks"]:
        row["handshake_age_s"] = -1
    text = exposition(status, [])
    assert "latency" not in text and "handshake" not in text


def test_a_peers_name_can_write_no_sample(replies: dict[str, Any]) -> None:
    status = replies["uplink_status"]
    status["uplinks"] = status["uplinks"][:1]
    status["uplinks"][0]["peer_id"] = 'a"} 1\nevil{x="\\'
    samples, _ = parsed(exposition(status, []))
    paths = {dict(labels).get("path") for _, labels in samples}
    assert 'a\\"} 1\\nevil{x=\\"\\\\' in paths
