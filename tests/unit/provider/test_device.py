"""The provider's part of the kernel: what is run for a plan, and that a second time is nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, NotFound
from rpcd_wireguard_uplink.model import Family, Link, mark_alias
from rpcd_wireguard_uplink.platform.openwrt import _marked_others
from rpcd_wireguard_uplink.platform.tunnels import plan_devices
from rpcd_wireguard_uplink.provider.device import PROVIDER_ALIAS, Provider
from rpcd_wireguard_uplink.provider.plan import Lease, ProviderPlan
from rpcd_wireguard_uplink.system import process
from tests.unit.fakes import Commands, key_of

SECRET = key_of("secret")
A = Lease("nodea", key_of("a"), ("10.61.7.2/32", "fd61:7::2/128"))
B = Lease("nodeb", key_of("b"), ("10.61.7.3/32", "fd61:7::3/128"))
PLAN = ProviderPlan(
    SECRET, 51821, ("10.61.7.1/24", "fd61:7::1/64"), (A, B), {Family.IPV4: ("wan",)}, ("1.1.1.1",)
)
DEVICE = {"ifname": "wgup_srv", "ifindex": 9, "group": "51", "flags": ["UP"]}


class Kernel(Commands):
    """Commands whose answers follow what the provider's device should be like."""

    def has(self, *leases: Lease, alias: str = PROVIDER_ALIAS, key: str = SECRET) -> None:
        """The device stands, with these consumers."""
        self.answers["ip -j link"] = json.dumps([{**DEVICE, "ifalias": alias}])
        lines = [f"{key}\t{key_of('public')}\t51821\t0x51"]
        lines += [
            f"{each.public_key}\t(none)\t192.0.2.9:4\t{','.join(each.addresses)}\t0\t11\t22\toff"
            for each in leases
        ]
        self.answers["wg show wgup_srv dump"] = "\n".join(lines) + "\n"


@pytest.fixture
def kernel(mocker: MockerFixture) -> Kernel:
    made = Kernel(answers={"nft list tables": "table inet fw4\ntable inet wgup_provider\n"})
    mocker.patch.object(process, "run", made.run)
    return made


def changing(kernel: Commands) -> list[str]:
    """What was run that is more than reading."""
    reading = ("ip -j", "wg show", "nft list")
    lines = [line for line in kernel.lines() if not line.startswith(reading)]
    kernel.calls.clear()
    return lines


async def test_rules_stand_before_the_device_and_consumers_come_last(kernel: Kernel) -> None:
    await Provider().apply(PLAN)
    run = changing(kernel)
    assert run[:2] == ["nft -f -", "ip link add dev wgup_srv type wireguard"]
    assert run[-1] == (
        f"wg set wgup_srv peer {A.public_key} allowed-ips 10.61.7.2/32,fd61:7::2/128 "
        f"peer {B.public_key} allowed-ips 10.61.7.3/32,fd61:7::3/128"
    )
    assert "wg set wgup_srv private-key /dev/stdin listen-port 51821 fwmark 0x51" in run
    assert not [line for line in run if SECRET in line]


async def test_the_key_goes_in_by_standard_input(kernel: Kernel) -> None:
    await Provider().apply(PLAN)
    assert kernel.inputs("wg set wgup_srv private-key") == [SECRET + "\n"]


async def test_the_same_plan_again_only_reads(kernel: Kernel) -> None:
    provider = Provider()
    await provider.apply(PLAN)
    kernel.has(A, B)
    changing(kernel)
    await provider.apply(PLAN)
    assert len(kernel.calls) <= 4
    assert changing(kernel) == []


async def test_a_deleted_table_comes_back(kernel: Kernel) -> None:
    provider = Provider()
    await provider.apply(PLAN)
    kernel.has(A, B)
    changing(kernel)
    kernel.answers["nft list tables"] = "table inet fw4\ntable inet wgup_provider2\n"
    await provider.apply(PLAN)
    assert changing(kernel) == ["nft -f -"]


async def test_a_deleted_device_is_made_again(kernel: Kernel) -> None:
    provider = Provider()
    kernel.has(A, B)
    await provider.apply(PLAN)
    kernel.answers["ip -j link"] = "[]"
    changing(kernel)
    await provider.apply(PLAN)
    run = changing(kernel)
    assert run[0] == "ip link add dev wgup_srv type wireguard"
    assert len([line for line in run if " allowed-ips " in line]) == 1


async def test_only_who_comes_or_goes_is_touched(kernel: Kernel) -> None:
    provider = Provider()
    await provider.apply(PLAN)
    kernel.has(A, B)
    changing(kernel)
    await provider.apply(replace(PLAN, leases=(A,)))
    assert changing(kernel) == [f"wg set wgup_srv peer {B.public_key} remove"]
    kernel.has(A)
    moved = replace(A, addresses=("10.61.7.9/32",))
    await provider.apply(replace(PLAN, leases=(moved,)))
    assert changing(kernel) == [
        f"wg set wgup_srv peer {A.public_key} allowed-ips 10.61.7.9/32",
    ]


async def test_another_port_is_set_in_place(kernel: Kernel) -> None:
    kernel.has(A, B)
    provider = Provider()
    await provider.apply(PLAN)
    changing(kernel)
    await provider.apply(replace(PLAN, listen_port=6000))
    [line] = changing(kernel)
    assert line.endswith("listen-port 6000 fwmark 0x51")


async def test_a_device_that_is_down_is_set_up(kernel: Kernel) -> None:
    kernel.has(A, B)
    provider = Provider()
    await provider.apply(PLAN)
    kernel.answers["ip -j link"] = json.dumps([{**DEVICE, "flags": [], "ifalias": PROVIDER_ALIAS}])
    changing(kernel)
    await provider.apply(PLAN)
    assert "ip link set dev wgup_srv mtu 1420 up" in changing(kernel)


@pytest.mark.parametrize(
    ("alias", "key", "is_ours"),
    [
        (PROVIDER_ALIAS, key_of("older"), True),
        ("", SECRET, True),
        ("", "(none)", True),
        ("", key_of("older"), False),
        ("somebody's", SECRET, False),
        (mark_alias("provider"), SECRET, False),
    ],
)
async def test_a_device_of_that_name(kernel: Kernel, alias: str, key: str, is_ours: bool) -> None:
    kernel.has(A, B, alias=alias, key=key)
    if is_ours:
        await Provider().apply(PLAN)
        marked = f"link set dev wgup_srv alias {PROVIDER_ALIAS}" in "".join(
            kernel.inputs("ip -4 -batch")
        )
        assert marked is (alias == "")
        return
    with pytest.raises(CommandFailed, match="not ours"):
        await Provider().apply(PLAN)
    await Provider().remove()
    assert not [line for line in changing(kernel) if "wgup_srv" in line]


def test_the_platforms_leave_the_device_alone() -> None:
    links = [Link("wgup_srv", 9, 51, PROVIDER_ALIAS), Link("wgup_x", 10, 51, mark_alias("x"))]
    assert plan_devices([], links, {}).delete == ("wgup_x",)
    assert _marked_others(links, ()) == ["wgup_x"]


async def test_what_failed_is_tried_again(kernel: Kernel) -> None:
    provider = Provider()
    for failing in ("nft -f", "wg set", "ip link set", "tc -batch"):
        kernel.answers[failing] = CommandFailed("no")
        with pytest.raises(CommandFailed):
            await provider.apply(replace(PLAN, limit_mbps=20))
        del kernel.answers[failing]
        kernel.calls.clear()
        await provider.apply(replace(PLAN, limit_mbps=20))
        again = kernel.lines(failing.replace("tc -batch", "tc"))
        assert again != [], failing
        provider = Provider()


async def test_closing_is_the_first_that_happens(kernel: Kernel) -> None:
    kernel.has(A, B)
    provider = Provider()
    await provider.apply(PLAN)
    changing(kernel)
    await provider.apply(replace(PLAN, is_open=False))
    [script] = kernel.inputs("nft -f -")
    assert "accept" not in script.partition("chain from_consumers")[2].partition("}")[0]
    assert changing(kernel) == [
        "nft -f -",
        "conntrack -f ipv4 -D -s 10.61.7.0/24",
        "conntrack -f ipv6 -D -s fd61:7::/64",
    ]


async def test_the_lines_own_networks_are_closed(kernel: Kernel) -> None:
    info = [{"local": "198.51.100.2", "prefixlen": 29, "scope": "global"}]
    kernel.answers["ip -j address show dev wan"] = json.dumps([{"addr_info": info}])
    await Provider().apply(PLAN)
    assert "198.51.100.0/29" in kernel.inputs("nft -f -")[0]


async def test_counters(kernel: Kernel) -> None:
    kernel.has(A, B)
    found = await Provider().read_peers()
    assert found.keys() == {A.public_key, B.public_key}
    assert (found[A.public_key].rx_bytes, found[A.public_key].tx_bytes) == (11, 22)
    kernel.answers["wg show wgup_srv dump"] = CommandFailed("No such device")
    assert await Provider().read_peers() == {}


async def test_a_consumer_is_let_in_again(kernel: Kernel) -> None:
    provider = Provider()
    with pytest.raises(NotFound):
        await provider.readmit(A.public_key)
    await provider.apply(PLAN)
    changing(kernel)
    await provider.readmit(A.public_key)
    assert changing(kernel) == [
        f"wg set wgup_srv peer {A.public_key} remove "
        f"peer {A.public_key} allowed-ips 10.61.7.2/32,fd61:7::2/128"
    ]


async def test_removing(kernel: Kernel) -> None:
    provider = Provider()
    await provider.apply(PLAN)
    kernel.has(A, B)
    changing(kernel)
    await provider.remove()
    gone = ["ip link delete dev wgup_srv", "nft delete table inet wgup_provider"]
    assert changing(kernel) == gone
    with pytest.raises(NotFound):
        await provider.readmit(A.public_key)
    await provider.apply(PLAN)
    assert "nft -f -" in changing(kernel)
