"""How often a provider with many consumers writes files that lie on flash, in a simulated day.

The clock and the kernel's part are fakes, the files are real: a write is a file whose inode or time
differs. What lies in memory on a router, the state file, is left out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.mesh.wire.lease import LeaseGrant, LeaseRequest
from rpcd_wireguard_uplink.model import PeerCounters
from rpcd_wireguard_uplink.provider import lease_server, site
from rpcd_wireguard_uplink.provider.device import Provider
from rpcd_wireguard_uplink.provider.offer import OwnOffer
from rpcd_wireguard_uplink.provider.plan import ProviderPlan
from rpcd_wireguard_uplink.storage.state_file import run_dir_of
from rpcd_wireguard_uplink.system.rtnetlink import Kernel
from tests.unit.fakes import key_of
from tests.unit.router import CONFIG, Router, commands_of_a_router, offer

DAY_S = 86400.0
HOUR_S = 3600.0
MOST_WRITES = 12  # rules.md's 17th, with 20 consumers
CONSUMERS = [f"peer{number}" for number in range(20)]
PROVIDER = """
config provider 'local'
	option enabled '1'
	option max_consumers '50'
	option pool4 '10.61.7.0/24'
	option pool6 'fd61:7::/64'
"""


class FakeProvider(Provider):
    """A kernel in which every consumer shakes hands and moves a kilobyte a second."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.keys: list[str] = []

    async def apply(self, plan: ProviderPlan) -> None:
        self.keys = [lease.public_key for lease in plan.leases]

    async def read_peers(self) -> dict[str, PeerCounters]:
        moved = int(time.monotonic() * 1000)
        return {key: PeerCounters(key, "", 60.0, moved, moved) for key in self.keys}


class DayIsOver(Exception):
    pass


class Writes:
    """What was written below a folder since the last look, by file name; not what is on a tmpfs:
    the state file and the service's own folder beside it.
    """

    def __init__(self, folder: Path, state_file: Path) -> None:
        self._folder = folder
        self._memory = (str(state_file), run_dir_of(str(state_file)))
        self._seen = self._read()
        self.names: list[str] = []

    def _read(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                info = os.stat(path)
                if not path.startswith(self._memory):
                    found[name] = (info.st_ino, info.st_mtime_ns)
        return found

    def look(self) -> None:
        before, self._seen = self._seen, self._read()
        names = before.keys() | self._seen
        self.names += [name for name in names if before.get(name) != self._seen.get(name)]


@pytest.fixture(params=[300.0, pytest.param(lease_server.HOUSEKEEPING_S, marks=pytest.mark.deep)])
async def router(tmp_path: Path, mocker: MockerFixture, request: pytest.FixtureRequest) -> Router:
    """A provider that looks after its consumers every so many seconds."""
    commands_of_a_router(mocker)
    mocker.patch.object(lease_server, "HOUSEKEEPING_S", request.param)
    mocker.patch.object(site, "Provider", FakeProvider)
    mocker.patch.object(OwnOffer, "refusal", return_value=None)
    router = Router(tmp_path)
    router.write("wireguard-uplink", CONFIG + PROVIDER)
    daemon = await router.start()
    await daemon.tasks.close()  # the WANs are not watched in this day
    await daemon.monitor.stop()
    daemon.peers.node_id = "nodep"
    await daemon.lease_server.follow()
    assert not daemon.lease_server.failure
    return router


async def live_a_day(
    router: Router, mocker: MockerFixture, hourly: Callable[[int], Awaitable[None]]
) -> list[str]:
    """Let the service look after its consumers, who renew at half of their lease's time; what was
    written since all of them had one.
    """
    server = router.daemon.lease_server
    clock, begun = [time.monotonic()], time.monotonic()
    sleep = asyncio.sleep
    due = dict.fromkeys(CONSUMERS, 0.0)
    renewals, hours = [0], [0]

    async def renew() -> None:
        for name in [name for name, due_s in due.items() if due_s <= clock[0]]:
            granted = await server.grant(LeaseRequest(peer_id=name, public_key=key_of(name)))
            assert isinstance(granted, LeaseGrant)
            due[name] = clock[0] + granted.lease_s / 2
            renewals[0] += 1

    async def pass_time(seconds: float) -> None:
        for _ in range(3):
            await sleep(0)
        writes.look()
        clock[0] += seconds
        await renew()
        if clock[0] - begun >= (hours[0] + 1) * HOUR_S:
            hours[0] += 1
            await hourly(hours[0])
        if clock[0] - begun >= DAY_S:
            raise DayIsOver

    await renew()
    for _ in range(50):
        await sleep(0.001)
    writes = Writes(router.directory, router.state_file)
    mocker.patch("time.monotonic", lambda: clock[0])
    mocker.patch("asyncio.sleep", pass_time)
    with pytest.raises(DayIsOver):
        await server.run()
    await server.stop()
    writes.look()
    assert len(server.consumer_rows()) == len(CONSUMERS)
    assert renewals[0] > 20 * len(CONSUMERS)
    return writes.names


async def test_a_day_of_renewals_offers_and_a_guest(router: Router, mocker: MockerFixture) -> None:
    server = router.daemon.lease_server

    async def hourly(hour: int) -> None:
        for name in CONSUMERS:
            await router.call("uplink_gossip", message=offer(name, sequence=hour))
        assert len(list(router.daemon.offers.names)) == len(CONSUMERS)
        if hour == 1:
            await server.grant(LeaseRequest(peer_id="guest", public_key=key_of("guest")))
        elif hour == 5:
            await server.release(key_of("guest"), "guest")

    names = await live_a_day(router, mocker, hourly)
    written = Counter(names)
    assert 4 <= written.pop("usage.json") <= 5, "counters are kept every six hours and at the end"
    assert written == {"wireguard-uplink": 2, "last-good": 2}, "for the guest, never for renewals"
    assert len(names) <= MOST_WRITES


async def test_case_11_a_day_with_a_peer_that_attacks(
    router: Router, mocker: MockerFixture
) -> None:
    """It comes with a new key each time, and gives some of its leases back."""
    server, held = router.daemon.lease_server, [""]

    async def hourly(hour: int) -> None:
        for number in range(30):
            key = key_of(f"attack {hour} {number}")
            answer = await server.grant(LeaseRequest(peer_id="evil", public_key=key))
            if isinstance(answer, LeaseGrant):
                held.append(key)
            if hour == 23 or (hour + number) % 3:
                await server.release(held[-1], "evil")

    names = await live_a_day(router, mocker, hourly)
    assert names.count("wireguard-uplink") <= 6
    assert len(names) <= MOST_WRITES, names
