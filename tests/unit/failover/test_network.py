"""What the router looks like: lines, underlays, shared fate, and the memory for what went away."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpcd_wireguard_uplink.failover.network import Landscape
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
from rpcd_wireguard_uplink.platform.linux import parse_global_ipv6
from tests.unit.fakes import Machine

V4, V6 = Family.IPV4, Family.IPV6
WAN, MESH, TUNNEL = Link("wan", 2, 0), Link("mesh0", 3, 0), Link("wgup_a", 4, DEVICE_GROUP)
UPLINK = Uplink("nodea", "wgup_a", Endpoint("192.0.2.9"), "key", ("10.0.0.1/32",))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(str(tmp_path))
    found.links = [WAN, MESH, TUNNEL]
    found.routes[V4] = [DefaultRoute(V4, "wan", "198.51.100.1", 10)]
    found.addresses["wan"] = ["198.51.100.2/24", "2001:db8::2/64"]
    found.tunnels["wgup_a"] = Tunnel("wgup_a", "nodea", "SECRET", endpoint=Endpoint("192.0.2.9"))
    return found


@pytest.fixture
async def landscape(machine: Machine) -> Landscape:
    found = Landscape(machine)
    await found.reread([UPLINK])
    return found


async def test_lines(landscape: Landscape) -> None:
    assert landscape.line_devices() == ["wan"]
    assert landscape.lines[V6].primary is None
    assert landscape.prefixes_of("wan") == ["198.51.100.0/24", "2001:db8::/64"]
    assert landscape.route_of("wan", V4).gateway == "198.51.100.1"
    assert landscape.route_of("wgup_a", V4) == DefaultRoute(V4, "wgup_a")
    assert landscape.index_of("mesh0") == 3
    assert landscape.index_of("gone") == 0


async def test_no_tunnel_is_ever_a_line(machine: Machine, landscape: Landscape) -> None:
    machine.links = [WAN, Link("mesh-wg", 7, DEVICE_GROUP)]
    names = ("wgup_a", "mesh-wg", PROVIDER_DEVICE, "wan")
    machine.routes[V4] = [DefaultRoute(V4, name) for name in names]
    await landscape.reread([UPLINK])
    assert landscape.line_devices() == ["wan"]


async def test_a_route_that_is_replaced_is_not_lost(machine: Machine) -> None:
    """A renewed lease takes the default route away for a moment."""
    landscape = Landscape(machine)
    await landscape.reread([])
    full, gone = machine.routes[V4], [list[DefaultRoute]()]

    async def read(family: Family) -> list[DefaultRoute]:
        return gone.pop() if family is V4 and gone else full if family is V4 else []

    machine.read_default_routes = read  # type: ignore[method-assign]
    await landscape.reread([])
    assert landscape.lines[V4].has_route("wan")


async def test_a_line_that_lost_all_is_remembered(machine: Machine, landscape: Landscape) -> None:
    machine.routes.clear()
    machine.addresses.clear()
    machine.links = [TUNNEL]
    await landscape.reread([UPLINK])
    primary = landscape.lines[V4].primary
    assert primary is not None
    assert primary.device == "wan"
    assert await landscape.addresses_of("wan", V4) == ["198.51.100.2/24"]
    assert await landscape.addresses_of("wan", V6) == ["2001:db8::2/64"]
    assert landscape.why_detached("wan", 2, PathKind.WAN, V4) == "its device is gone"


async def test_why_a_path_is_detached(machine: Machine, landscape: Landscape) -> None:
    assert landscape.why_detached("wan", 2, PathKind.WAN, V4) == ""
    assert landscape.why_detached("wan", 2, PathKind.WAN, V6) == "its default route is gone"
    assert landscape.why_detached("wgup_a", 4, PathKind.UPLINK, V4) == ""
    assert landscape.set_carrier(2, False)
    assert not landscape.set_carrier(2, False)
    assert not landscape.set_carrier(99, False)
    assert landscape.why_detached("wan", 2, PathKind.WAN, V4) == "carrier lost"
    assert landscape.set_carrier(2, True)
    machine.routes[V4] = []
    await landscape.reread([UPLINK])
    assert landscape.why_detached("wan", 2, PathKind.WAN, V4) == "its default route is gone"


@pytest.mark.parametrize(
    ("underlay", "second_line", "shares"),
    [("wan", False, True), ("mesh0", False, False), ("wan", True, False), ("", False, False)],
)
async def test_shared_fate(
    machine: Machine, landscape: Landscape, underlay: str, second_line: bool, shares: bool
) -> None:
    machine.towards["192.0.2.9"] = underlay
    if second_line:
        machine.routes[V4].append(DefaultRoute(V4, "wwan", "", 20))
    await landscape.reread([UPLINK])
    await landscape.reread_underlays([UPLINK], {})
    assert landscape.shares_fate("wgup_a") is shares


@pytest.mark.parametrize(
    ("live", "address"),
    [("203.0.113.5:999", "203.0.113.5"), ("[2001:db8::5]:999", "2001:db8::5"), ("", "192.0.2.9")],
)
async def test_the_endpoint_that_is_live_counts(
    machine: Machine, landscape: Landscape, live: str, address: str
) -> None:
    machine.towards[address] = "mesh0"
    await landscape.reread_underlays([UPLINK], {"wgup_a": PeerCounters("k", live, 1.0, 0, 0)})
    assert landscape.underlays == {"wgup_a": "mesh0"}


async def test_the_last_underlay_is_kept_where_no_way_leads(
    machine: Machine, landscape: Landscape
) -> None:
    machine.towards["192.0.2.9"] = "wan"
    await landscape.reread_underlays([UPLINK], {})
    machine.towards.clear()
    await landscape.reread_underlays([UPLINK], {})
    assert landscape.underlays == {"wgup_a": "wan"}
    assert landscape.shares_fate("wgup_a")


async def test_the_owner_may_limit_the_lines(machine: Machine, landscape: Landscape) -> None:
    landscape.limit_lines(("wwan",))
    await landscape.reread([])
    assert landscape.line_devices() == []


async def test_a_limit_is_no_moment_without_a_line(machine: Machine, landscape: Landscape) -> None:
    """Whoever judges between the change and the reading must not see a dead router."""
    landscape.limit_lines(("eth99", "wan"))
    assert landscape.lines[V4].primary is not None, "as before, until the kernel is read"
    await landscape.reread([UPLINK])
    assert landscape.lines[V4].primary is not None
    machine.routes[V4] = []
    await landscape.reread([UPLINK])
    landscape.limit_lines(("wan",))
    await landscape.reread([UPLINK])
    assert landscape.line_devices() == ["wan"], "a dead line is still remembered"
    landscape.limit_lines(("wan2",))
    await landscape.reread([UPLINK])
    assert landscape.lines[V4].primary is None and landscape.line_devices() == []


async def test_a_captive_line_is_detached(landscape: Landscape) -> None:
    landscape.portals = {"wan": "http://portal.example/"}
    assert landscape.why_detached("wan", 2, PathKind.WAN, V4) == "a captive portal wants a login"
    assert landscape.why_detached("wgup_a", 4, PathKind.UPLINK, V4) == ""


async def test_mtu(machine: Machine, landscape: Landscape) -> None:
    machine.links = [Link("wan", 2, 0, mtu=1492)]
    await landscape.reread([])
    assert landscape.mtu_of("wan") == 1492
    assert landscape.mtu_of("gone") == 0


async def test_hosts_that_lose_their_prefix(machine: Machine, landscape: Landscape) -> None:
    """The line's own addresses and the tunnels' are none of the LAN's."""
    six = [DefaultRoute(V6, "wan")]
    machine.routes[V6] = six
    machine.public_ipv6 = {"wan", "wgup_a", "br-lan"}
    await landscape.reread([UPLINK])
    assert not landscape.lost_prefix
    machine.public_ipv6 = {"wan", "wgup_a"}
    await landscape.reread([UPLINK])
    assert not landscape.lost_prefix, "the line is there"
    machine.routes[V6] = []
    await landscape.reread([UPLINK])
    assert landscape.lost_prefix
    machine.public_ipv6 = {"br-lan"}
    await landscape.reread([UPLINK])
    assert not landscape.lost_prefix
    machine.public_ipv6, machine.routes[V6] = set(), six
    await landscape.reread([UPLINK])
    assert not landscape.lost_prefix


async def test_a_lan_that_never_had_a_prefix_loses_none(
    machine: Machine, landscape: Landscape
) -> None:
    machine.routes[V6] = [DefaultRoute(V6, "wan")]
    await landscape.reread([UPLINK])
    machine.routes[V6] = []
    await landscape.reread([UPLINK])
    assert not landscape.lost_prefix


def test_public_addresses_of_devices() -> None:
    text = (
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000000000000000001 02 40 20 80      wan\n"
        "fd000001000000000000000000000001 03 40 00 80   br-lan\n"
        "20010db8000000000000000000000001 04 40 00 20   br-old\n"
        "20010db8000000000000000000000002 05 40 00 80   br-new\n"
        "3ffe0000000000000000000000000002 06 40 00 a0 br-older\n"
        "cut off\n"
    )
    assert parse_global_ipv6(text) == {"br-new"}
