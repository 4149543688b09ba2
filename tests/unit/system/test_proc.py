"""Whether the kernel forwards for consumers: each switch that is off, and the command for it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.proc import (
    DeviceCounters,
    forwarding_fault,
    read_devices,
    read_setting,
)
from tests.unit.apart import apart

BOTH = {Family.IPV4: ("wan",), Family.IPV6: ("wan",)}
SERVED, RA = "ipv4/conf/wgup_srv/forwarding", "ipv6/conf/wan/accept_ra"
ON = {
    "ipv4/conf/all/forwarding": "1",
    "ipv4/conf/default/forwarding": "1",
    "ipv4/conf/wan/forwarding": "1",
    "ipv6/conf/all/forwarding": "1",
}
OFF4 = {name: "0" for name in ON if name.startswith("ipv4")}
OFF6 = {"ipv6/conf/all/forwarding": "0"}
ON4, ON6 = "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"


@pytest.mark.parametrize(
    ("changed", "families", "what", "switches"),
    [
        ({}, "4 6", "", ""),
        (OFF4, "6", "", ""),
        (OFF6, "4", "", ""),
        (OFF4, "4 6", "IPv4", ON4),
        ({"ipv4/conf/wan/forwarding": "0"}, "4", "IPv4", f"{ON4} net.ipv4.conf.wan.forwarding=1"),
        ({SERVED: "0"}, "4", "IPv4", f"{ON4} net.ipv4.conf.wgup_srv.forwarding=1"),
        (OFF4 | OFF6, "4 6", "IPv4, IPv6", f"{ON4} {ON6}"),
        (OFF6 | {RA: "1"}, "4 6", "IPv6", f"net.ipv6.conf.wan.accept_ra=2 {ON6}"),
    ],
)
def test_what_is_off(changed: dict[str, str], families: str, what: str, switches: str) -> None:
    settings = {**ON, **changed}
    lines = {Family(f"ipv{number}"): ("wan",) for number in families.split()}
    told, command = forwarding_fault(lines, lambda name: settings.get(name, ""))
    assert f"forward {what}:" in told if what else told == ""
    assert command == (f"sysctl -w {switches}" if switches else "")


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


@pytest.mark.needs("unshare", "iptables-legacy")
@pytest.mark.parametrize("has_rules", [False, True])
def test_rules_of_iptables_legacy_may_change_connection_marks(has_rules: bool) -> None:
    root = Path(__file__).parents[3]
    program = "from rpcd_wireguard_uplink.system.proc import *; print(has_legacy_marks())"
    add = "iptables-legacy -t mangle -A PREROUTING -j CONNMARK --restore-mark\n" * has_rules
    setup = f"export PYTHONPATH={root}\n{add}"
    found = apart(f"{setup}{sys.executable} -c {shlex.quote(program)}", cwd=root).strip()
    assert found == str(has_rules)
