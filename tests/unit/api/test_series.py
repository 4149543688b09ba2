"""The pulse and the series as methods: what they say of paths, and when a page must look again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.storage.state_file import run_dir_of
from rpcd_wireguard_uplink.system.proc import device_bytes
from tests.unit.router import LINE, Router, offer

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:   40     1    0    0    0     0          0         0      41      1    0    0
  wan0: 1000     2    0    0    0     0          0         0     500      3    0    0
"""


async def test_the_stamp_differs_with_what_happens_and_not_with_numbers(router: Router) -> None:
    first = await router.call("uplink_pulse")
    assert [path["path"] for path in first["paths"]] == [LINE]
    assert (await router.call("uplink_pulse"))["stamp"] == first["stamp"]
    await router.call("uplink_gossip", message=offer("nodea"))
    offered = await router.call("uplink_pulse")
    assert offered["stamp"] != first["stamp"]
    await router.call("uplink_add", peer_id="nodea")
    added = await router.call("uplink_pulse")
    assert added["stamp"] != offered["stamp"]
    assert [path["path"] for path in added["paths"]] == [LINE, "wgup_nodea"]


async def test_a_sample_has_nothing_read(router: Router) -> None:
    """A reading of counters may be a process, and nobody looks."""
    counters = router.daemon.monitor.counters
    counters._read_s = float("-inf")
    router.daemon.series_methods.sample(1000.0, {})
    assert not counters._asked.is_set()
    await router.call("uplink_status")
    assert counters._asked.is_set()


async def test_series_by_the_samples_that_were_taken(router: Router) -> None:
    methods = router.daemon.series_methods
    methods.sample(0.0, {LINE: (100, 10)})
    methods.sample(61.0, {LINE: (300, 20)})
    found = await router.call("uplink_series")
    assert (found["span"], found["step_s"]) == ("hour", 60)
    line = next(path for path in found["paths"] if path["path"] == LINE)
    assert line["latency_ms"][-1] == -1, "nothing answered"
    assert line["moved_bytes"][-1] == 210
    assert (await router.call("uplink_series", span="day"))["step_s"] == 900


async def test_series_go_on_after_a_restart(router: Router) -> None:
    methods = router.daemon.series_methods
    now_s = time.monotonic()
    methods.sample(now_s - 120, {LINE: (100, 10)})
    methods.sample(now_s - 60, {LINE: (300, 20)})
    kept = (await router.call("uplink_series", span="day"))["paths"]
    await router.restart()
    assert (await router.call("uplink_series", span="day"))["paths"] == kept
    router.daemon.series_methods.sample(now_s, {LINE: (301, 20)})
    line = (await router.call("uplink_series"))["paths"][0]
    assert line["moved_bytes"][-1] in (1, 211), "the minute may be the same one"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"slots": {}, "paths": 3}'])
async def test_series_that_are_damaged_begin_anew(router: Router, text: str) -> None:
    await router.stop()
    file = Path(run_dir_of(str(router.state_file))) / "series.json"
    assert file.exists()
    file.write_text(text)
    await router.start()
    assert "paths" in await router.call("uplink_series")


async def test_settings_that_may_be_put_back_are_told(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcd_wireguard_uplink.platform.linux.SNAPSHOTS", str(tmp_path))
    assert (await router.call("uplink_pulse"))["rollback_s"] == 0
    (tmp_path / "network").write_text("as it was before\n")
    assert 90 < (await router.call("uplink_pulse"))["rollback_s"] <= 100


def test_bytes_of_devices(tmp_path: Path) -> None:
    file = tmp_path / "dev"
    file.write_text(NET_DEV)
    assert device_bytes(str(file)) == {"lo": (40, 41), "wan0": (1000, 500)}
    assert device_bytes(str(tmp_path / "none")) == {}
