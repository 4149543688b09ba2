"""Whether the kernel forwards for consumers: each switch that is off, and the command for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.proc import (
    DeviceCounters,
    forwarding_fault,
    read_devices,
    read_setting,
)

BOTH = {Family.IPV4: ("wan",), Family.IPV6: ("wan",)}
ON = {
    "ipv4/conf/all/forwarding": "1",
    "ipv4/conf/default/forwarding": "1",
    "ipv4/conf/wan/forwarding": "1",
    "ipv6/conf/all/forwarding": "1",
}
OFF4 = dict.fromkeys((name for name in ON if name.startswith("ipv4")), "0")


@pytest.mark.parametrize(
    ("changed", "lines", "what", "command"),
    [
        ({}, BOTH, "", ""),
        ({**OFF4}, {Family.IPV6: ("wan",)}, "", ""),
        ({"ipv6/conf/all/forwarding": "0"}, {Family.IPV4: ("wan",)}, "", ""),
        (OFF4, BOTH, "forward IPv4:", "sysctl -w net.ipv4.ip_forward=1"),
        (
            {"ipv4/conf/wan/forwarding": "0"},
            BOTH,
            "forward IPv4:",
            "sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.wan.forwarding=1",
        ),
        (
            {"ipv4/conf/wgup_srv/forwarding": "0"},
            BOTH,
            "forward IPv4:",
            "sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.wgup_srv.forwarding=1",
        ),
        (
            {**OFF4, "ipv6/conf/all/forwarding": "0"},
            BOTH,
            "forward IPv4 and IPv6:",
            "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ),
        (
            {"ipv6/conf/all/forwarding": "0", "ipv6/conf/wan/accept_ra": "1"},
            BOTH,
            "forward IPv6:",
            "sysctl -w net.ipv6.conf.wan.accept_ra=2 net.ipv6.conf.all.forwarding=1",
        ),
    ],
)
def test_what_is_off(
    changed: dict[str, str], lines: dict[Family, tuple[str, ...]], what: str, command: str
) -> None:
    settings = {**ON, **changed}
    found = forwarding_fault(lines, lambda name: settings.get(name, ""))
    assert (what in found[0] if what else found[0] == "") and found[1] == command


def test_a_setting_that_is_not_there_is_no_fault() -> None:
    """A kernel without IPv6, a device that is gone."""
    assert read_setting("ipv6/conf/no-such-device/forwarding") == ""
    assert forwarding_fault(BOTH, lambda name: "") == ("", "")


def test_devices_of_any_name_are_counted(tmp_path: Path) -> None:
    """A name that is no ASCII, or not even UTF-8, hides no other device's counters."""
    path = tmp_path / "dev"
    numbers = b"1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n"
    path.write_bytes(
        b"Inter-|   Receive  |  Transmit\n face |bytes    packets errs\n"
        + b"".join(b"%s:%s" % (name, numbers) for name in (b"    lo", "b\xfcro".encode(), b"\xff"))
        + b"eth0.2:123456 7 0 0 0 0 0 0 99 55 0 0 0 0 0 0\nbroken: 1 2\n"
    )
    usual = DeviceCounters(1, 3, 4)
    assert read_devices(str(path)) == {
        **dict.fromkeys(("lo", "büro", "�"), usual),
        "eth0.2": DeviceCounters(123456, 99, 55),
    }
