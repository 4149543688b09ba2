"""What the router looks like: lines, underlays, shared fate, and the memory for what went away."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import (
    DEVICE_GROUP,
    PROVIDER_DEVICE,
    DefaultRoute,
    Endpoint,
    Family,
    Link,
    PathKind,
    PeerCounters,
    Tunnel,
    Uplink,
)
from rpcd_wireguard_uplink.platform import network_reader
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from tests.unit.fakes import Machine

V4, V6 = Family.IPV4, Family.IPV6
WAN, MESH, TUNNEL = Link("wan", 2, mtu=1492), Link("mesh0", 3), Link("wgup_a", 4, DEVICE_GROUP)
UPLINK = Uplink("nodea", "wgup_a", Endpoint("192.0.2.9"), "key", ("10.0.0.1/32",))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(network_reader, "ROUTE_LOSS_S", 0.0)
    found = Machine(str(tmp_path))
    found.links = [WAN, MESH, TUNNEL]
    found.routes[V4] = [DefaultRoute(V4, "wan", "198.51.100.1", 10)]
    found.addresses["wan"] = ["198.51.100.2/24", "2001:db8::2/64"]
    found.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "SECRET", endpoint=Endpoint("192.0.2.9"))
    return found


@pytest.fixture
async def network(machine: Machine) -> NetworkReader:
    found = NetworkReader(machine)
    await found.read([UPLINK])
    return found


async def test_lines(network: NetworkReader) -> None:
    assert network.state.wan_devices() == ["wan"]
    assert network.state.wans[V6].primary is None
    assert network.state.prefixes_of("wan") == ["198.51.100.0/24", "2001:db8::/64"]
    assert network.state.route_of("wan", V4).gateway == "198.51.100.1"
    assert network.state.route_of("wgup_a", V4) == DefaultRoute(V4, "wgup_a")
    assert [network.state.index_of(name) for name in ("mesh0", "gone")] == [3, 0]
    assert [network.state.mtu_of(name) for name in ("wan", "gone")] == [1492, 0]


async def test_no_tunnel_is_ever_a_line(machine: Machine, network: NetworkReader) -> None:
    machine.links = [WAN, Link("mesh-wg", 7, DEVICE_GROUP)]
    names = ("wgup_a", "mesh-wg", PROVIDER_DEVICE, "wan")
    machine.routes[V4] = [DefaultRoute(V4, name) for name in names]
    await network.read([UPLINK])
    assert network.state.wan_devices() == ["wan"]


async def test_a_route_that_is_replaced_is_not_lost(machine: Machine) -> None:
    """A renewed lease takes the default route away for a moment."""
    network = NetworkReader(machine)
    await network.read([])
    full, gone = machine.routes[V4], [list[DefaultRoute]()]

    def read(family: Family) -> list[DefaultRoute]:
        return gone.pop() if family is V4 and gone else full if family is V4 else []

    machine.kernel.default_routes = read  # type: ignore[method-assign]
    await network.read([])
    assert network.state.wans[V4].has_route("wan")


async def test_a_line_that_lost_all_is_remembered(machine: Machine, network: NetworkReader) -> None:
    machine.routes.clear()
    machine.addresses.clear()
    machine.links = [TUNNEL]
    await network.read([UPLINK])
    primary = network.state.wans[V4].primary
    assert primary is not None and primary.device == "wan"
    assert network.state.addresses_of("wan", V4) == ["198.51.100.2/24"]
    assert network.state.addresses_of("wan", V6) == ["2001:db8::2/64"]
    assert why_the_wan_is_detached(network) == "its device is gone"


def why_the_wan_is_detached(network: NetworkReader, family: Family = V4) -> str:
    return network.state.why_detached("wan", 2, PathKind.WAN, family)


async def test_why_a_path_is_detached(machine: Machine, network: NetworkReader) -> None:
    assert why_the_wan_is_detached(network) == ""
    assert why_the_wan_is_detached(network, V6) == "its default route is gone"
    assert network.state.why_detached("wgup_a", 4, PathKind.UPLINK, V4) == ""
    assert network.set_carrier(2, False)
    assert not network.set_carrier(2, False)
    assert not network.set_carrier(99, False)
    assert why_the_wan_is_detached(network) == "the cable or the connection is gone"
    assert network.set_carrier(2, True)
    machine.routes[V4] = []
    await network.read([UPLINK])
    assert why_the_wan_is_detached(network) == "its default route is gone"


@pytest.mark.parametrize(
    ("underlay", "second_line", "shares"),
    [("wan", False, True), ("mesh0", False, False), ("wan", True, False), ("", False, False)],
)
async def test_shared_fate(
    machine: Machine, network: NetworkReader, underlay: str, second_line: bool, shares: bool
) -> None:
    machine.towards["192.0.2.9"] = underlay
    if second_line:
        machine.routes[V4].append(DefaultRoute(V4, "wwan", "", 20))
    await network.read([UPLINK])
    network.read_underlays([UPLINK])
    assert ("wgup_a" in network.state.sharing_underlay()) is shares


@pytest.mark.parametrize(
    ("live", "address"),
    [("203.0.113.5:999", "203.0.113.5"), ("[2001:db8::5]:999", "2001:db8::5"), ("", "192.0.2.9")],
)
async def test_the_endpoint_that_is_live_counts(
    machine: Machine, network: NetworkReader, live: str, address: str
) -> None:
    machine.towards[address] = "mesh0"
    machine.counters = {"wgup_a": PeerCounters("k", live, 1.0, 0, 0)}
    await network.read_counters()
    network.read_underlays([UPLINK])
    assert network.state.underlays == {"wgup_a": "mesh0"}


async def test_the_last_underlay_is_kept_where_no_way_leads(
    machine: Machine, network: NetworkReader
) -> None:
    machine.towards["192.0.2.9"] = "wan"
    network.read_underlays([UPLINK])
    machine.towards.clear()
    network.read_underlays([UPLINK])
    assert network.state.underlays == {"wgup_a": "wan"}
    assert "wgup_a" in network.state.sharing_underlay()


async def test_a_dead_wan_is_remembered_within_the_limit(
    machine: Machine, network: NetworkReader
) -> None:
    await network.read([UPLINK], ("eth99", "wan"))
    assert network.state.wans[V4].primary is not None
    machine.routes[V4] = []
    await network.read([UPLINK], ("wan",))
    assert network.state.wan_devices() == ["wan"]
    await network.read([UPLINK], ("wan2",))
    assert network.state.wans[V4].primary is None and network.state.wan_devices() == []


async def test_a_link_that_falls_during_a_reading_stays_down(
    machine: Machine, network: NetworkReader
) -> None:
    def read(family: Family) -> list[DefaultRoute]:
        network.set_carrier(2, False)
        return []

    machine.kernel.default_routes = read  # type: ignore[method-assign]
    await network.read([UPLINK])
    assert why_the_wan_is_detached(network) == "the cable or the connection is gone"


async def test_hosts_that_lose_their_prefix(machine: Machine, network: NetworkReader) -> None:
    """The line's own addresses and the tunnels' are none of the LAN's."""
    six = [DefaultRoute(V6, "wan")]
    for routes, devices, lost_prefix in (
        (six, {"wan", "wgup_a"}, False),
        ([], {"wan", "wgup_a"}, False),  # a LAN that never had one loses none
        (six, {"wan", "wgup_a", "br-lan"}, False),
        (six, {"wan", "wgup_a"}, False),  # the line is there
        ([], {"wan", "wgup_a"}, True),
        ([], {"br-lan"}, False),
        (six, set(), False),
    ):
        machine.routes[V6], machine.public_ipv6 = routes, devices
        await network.read([UPLINK])
        assert network.state.lost_prefix is lost_prefix, (routes, devices)


@pytest.mark.parametrize(("metric", "held"), [(5, "vpn"), (20, "")])
async def test_a_vpn_that_has_the_default_route(machine: Machine, metric: int, held: str) -> None:
    """Not one that only could have it, and never a tunnel of ours."""
    machine.links.append(Link("vpn", 9, kind="tun"))
    machine.routes[V4] = [
        DefaultRoute(V4, "wgup_a", "", 1),
        *sorted([DefaultRoute(V4, "vpn", "", metric), *machine.routes[V4]], key=lambda r: r.metric),
    ]
    network = NetworkReader(machine)
    await network.read([UPLINK])
    assert network.state.private_default[V4] == held
    assert network.state.only_private(V4) == ""
