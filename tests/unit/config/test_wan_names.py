"""What the names of `list wan` mean: devices, netifd's interfaces, or nothing, which is told."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.config.wan_names import WanNames, unknown_names, wan_devices

NETIFD = {
    "loopback": "lo",
    "lan": "br-lan",
    "wan": "pppoe-wan",
    "wan_fiber": "eth1",
    "wwan": "",
    "wwan_4": "wwan0",
    "lte": "",
}
LINKS = ("lo", "eth1", "eth2", "wan", "br-lan", "pppoe-wan", "wgup_nodea")


@pytest.mark.parametrize(
    ("names", "devices", "unknown"),
    [
        ((), (), ()),
        (("eth1",), ("eth1",), ()),
        (("wan_fiber",), ("eth1",), ()),
        (("wan",), ("pppoe-wan",), ()),
        (("eth2", "wan"), ("eth2", "pppoe-wan"), ()),
        (("wan_fiber", "eth1"), ("eth1",), ()),
        (("wwan",), ("wwan0",), ()),
        (("lte",), ("lte",), ()),
        (("pppoe-lte",), ("pppoe-lte",), ()),
        (("eth99",), (), ("eth99",)),
        (("eth99", "eth1"), ("eth99", "eth1"), ("eth99",)),
        (("a-b", "no-such-wan"), (), ("a-b", "no-such-wan")),
    ],
)
def test_names(names: tuple[str, ...], devices: tuple[str, ...], unknown: tuple[str, ...]) -> None:
    assert wan_devices(names, NETIFD, LINKS) == (devices, unknown)


def test_elsewhere_there_are_devices_only() -> None:
    assert wan_devices(("eth1", "wan_fiber"), {}, LINKS) == (("eth1", "wan_fiber"), ("wan_fiber",))


def test_an_unknown_name_is_told_with_what_there_is() -> None:
    told = unknown_names("wan", ("eth99",), NETIFD, "every WAN is watched")
    assert told == (
        'list wan names "eth99", which this router does not have '
        "(there are lan, wan, wan_fiber, wwan, wwan_4, lte): every WAN is watched"
    )
    assert "wgup" not in unknown_names("wan", ("eth99",), LINKS)
    assert unknown_names("wan", (), NETIFD) == ""
    assert "there is none" in unknown_names("mesh", ("wg9",), ())
    assert "and others" in unknown_names("wan", ("x",), map(str, range(40)))


def test_a_device_that_goes_with_its_line_is_still_meant() -> None:
    wans = WanNames()
    assert wans.follow(("ppp0", "wan"), {"wan": "eth7"}, ("ppp0", "eth7"))
    assert not wans.follow(("ppp0", "wan"), {"wan": ""}, ("eth7",))
    assert (wans.devices, wans.problem) == (("ppp0", "eth7"), "")
    assert wans.follow((), {}, ()) and wans.devices == ()
    wans.follow(("ppp0",), {}, ("eth7",))
    assert wans.devices == () and wans.problem, "a name that was taken out is forgotten"


def test_a_device_that_comes_later_is_used_and_no_more_told() -> None:
    wans = WanNames()
    wans.follow(("wwan0",), {}, ("eth0",))
    assert (wans.devices, bool(wans.problem)) == ((), True)
    assert wans.follow(("wwan0",), {}, ("eth0", "wwan0"))
    assert (wans.devices, wans.problem) == (("wwan0",), "")


def test_another_device_of_an_interface_is_followed() -> None:
    wans = WanNames()
    wans.follow(("wan",), {"wan": "eth1"}, ("eth1", "eth2"))
    assert wans.follow(("wan",), {"wan": "eth2"}, ("eth1", "eth2"))
    assert wans.devices == ("eth2",)
