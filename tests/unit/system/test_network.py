"""The WANs that default routes tell of, with their memory."""

from __future__ import annotations

from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.system.network import Wans

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
