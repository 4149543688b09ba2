"""The sockets of watched paths, on the running loop."""

from __future__ import annotations

import asyncio
import socket

from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.probe_profile import DEFAULT_PROFILE
from rpcd_wireguard_uplink.failover.detector import PathHealth
from rpcd_wireguard_uplink.failover.paths import PathSet, WatchedPath
from rpcd_wireguard_uplink.model import Family, Health, PathKind
from rpcd_wireguard_uplink.probing.icmp import Prober, Reply
from rpcd_wireguard_uplink.probing.service_probe import ServiceProber
from rpcd_wireguard_uplink.warnings import Warnings


async def test_other_probes_have_sockets_only_while_ping_is_not_answered(
    mocker: MockerFixture,
) -> None:
    one, other = socket.socketpair()
    services = mocker.patch(
        "rpcd_wireguard_uplink.failover.paths.ServiceProber",
        return_value=mocker.create_autospec(ServiceProber, instance=True, packets=0),
    ).return_value
    services.open.return_value = services.descriptor = one.fileno()
    services.drain.return_value = []
    services.send.side_effect = range(0x10000, 0x10100)
    prober = mocker.create_autospec(Prober, instance=True)
    prober.send.side_effect = range(100)
    health = PathHealth(DEFAULT_PROFILE, ("192.0.2.1", "192.0.2.2"))
    path = WatchedPath("wan", PathKind.WAN, Family.IPV4, health, prober, 0.0, index=1)
    paths = PathSet(lambda _: None, Warnings())
    paths[path.key] = path

    def probe(now_s: float, *, is_answered: bool) -> None:
        path.probe(now_s)
        paths.ask_otherwise(path, now_s)
        prober.drain.return_value = [Reply(prober.send.call_count - 1)] if is_answered else []
        path.collect(now_s + 0.02)
        health.expire(now_s + 0.9)

    for number in range(3):
        probe(float(number), is_answered=True)
    assert path.services is None
    for number in range(3, 8):
        probe(float(number), is_answered=False)
    assert health.state is Health.DOWN and path.services is services and services.send.called
    for number in range(8, 16):
        probe(float(number), is_answered=True)
    assert health.state is Health.UP and path.services is None and services.close.called
    assert not asyncio.get_running_loop().remove_reader(one.fileno()), "it is watched no more"
    one.close()
    other.close()
