"""What `ip -j` prints, read; what it is told, as one batch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import DefaultRoute, Family, Link
from rpcd_wireguard_uplink.system import iproute
from tests.unit.fakes import Commands, replace_commands

V4, V6 = Family.IPV4, Family.IPV6


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    return replace_commands(mocker)


@pytest.mark.parametrize(
    ("row", "link"),
    [
        (
            {
                "ifindex": 3,
                "link": "w2",
                "ifname": "wan",
                "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
                "group": "51",
                "ifalias": "secubox_uplink:nodea",
            },
            Link("wan", 3, 51, "secubox_uplink:nodea", True),
        ),
        (
            {"ifindex": 1, "ifname": "lo", "flags": ["LOOPBACK", "UP"], "group": "default"},
            Link("lo", 1, 0, "", True),
        ),
        (
            {"ifindex": 2, "ifname": "e", "flags": ["NO-CARRIER", "UP"], "group": "default"},
            Link("e", 2, 0, "", False),
        ),
        ({"ifindex": 2, "ifname": "e", "flags": ["BROADCAST"]}, Link("e", 2, 0, "", False)),
    ],
)
def test_links(row: dict[str, Any], link: Link) -> None:
    assert iproute.parse_link(row) == link


@pytest.mark.parametrize(
    ("row", "routes"),
    [
        (
            {"dst": "default", "gateway": "192.0.2.1", "dev": "wan", "metric": 7, "flags": []},
            [DefaultRoute(V4, "wan", "192.0.2.1", 7)],
        ),
        ({"dst": "default", "dev": "ppp0", "flags": []}, [DefaultRoute(V4, "ppp0", "", 0)]),
        ({"type": "unreachable", "dst": "default", "metric": 4294967295}, []),
        ({"type": "blackhole", "dst": "default", "dev": "lo"}, []),
        (
            {"dst": "default", "via": {"family": "inet6", "host": "fe80::1"}, "dev": "wan"},
            [DefaultRoute(V4, "wan", "fe80::1", 0)],
        ),
        (
            {
                "dst": "default",
                "metric": 9,
                "nexthops": [
                    {"gateway": "192.0.2.1", "dev": "wan", "weight": 1, "flags": []},
                    {"dev": "ppp0", "weight": 1, "flags": []},
                ],
            },
            [DefaultRoute(V4, "wan", "192.0.2.1", 9), DefaultRoute(V4, "ppp0", "", 9)],
        ),
    ],
)
def test_default_routes(row: dict[str, Any], routes: list[DefaultRoute]) -> None:
    assert iproute.parse_default_route(V4, row) == routes


async def test_routes_come_by_metric(commands: Commands) -> None:
    rows = [{"dev": "a", "metric": 20}, {"dev": "b"}, {"dev": "c", "metric": 10}]
    commands.answers["ip -j -6 route show default table 5179"] = json.dumps(rows)
    found = await iproute.read_default_routes(V6, "5179")
    assert [route.device for route in found] == ["b", "c", "a"]


async def test_a_table_or_family_that_is_not_there_is_empty(commands: Commands) -> None:
    commands.answers["ip"] = CommandFailed("FIB table does not exist")
    assert await iproute.read_default_routes(V4, "5180") == []
    assert await iproute.read_rules(V6) == []
    assert await iproute.read_addresses("gone") == []
    assert await iproute.device_towards("192.0.2.1", 0x51) == ""
    with pytest.raises(CommandFailed):
        await iproute.read_links()


async def test_a_plain_ip_is_told_from_ip_full(commands: Commands) -> None:
    commands.answers["ip"] = "1: lo: <LOOPBACK> mtu 65536\n"
    with pytest.raises(CommandFailed, match="ip-full"):
        await iproute.read_links()


async def test_only_global_addresses_count(commands: Commands) -> None:
    infos = [
        {"family": "inet", "local": "192.0.2.2", "prefixlen": 24, "scope": "global"},
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        {"family": "inet6", "local": "2001:db8::2", "prefixlen": 64, "scope": "global"},
    ]
    # Some releases of ip print an empty row for each device that was not asked for.
    commands.answers["ip -j address show dev wan"] = json.dumps([{}, {"addr_info": infos}])
    assert await iproute.read_addresses("wan") == ["192.0.2.2/24", "2001:db8::2/64"]


async def test_the_mark_is_asked_with(commands: Commands) -> None:
    commands.answers["ip -j route get 192.0.2.9 mark 0x51"] = '[{"dst":"192.0.2.9","dev":"wan"}]'
    assert await iproute.device_towards("192.0.2.9", 0x51) == "wan"


async def test_a_batch_is_one_process(commands: Commands) -> None:
    await iproute.batch(V4, ["route add default dev a", "rule add pref 1 lookup 2"])
    assert commands.lines() == ["ip -4 -batch -"]
    assert commands.inputs("ip") == ["route add default dev a\nrule add pref 1 lookup 2\n"]
    await iproute.batch(V6, ["x"], force=True)
    assert commands.lines("ip -6") == ["ip -6 -force -batch -"]


async def test_an_empty_batch_is_none(commands: Commands) -> None:
    await iproute.batch(V4, [])
    assert commands.calls == []


async def test_a_batch_fails_unless_forced(commands: Commands) -> None:
    commands.answers["ip"] = CommandFailed("no")
    with pytest.raises(CommandFailed):
        await iproute.batch(V4, ["x"])
    await iproute.batch(V4, ["x"], force=True)


async def test_addresses_become_the_wanted_ones(commands: Commands) -> None:
    info = [
        {"local": "10.1.2.1", "prefixlen": 24, "scope": "global"},
        {"local": "10.1.2.2", "prefixlen": 24, "scope": "global"},
        {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
    ]
    commands.answers["ip -j address"] = json.dumps([{"addr_info": info}])
    await iproute.set_addresses("d", ("10.1.2.2/24", "fd00::1/64"))
    assert commands.inputs("ip -4 -batch") == [
        "address delete 10.1.2.1/24 dev d\naddress replace 10.1.2.2/24 dev d\n"
    ]
    assert commands.inputs("ip -6 -batch") == ["address replace fd00::1/64 dev d\n"]
