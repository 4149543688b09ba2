"""The WANs that default routes tell of, with their memory."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.model import DefaultRoute, Family, Link
from rpcd_wireguard_uplink.system.network import (
    Wans,
    is_private_tunnel,
    own_networks,
    private_tunnels,
)
from rpcd_wireguard_uplink.system.rtnetlink import PPP, Hop, Route

V4 = Family.IPV4


def route(device: str, metric: int = 0, gateway: str = "") -> DefaultRoute:
    return DefaultRoute(V4, device, gateway, metric)


def test_the_wan_with_the_lowest_metric_is_the_primary() -> None:
    wans = Wans().after([route("b", 20), route("a", 10, "192.0.2.1")], ())
    assert (wans.primary, set(wans.known)) == (route("a", 10, "192.0.2.1"), {"a", "b"})
    assert wans == wans.after([route("a", 10, "192.0.2.1"), route("b", 20)], ()), "in any order"
    moved = wans.after([route("a", 10, "192.0.2.2")], ())
    assert moved.primary == route("a", 10, "192.0.2.2"), "a new gateway"


@pytest.mark.parametrize(
    ("found", "tunnels", "only", "wans"),
    [
        # A tunnel is known by its name before anybody marks it.
        ("wgup_a wgup_srv wgup6a wan", [], (), "wan"),
        ("tun wan", ["tun"], (), "wan"),
        # nft would refuse all of a script with such a name.
        ('q"q wan', [], ('q"q', "wan"), "wan"),
        ("q\ufffdq wan", [], ("q\ufffdq", "wan"), "wan"),
        # The owner names the WANs, and their order.
        ("vpn a b", [], ("b", "a"), "b a"),
    ],
)
def test_devices_with_a_default_route_that_are_no_wans(
    found: str, tunnels: list[str], only: tuple[str, ...], wans: str
) -> None:
    routes = [route(name, metric) for metric, name in enumerate(found.split())]
    told = Wans().after(routes, tunnels, only)
    primary = told.primary.device if told.primary is not None else ""
    assert (primary, set(told.known)) == (wans.split()[0], set(wans.split()))
    assert [each.device for each in told.routes] == wans.split()


def test_a_device_that_turns_out_to_be_a_tunnel_is_a_wan_no_longer() -> None:
    """The mesh's own device: it is marked once its peers are known."""
    found = [route("wan", 10), route("wg0")]
    wans = Wans().after(found, ())
    assert wans.primary == route("wg0")
    wans = wans.after(found, ["wg0"])
    assert (wans.primary, set(wans.known)) == (route("wan", 10), {"wan"})


def test_a_wan_without_a_route_is_remembered_as_the_primary() -> None:
    wans = Wans().after([route("a", 10), route("b", 20)], ()).after([route("b", 20)], ())
    assert wans.primary == route("a", 10)
    assert not wans.has_route("a")
    assert wans.after([], ()).primary == route("a", 10)
    assert wans.after([route("c", 5)], ()).primary == route("c", 5), "a better one takes its place"


# --- which devices are WANs

WAN, PPP0, TUN0 = Link("wan", 2), Link("ppp0", 3, hardware=PPP), Link("tun0", 4, kind="tun")


def link(name: str = "x", kind: str = "", hardware: int = 1) -> Link:
    return Link(name, 9, 0, kind=kind, hardware=hardware)


def by(destination: str, index: int, gateway: str = "") -> Route:
    return Route(V4, 254, destination, (Hop(index, gateway),))


@pytest.mark.parametrize(
    ("found", "protocol", "is_private"),
    [
        (link(), "", False),
        (link(), "dhcp", False),
        (link(kind="wireguard"), "", True),
        (link(kind="amneziawg"), "", True),
        (link(kind="tun"), "", True),
        (link(kind="xfrm"), "", True),
        (link(kind="sit"), "", False),
        (link(kind="ip6tnl"), "", False),
        (link(kind="veth"), "", False),
        (link(kind="vlan"), "", False),
        (link(hardware=PPP), "", False),
        # netifd's word comes before the driver's
        (link(kind="tun"), "464xlat", False),
        (link(kind="gre"), "static", False),
        (link(hardware=PPP), "pppoe", False),
        (link(hardware=PPP), "sstp", True),
        (link(), "wireguard", True),
        (link(), "openconnect", True),
        (link(), "none", True),
        # 464XLAT without netifd
        (link("clat", "tun"), "", False),
        (link("464-wan6", "tun"), "", False),
    ],
)
def test_tunnels_of_the_owner(found: Link, protocol: str, is_private: bool) -> None:
    assert is_private_tunnel(found, protocol) is is_private


VPN = [by("", 3), by("", 2, "192.0.2.1"), by("203.0.113.5/32", 2, "192.0.2.1")]


@pytest.mark.parametrize(
    "main",
    [
        [by("", 3)],  # a dial-in alone
        [by("", 3), by("", 2, "192.0.2.1")],  # beside another WAN
        [by("", 3), by("203.0.113.5/32", 2, "192.0.2.1")],  # a host route, no default by it
        [by("", 3), by("", 2, "192.0.2.1"), by("203.0.113.5/32", 3)],
        [by("", 3), by("", 2, "192.0.2.1"), by("203.0.113.5/32", 2)],  # on-link
        [],
    ],
)
def test_a_ppp_device_is_a_wan_unless_its_server_is_reached_by_another(main: list[Route]) -> None:
    assert private_tunnels([WAN, PPP0], {}, main, ()) == frozenset()


def test_what_the_owner_names_is_a_wan() -> None:
    assert private_tunnels([WAN, PPP0], {}, VPN, ()) == {"ppp0"}
    assert private_tunnels([WAN, PPP0], {}, VPN, ("ppp0",)) == frozenset()
    links = [WAN, TUN0, Link("wg0", 5, 0, kind="wireguard"), PPP0]
    assert private_tunnels(links, {}, [], ()) == {"tun0", "wg0"}
    assert private_tunnels(links, {}, [], ("tun0",)) == {"wg0"}
    assert private_tunnels(links, {"tun0": "qmi", "wan": "openvpn"}, [], ()) == {"wg0", "wan"}


@pytest.mark.parametrize(
    ("wans", "networks", "found"),
    [
        ({}, ["2001:db8::/64"], {}),
        ({"wan": ["2001:db8:0:1::2/64"]}, [], {}),
        ({"wan": ["2001:db8:0:1::2/64"]}, ["2001:db8:5::/64"], {"wan": {"2001:db8:5::/64"}}),
        ({"wan": ["192.0.2.2/24"]}, ["2001:db8:5::/64"], {}),
        ({"wan": ["2a00:1::2/64"]}, ["2001:db8:5::/64"], {}),  # three bits in common
        (
            {"wan": ["2001:db8:1::2/64"], "wwan": ["2001:470:1::2/64"]},
            ["2001:db8:5::/64", "2001:470:7::/64"],
            {"wan": {"2001:db8:5::/64"}, "wwan": {"2001:470:7::/64"}},
        ),
        # as near to one as to the other: nobody's
        ({"wan": ["2001:db8:1::2/64"], "wwan": ["2001:db8:1::3/64"]}, ["2001:db8:5::/64"], {}),
    ],
)
def test_networks_that_a_wan_delegated(
    wans: dict[str, list[str]], networks: list[str], found: dict[str, set[str]]
) -> None:
    assert own_networks(wans, networks) == found
