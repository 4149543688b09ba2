"""The WANs that default routes tell of, with their memory."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.model import DefaultRoute, Family, Link
from rpcd_wireguard_uplink.system.network import (
    Wans,
    is_private_tunnel,
    own_networks,
    ppp_vpns,
    private_tunnels,
)
from rpcd_wireguard_uplink.system.rtnetlink import PPP, Hop, Route

V4 = Family.IPV4


def route(device: str, metric: int = 0, gateway: str = "") -> DefaultRoute:
    return DefaultRoute(V4, device, gateway, metric)


def test_the_wan_with_the_lowest_metric_is_the_primary() -> None:
    wans = Wans().after([route("b", 20), route("a", 10)], ())
    assert wans.primary == route("a", 10)
    assert set(wans.known) == {"a", "b"}
    assert wans == wans.after([route("a", 10), route("b", 20)], ()), "the order says nothing"


def test_a_tunnel_is_known_by_its_name_before_anybody_marks_it() -> None:
    found = [route("wan", 10), route("wgup_a"), route("wgup_srv"), route("wgup6a"), route("tun")]
    wans = Wans().after(found, ["tun"])
    assert (wans.primary, set(wans.known)) == (route("wan", 10), {"wan"})


@pytest.mark.parametrize("name", ['q"q', "q\ufffdq"])
def test_a_device_that_nftables_cannot_be_told_of_is_no_wan(name: str) -> None:
    """Its name in a script would have all of it refused."""
    wans = Wans().after([route(name, 1), route("a", 10)], (), (name, "a"))
    assert wans.primary is not None and wans.primary.device == "a" and [*wans.known] == ["a"]


def test_a_device_that_turns_out_to_be_a_tunnel_is_a_wan_no_longer() -> None:
    """The mesh's own device: it is marked once its peers are known."""
    found = [route("wan", 10), route("wg0")]
    wans = Wans().after(found, ())
    assert wans.primary == route("wg0")
    wans = wans.after(found, ["wg0"])
    assert (wans.primary, set(wans.known)) == (route("wan", 10), {"wan"})
    assert wans.after([], ["wg0"]).primary == route("wan", 10)


def test_a_wan_without_a_route_is_remembered_as_the_primary() -> None:
    wans = Wans().after([route("a", 10), route("b", 20)], ()).after([route("b", 20)], ())
    assert wans.primary == route("a", 10)
    assert not wans.has_route("a")
    assert wans.after([], ()).primary == route("a", 10)


def test_a_wan_that_is_better_takes_its_place() -> None:
    wans = Wans().after([route("b", 20)], ()).after([], ()).after([route("a", 10)], ())
    assert wans.primary == route("a", 10)
    assert wans.after([route("a", 10), route("b", 5)], ()).primary == route("b", 5)


def test_a_new_gateway_is_followed() -> None:
    wans = Wans().after([route("a", 10, "192.0.2.1")], ()).after([route("a", 10, "192.0.2.2")], ())
    assert wans.primary == route("a", 10, "192.0.2.2")


def test_the_owner_may_name_the_wans_and_their_order() -> None:
    wans = Wans().after([route("a", 1), route("b", 2), route("vpn", 0)], (), ("b", "a"))
    assert (wans.primary, set(wans.known)) == (route("b", 2), {"a", "b"})


# --- which devices are WANs


V4 = Family.IPV4
WAN, PPP0, TUN0 = (
    Link("wan", 2, 0),
    Link("ppp0", 3, 0, hardware=PPP),
    Link("tun0", 4, 0, kind="tun"),
)


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


def test_a_ppp_device_is_a_vpn_where_its_server_is_reached_by_another() -> None:
    vpn = [by("", 3), by("", 2, "192.0.2.1"), by("203.0.113.5/32", 2, "192.0.2.1")]
    assert ppp_vpns([WAN, PPP0], vpn) == {"ppp0"}
    assert private_tunnels([WAN, PPP0], {}, vpn, ()) == {"ppp0"}


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
def test_a_dial_in_is_a_wan(main: list[Route]) -> None:
    assert ppp_vpns([WAN, PPP0], main) == frozenset()


def test_what_the_owner_names_is_a_wan() -> None:
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
