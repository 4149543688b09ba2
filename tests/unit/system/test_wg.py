"""The `wg` command: what it prints, and that no private key is ever an argument."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, InvalidArgument
from rpcd_wireguard_uplink.model import Endpoint, PeerCounters, Tunnel
from rpcd_wireguard_uplink.platform.linux import Platform
from rpcd_wireguard_uplink.system import wg
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import Commands, RoutingTables, key_of, replace_commands

SECRET, PUBLIC, PEER = key_of("secret"), key_of("public"), key_of("peer")
TUNNEL = Tunnel("wgup_a", "nodea", SECRET, ("10.1.2.3/32",), PEER, Endpoint("192.0.2.1", 51821))
ELSEWHERE = Endpoint("2001:db8::1", 51821)
DUMP = (
    f"wgup_a\t(none)\t{PUBLIC}\t51820\t0x51\n"
    f"wgup_a\t{PEER}\t(none)\t192.0.2.1:51821\t0.0.0.0/0,::/0\t1700000000\t11\t22\t25\n"
    f"wgup_a\t{key_of('other')}\t(none)\t192.0.2.9:1\t(none)\t1700000000\t1\t1\toff\n"
    f"wgup_b\t(none)\t{PUBLIC}\t0\toff\n"
    f"wgup_b\t{PEER}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    f"wg0\t(none)\t(none)\t0\toff\n"
)

SET_TUNNEL = (
    f"wg set wgup_a private-key /dev/stdin fwmark 0x51 peer {PEER} {{}}"
    "persistent-keepalive 25 allowed-ips 0.0.0.0/0,::/0"
)
SET_SERVED = "wg set wgup_srv private-key /dev/stdin listen-port 51821 fwmark 0x51"


@pytest.fixture
def commands(mocker: MockerFixture) -> Commands:
    return replace_commands(mocker)


def ages_at(wall_s: float) -> wg.Ages:
    """Ages whose clocks stand still."""
    return wg.Ages(lambda: 5000.0, lambda: wall_s)


def test_a_dump() -> None:
    found = wg.parse_dump(DUMP, ages_at(1700000060.5))
    first, other = found["wgup_a"].peers
    both = ("0.0.0.0/0", "::/0")
    assert first == PeerCounters(PEER, "192.0.2.1:51821", 60.5, 11, 22, allowed=both)
    assert (other.public_key, other.allowed) == (key_of("other"), ())
    assert found["wgup_b"].peers == (PeerCounters(PEER, "", None, 0, 0),)
    assert found["wg0"].peers == ()
    earlier = wg.parse_dump(DUMP, ages_at(1600000000.0))
    assert earlier["wgup_a"].peers[0].handshake_age_s == 0, "from the future: it is new"
    assert wg.parse_dump("", ages_at(0)) == {}


async def test_keys_go_in_by_standard_input_only(commands: Commands) -> None:
    commands.answers = {"wg genkey": SECRET + "\n", "wg pubkey": PUBLIC + "\n"}
    assert await wg.generate_keys() == (SECRET, PUBLIC)
    await wg.configure(TUNNEL)
    await wg.configure_served("wgup_srv", SECRET, 51821)
    assert commands.calls == [
        (["wg", "genkey"], ""),
        (["wg", "pubkey"], SECRET + "\n"),
        (SET_TUNNEL.format("endpoint 192.0.2.1:51821 ").split(), SECRET + "\n"),
        (SET_SERVED.split(), SECRET + "\n"),
    ]
    commands.answers["wg set"] = CommandFailed("wg set failed")
    with pytest.raises(CommandFailed) as caught:
        await wg.configure(TUNNEL)
    assert SECRET not in str(caught.value) + repr(TUNNEL)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (Endpoint("192.0.2.1", 51821), "endpoint 192.0.2.1:51821 "),
        (Endpoint("2001:db8::1", 7), "endpoint [2001:db8::1]:7 "),
        (None, ""),  # the known one stays
    ],
)
async def test_a_tunnel_is_set_in_one_command(
    commands: Commands, endpoint: Endpoint | None, words: str
) -> None:
    await wg.configure(replace(TUNNEL, endpoint=endpoint))
    assert commands.lines() == [SET_TUNNEL.format(words)]


async def test_a_name_is_refused(commands: Commands) -> None:
    with pytest.raises(InvalidArgument, match="resolved"):
        await wg.configure(replace(TUNNEL, endpoint=Endpoint("gw.example")))
    assert commands.calls == []


@pytest.mark.parametrize(
    ("shown", "times"),
    [(f"{PEER}\t[2001:db8::1]:7\n", 0), (f"{PEER}\t192.0.2.9:7\n", 3), (CommandFailed("gone"), 0)],
)
async def test_a_new_endpoint_is_insisted_on_for_a_while(
    commands: Commands, mocker: MockerFixture, shown: str | Exception, times: int
) -> None:
    """A packet from the old address may take it back; but a peer may also have moved for good."""
    mocker.patch.object(wg, "ENDPOINT_PAUSE_S", 0.0)
    commands.answers["wg show wgup_a endpoints"] = shown
    await wg.insist_on_endpoint("wgup_a", PEER, Endpoint("2001:db8::1", 7))
    set_again = f"wg set wgup_a peer {PEER} endpoint [2001:db8::1]:7"
    assert commands.lines().count(set_again) == times


@pytest.mark.parametrize(
    ("endpoint", "is_insisted_on"),
    [(Endpoint("192.0.2.1", 51821), False), (Endpoint("192.0.2.1", 7), True), (ELSEWHERE, True)],
    ids=["the same", "another port", "another address"],
)
async def test_only_a_changed_endpoint_is_insisted_on(
    commands: Commands,
    mocker: MockerFixture,
    tmp_path: Path,
    endpoint: Endpoint,
    is_insisted_on: bool,
) -> None:
    mocker.patch.object(wg, "ENDPOINT_PAUSE_S", 0.0)
    platform = Platform(str(tmp_path), str(tmp_path), Warnings())
    await platform._set_peer(TUNNEL)
    platform._applied["wgup_a"] = TUNNEL
    shown = "wg show wgup_a endpoints"
    assert shown not in commands.lines(), "a new tunnel has nothing under way"
    await platform._set_peer(replace(TUNNEL, endpoint=endpoint))
    assert (shown in commands.lines()) is is_insisted_on


async def test_other_peers_go(commands: Commands) -> None:
    commands.answers["wg show"] = f"{PEER}\n{PUBLIC}\n"
    await wg.remove_other_peers(TUNNEL)
    assert commands.lines("wg set") == [f"wg set wgup_a peer {PUBLIC} remove"]


SERVED = (
    f"{SECRET}\t{PUBLIC}\t51821\t0x51\n"
    f"{PEER}\t(none)\t192.0.2.1:4\t10.1.2.3/32,fd00::3/128\t1700000000\t11\t22\t25\n"
    f"{key_of('other')}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
)


async def test_a_device_with_many_peers(commands: Commands) -> None:
    commands.answers["wg show wgup_srv dump"] = SERVED
    found = await wg.read_device("wgup_srv", ages_at(1700000060.5))
    networks = ("10.1.2.3/32", "fd00::3/128")
    first = PeerCounters(PEER, "192.0.2.1:4", 60.5, 11, 22, allowed=networks)
    other = PeerCounters(key_of("other"), "", None, 0, 0)
    assert found == wg.Device(SECRET, PUBLIC, 51821, 0x51, (first, other))
    assert SECRET not in repr(found)


async def test_a_device_that_is_new_or_gone(commands: Commands) -> None:
    commands.answers["wg show wgup_srv dump"] = "(none)\t(none)\t0\toff\n"
    found = await wg.read_device("wgup_srv", ages_at(0))
    assert found == wg.Device("(none)", "(none)", 0, 0, ())
    commands.answers["wg show wgup_srv dump"] = CommandFailed("No such device")
    assert await wg.read_device("wgup_srv", ages_at(0)) is None


@pytest.mark.parametrize("text", ["", DUMP], ids=["nothing", "of all devices"])
async def test_what_is_no_dump_of_a_device(commands: Commands, text: str) -> None:
    commands.answers["wg show wgup_srv dump"] = text
    with pytest.raises(CommandFailed):
        await wg.read_device("wgup_srv", ages_at(0))


async def test_peers_change_in_one_command(commands: Commands) -> None:
    await wg.change_peers("d", [], {})
    assert commands.lines() == []
    await wg.change_peers("d", ["X", "Y"], {"Y": ("10.0.0.1/32", "fd00::1/128")})
    assert commands.lines() == [
        "wg set d peer X remove peer Y remove peer Y allowed-ips 10.0.0.1/32,fd00::1/128"
    ]


async def test_a_device_is_made_by_wireguard_go_where_the_kernel_can_not(
    commands: Commands,
) -> None:
    kernel = RoutingTables(commands=commands)
    await wg.make_device(kernel, "d")
    assert commands.lines() == ["make d wireguard"]
    kernel.refusals["make d"] = CommandFailed("can't make d: Operation not supported")
    await wg.make_device(kernel, "d")
    assert commands.lines()[1:] == ["wireguard-go d"]
    commands.answers["wireguard-go"] = CommandFailed("can't run wireguard-go")
    with pytest.raises(CommandFailed, match=r"can't make d: Operation not supported; can't run"):
        await wg.make_device(kernel, "d")
