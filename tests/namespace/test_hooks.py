"""Telling people: hooks, metrics and bytes, with real tunnels and a line that dies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, ClassVar

import pytest

from rpcd_wireguard_uplink.extras.metrics import exposition
from tests.lab.altered_service import AlteredService
from tests.lab.lab import Lab
from tests.lab.meter import Meter, settled
from tests.lab.network import ECHO4, consumer_network
from tests.lab.provider import make_provider
from tests.lab.router import Router, settings

pytestmark = pytest.mark.needs("conntrack")

TOKEN = "T0KEN"
WEBHOOK = f"http://{ECHO4}:8080/{TOKEN}"
PATIENCE_S = 6.0


class HastyService(AlteredService):
    """A service that waits for a hook for less than its ten seconds."""

    constants: ClassVar[dict[str, float]] = {
        "rpcd_wireguard_uplink.extras.hooks:TIMEOUT_S": PATIENCE_S
    }


@pytest.fixture(scope="module")
def router(namespaces: None) -> Iterator[Router]:
    """A consumer that tells everybody; the receiver is on the internet, where the tunnel leads."""
    with Lab() as lab:
        network = consumer_network(lab)
        provider = make_provider(lab, network.providers[0])
        made = Router.build(network, [provider], settings(), service=HastyService)
        folder = made.service.folder
        lab.start(network.internet, "receiver", ECHO4, os.path.join(folder, "posted"))
        os.makedirs(os.path.join(folder, "hooks"), mode=0o755)
        made.service.extra_args = ["--hooks-dir", os.path.join(folder, "hooks")]
        put(
            made,
            "10-tell",
            f"env | grep ^WGUP_ | tr '\\n' '|' >>{folder}/told; echo >>{folder}/told",
        )
        post = (
            f"import os, urllib.request as r; r.urlopen({WEBHOOK!r}, os.environb[b'WGUP_JSON'], 8)"
        )
        put(made, "20-post", f'exec {sys.executable} -I -c "{post}"')
        made.start()
        yield made


def put(router: Router, name: str, body: str) -> str:
    path = os.path.join(router.service.folder, "hooks", name)
    with open(path, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o755)
        file.write(f"#!/bin/sh\n{body}\n")
    return path


def read_lines(router: Router, name: str) -> list[str]:
    try:
        with open(os.path.join(router.service.folder, name), encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def told(router: Router) -> list[dict[str, str]]:
    """What the hook has found in its environment, without the variables' prefix."""
    return [
        {word[5:].partition("=")[0]: word.partition("=")[2] for word in line.split("|") if word}
        for line in read_lines(router, "told")
    ]


def posted(router: Router) -> list[tuple[str, str, dict[str, Any]]]:
    """Sender, path and body of what the hook has sent."""
    split = (line.split(" ", 2) for line in read_lines(router, "posted"))
    return [(sender, path, json.loads(body)) for sender, path, body in split]


def soon(fits: Callable[[], bool], router: Router, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not fits():
        assert time.monotonic() < deadline, router.service.log()
        time.sleep(0.05)


def test_a_failover_is_told_to_everybody_with_its_times(router: Router) -> None:
    router.wait_primary()
    before, posts = len(told(router)), len(posted(router))
    router.network.wan.drop()
    router.wait_failed_over()
    try:
        soon(lambda: len(told(router)) > before, router)
        soon(lambda: len(posted(router)) > posts, router)
        history = router.events("failover")[-2:]
    finally:
        router.network.wan.restore()
        router.wait_primary()
    [heard] = told(router)[before:][:1]
    first = history[0]
    assert (heard["EVENT"], heard["KIND"], heard["PEER"]) == ("failover", "failover", "nodea")
    assert (heard["FROM"], heard["TO"]) == ("wan", "wgup_nodea")
    assert (heard["AT"], heard["FAMILY"], heard["CAUSE"]) == (first["at"], "", first["cause"])
    assert heard["OUTAGE_MS"] == str(max(entry["outage_ms"] for entry in history))
    for entry in history:
        assert entry["outage_ms"] == entry["detection_ms"] + entry["switch_ms"]
        assert 100 < entry["outage_ms"] < 4000
    [(sender, path, body)] = posted(router)[posts:][:1]
    assert sender == router.network.provider_wans[0].address4, "it left by the tunnel"
    assert path == f"/{TOKEN}"
    assert (body["event"], body["at"], body["family"]) == ("failover", first["at"], "")
    assert TOKEN not in router.service.log(10**6)
    assert TOKEN not in json.dumps(router.service.state())


def test_a_slow_hook_holds_nothing_up(router: Router) -> None:
    router.wait_primary()
    for heard in (told, posted):  # what came before: there and back
        soon(lambda heard=heard: len(heard(router)) % 2 == 0, router)
    before, posts = len(told(router)), len(posted(router))
    slow = put(router, "00-slow", f"echo $$ >{router.service.folder}/slow; exec sleep 300")
    wan = router.network.wan
    with Meter(router.network.host, ECHO4) as meter:
        settled(meter)
        began = wan.drop()
        meter.wait_for_source(router.network.provider_wans[0].address4, since=began, timeout_s=3.0)
        router.wait_failed_over()
        wan.restore()
        router.wait_primary()
    (pid,) = read_lines(router, "slow")
    assert len(told(router)) == before, "the slow hook is the first"
    os.unlink(slow)
    own = f"/proc/{router.network.consumer.pid}/root/proc/{pid}"  # a number of that node's
    soon(lambda: not os.path.exists(own), router)
    soon(lambda: len(posted(router)) >= posts + 2, router)

    def kinds() -> list[str]:
        """In their order; one family may be told after the other."""
        return [kind for kind, _ in groupby(heard["KIND"] for heard in told(router)[before:])]

    soon(lambda: len(kinds()) > 1, router)
    assert kinds() == ["failover", "failback"]
    assert f"00-slow did not finish within {PATIENCE_S:g} s" in router.service.log()


def test_an_unsafe_hook_is_told_in_status(router: Router) -> None:
    router.wait_primary()
    path = put(router, "50-unsafe", f"echo run >>{router.service.folder}/unsafe")
    os.chmod(path, 0o777)
    try:
        router.network.wan.drop()
        router.wait_failed_over()
        router.wait(lambda s: any("50-unsafe is not run" in problem for problem in s["problems"]))
        assert read_lines(router, "unsafe") == []
    finally:
        os.unlink(path)
        router.network.wan.restore()
        router.wait_primary()


def test_metrics_tell_which_path_is_active(router: Router) -> None:
    router.wait_primary()
    labels = 'path="{}",device="{}",kind="{}"'
    wan, uplink = labels.format("wan", "wan", "wan"), labels.format("nodea", "wgup_nodea", "uplink")

    def active(path: str) -> str:
        return f'wireguard_uplink_path_active{{family="ipv4",{path}}}'

    text = exposition(router.status(), [])
    assert f"{active(wan)} 1\n" in text and f"{active(uplink)} 0\n" in text
    router.network.wan.drop()
    router.wait_failed_over()
    text = exposition(router.status(), [])
    assert f"{active(wan)} 0\n" in text and f"{active(uplink)} 1\n" in text
    assert f"wireguard_uplink_path_up{{{wan}}} 0\n" in text
    router.network.wan.restore()
    router.wait_primary()


def test_bytes_of_an_uplink_outlive_the_service(router: Router) -> None:
    def counted() -> int:
        (row,) = router.status()["uplinks"]
        assert row["today_bytes"] == row["month_bytes"] > 0
        return int(row["month_bytes"])

    def moved() -> int:
        (row,) = router.status()["uplinks"]
        return int(row["rx_bytes"] + row["tx_bytes"])

    router.wait(lambda s: s["uplinks"][0]["month_bytes"] > 0)
    router.network.consumer.run(
        ["ping", "-c", "20", "-i", "0.01", "-s", "1000", "-I", "wgup_nodea", "1.1.1.1"]
    )
    soon(lambda: counted() >= 40_000, router)
    assert abs(counted() - moved()) < 20_000, "what the tunnel has moved, and not more"
    before = counted()
    router.service.restart()
    router.wait_primary()
    soon(lambda: counted() >= before, router)
    assert counted() - moved() < 20_000, "a restart counts nothing twice"
    shown = router.service.wgctl("uplink", "status").stdout
    assert "THIS MONTH" in shown
