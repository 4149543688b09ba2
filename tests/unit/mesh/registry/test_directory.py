"""Who is who on the mesh: what proves a peer, what is only claimed, and whose word goes first."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.options import Pin
from rpcd_wireguard_uplink.mesh.registry import directory as mesh
from rpcd_wireguard_uplink.mesh.registry.directory import Directory, MeshPeer, Record
from rpcd_wireguard_uplink.system.wg import Ages, parse_dump
from tests.unit.fakes import Machine, RoutingTables, key_of, replace_commands

OWN, A, B, C = (key_of(name) for name in ("own", "a", "b", "c"))
SECRET, SHARED = key_of("secret"), key_of("shared")
NOW_S = 1700000060.0


def at(wall_s: float) -> Ages:
    """Ages whose clocks stand still."""
    return Ages(lambda: 5000.0, lambda: wall_s)


def device(name: str) -> str:
    return f"{name}\t{SECRET}\t{OWN}\t51820\toff\n"


def peer(name: str, key: str, allowed: str, handshake_s: int = 1700000000) -> str:
    return f"{name}\t{key}\t{SHARED}\t192.0.2.1:51820\t{allowed}\t{handshake_s}\t11\t22\toff\n"


def peers_of(
    lines: Iterable[str], names: Iterable[str] = ("wg0", "wg1"), own: Iterable[str] = ()
) -> tuple[MeshPeer, ...]:
    """The peers of these devices in a dump."""
    found = parse_dump("".join([*map(device, names), *lines]), at(NOW_S))
    return mesh.peers_on({name: found[name] for name in names}, own)


def proven(*lines: str, own: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Key -> the addresses that prove it, of a dump with the devices wg0 and wg1."""
    found = peers_of(lines, own=own)
    return {one.key: one.addresses for one in found}


def test_a_peer() -> None:
    line = peer("wg0", A, "10.9.0.1/32,fd00::0001/128,192.168.7.0/24")
    assert peers_of([line]) == (
        MeshPeer(
            "wg0",
            A,
            ("10.9.0.1", "fd00::1"),
            "192.0.2.1:51820",
            60.0,
            ("10.9.0.1/32", "fd00::0001/128", "192.168.7.0/24"),
        ),
    )


def test_a_peer_that_was_never_met_and_one_met_in_the_future() -> None:
    line = f"wg0\t{A}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    assert peers_of([line]) == (MeshPeer("wg0", A),)
    assert peers_of([peer("wg0", A, "(none)", 1800000000)])[0].handshake_age_s == 0


WIDE = "0.0.0.0/0 ::/0 10.9.0.0/24 10.9.0.0/31 fd00::/127 fd00::1/32"
NOBODYS = "0.0.0.0/32 127.0.0.1/32 224.0.0.1/32 ::1/128 (none)"


@pytest.mark.parametrize("allowed", f"{WIDE} {NOBODYS}".split())
def test_what_proves_nothing(allowed: str) -> None:
    assert proven(peer("wg0", A, allowed)) == {A: ()}


@pytest.mark.parametrize(
    ("of_a", "of_b", "proof"),
    [
        ("10.9.0.0/24,0.0.0.0/0", "10.9.0.2/32", {A: (), B: ("10.9.0.2",)}),
        ("10.9.0.1/32,10.9.0.9/32", "10.9.0.1/32", {A: ("10.9.0.9",), B: ()}),
        ("fd00::1/128", "fd00:0:0::0001/128", {A: (), B: ()}),
        ("10.9.0.8/32,10.9.0.2/32", "(none)", {A: ("10.9.0.2",), B: ()}),
    ],
    ids=["a wide prefix takes nothing", "two keys", "two spellings", "our own address"],
)
def test_an_address_proves_the_one_key_that_owns_it(
    of_a: str, of_b: str, proof: dict[str, tuple[str, ...]]
) -> None:
    lines = peer("wg0", A, of_a), peer("wg1", B, of_b)
    assert proven(*lines, own=("10.9.0.8/24", "fd00::8/64")) == proof


def test_one_key_on_two_devices_is_one_peer() -> None:
    lines = peer("wg0", A, "10.9.0.1/32", 0), peer("wg1", A, "10.9.0.1/32")
    directory = Directory(peers_of(lines))
    assert [(one.device, one.key) for one in directory.peers] == [("wg1", A)]
    source = directory.source("10.9.0.1", "wg0")
    assert source is not None and source.key == A


def kernel_with(**addresses: str) -> RoutingTables:
    """A kernel whose devices have these addresses."""
    machine = SimpleNamespace(addresses={n: [a] for n, a in addresses.items()}, public_ipv6=set())
    return RoutingTables(machine=cast(Machine, machine))


async def test_mesh_devices(mocker: MockerFixture) -> None:
    names = ("wg0", "wgup_a", "wgup_srv", "home")
    dump = "".join(device(name) + peer(name, A, "10.9.0.1/32,10.9.0.2/32") for name in names)
    replace_commands(mocker).answers = {"wg show all dump": dump}
    kernel = kernel_with(wg0="10.9.0.1/24")
    found = await mesh.read_mesh(kernel, (), Ages())
    assert found.devices == {"wg0": OWN, "home": OWN}
    assert found.own["wg0"] == ("10.9.0.1/24",)
    assert found.peers[0].addresses == ("10.9.0.2",)
    assert SECRET not in repr(found) and SHARED not in repr(found)
    named = await mesh.read_mesh(kernel, ["home", "wgup_a", "wg9"], Ages())
    assert named.devices == {"home": OWN}
    assert [each.device for each in named.peers] == ["home"]
    assert (named.missing, named.found) == (("wgup_a", "wg9"), ("wg0", "home"))


@pytest.mark.parametrize(
    ("allowed", "is_mesh"),
    [
        ("10.9.0.2/32", True),
        ("fd00::2/128,192.168.7.0/24,0.0.0.0/0", True),
        ("0.0.0.0/0,::/0", False),
        ("10.9.0.0/24", False),
        ("(none)", False),
    ],
)
async def test_a_mesh_is_where_a_peer_has_an_address_of_its_own(
    mocker: MockerFixture, allowed: str, is_mesh: bool
) -> None:
    """Beside it a commercial VPN's device, where a stranger's packets come in."""
    commands = replace_commands(mocker)
    dump = device("wg0") + peer("wg0", A, allowed) + device("vpn") + peer("vpn", B, "0.0.0.0/0")
    kernel = kernel_with(wg0="10.9.0.1/24", vpn="10.64.0.9/24")
    commands.answers = {"wg show all dump": dump}
    found = await mesh.read_mesh(kernel, (), Ages())
    assert found.own == ({"wg0": ("10.9.0.1/24",)} if is_mesh else {})
    assert [one.key for one in found.peers] == ([A] if is_mesh else [])
    assert [one.key for one in found.others] == ([B] if is_mesh else [A, B])
    assert set(found.devices) == {"wg0", "vpn"}
    named = await mesh.read_mesh(kernel, ["vpn"], Ages())
    assert (set(named.own), named.others) == ({"vpn"}, ()), "the owner decides"


# --- the directory

PEER_A = MeshPeer("wg0", A, ("10.9.0.1", "fd00::1"), "", 10.0)
PEER_B = MeshPeer("wg0", B, ("10.9.0.2",), "", 20.0)
PEER_C = MeshPeer("wg1", C)
PEERS = (PEER_A, PEER_B, PEER_C)


@pytest.mark.parametrize(
    "text", ["10.9.0.1", "::ffff:10.9.0.1", "fd00::1", "FD00:0::1", "fd00::1%wg0"]
)
def test_a_source(text: str) -> None:
    directory = Directory(PEERS)
    assert directory.source(text) == PEER_A
    assert directory.source(text, "wg0") == PEER_A
    assert directory.source(text, "wg1") is None


@pytest.mark.parametrize("text", ["10.9.0.9", "", "name", "10.9.0.1.1", "0.0.0.0", "fd00::10"])
def test_no_source(text: str) -> None:
    assert Directory(PEERS).source(text) is None


def pin(peer_id: str, key: str) -> Pin:
    return Pin("t", peer_id, key)


AT_A, FAR = Record("nodeA", "", ("192.168.1.5", "10.9.0.1")), key_of("away")


@pytest.mark.parametrize(
    ("words", "named", "bound", "claimants"),
    [
        ({"pins": [pin("nodeA", A)], "said": {A: "x", B: "nodeA"}}, PEER_A, A, (PEER_B,)),
        ({"pins": [pin("nodeA", FAR)], "said": {B: "nodeA"}}, None, FAR, (PEER_B,)),
        ({"mapped": [("nodeA", "FD00::1")], "said": {B: "nodeA"}}, PEER_A, A, (PEER_B,)),
        ({"mapped": [("nodeA", "10.9.0.7")], "said": {B: "nodeA"}}, None, "", (PEER_B,)),
        ({"pins": [pin("nodeB", A)], "mapped": [("nodeA", "10.9.0.1")]}, None, "", ()),
        ({"pins": [pin("nodeA", A)], "mapped": [("nodeA", "10.9.0.2")]}, PEER_A, A, ()),
        ({"records": [AT_A]}, PEER_A, None, (PEER_A,)),
        ({"records": [AT_A], "said": {A: "nodeX"}}, None, None, ()),
        ({"said": {A: "nodeA", B: "nodeA"}}, None, None, (PEER_A, PEER_B)),
        ({"said": {FAR: "nodeA"}}, None, None, ()),
        ({}, None, None, ()),
    ],
    ids=[
        *("a pin binds", "a pin of a peer that is away", "a mapped address binds"),
        *("a mapped address of nobody", "the address has another's pin", "a pin goes first"),
        *("another package's claim", "what it says itself goes first", "two claim it"),
        *("one who is away claims it", "no word"),
    ],
)
def test_whom_an_id_means(
    words: dict[str, Any],
    named: MeshPeer | None,
    bound: str | None,
    claimants: tuple[MeshPeer, ...],
) -> None:
    directory = Directory(PEERS, **words)
    assert directory.named("nodeA") == named
    assert directory.bound_key("nodeA") == bound
    assert directory.claimants("nodeA") == claimants


def test_what_a_key_goes_by() -> None:
    directory = Directory(
        PEERS,
        pins=[pin("pinned", B)],
        mapped=[("mapped", "10.1.1.1")],
        records=[Record("recorded", "", ("10.9.0.1",))],
        said={A: "claimed", B: "another"},
    )
    assert [directory.name_of(key) for key in (A, B, C)] == ["claimed", "pinned", ""]
    assert directory.peer_ids == ["claimed", "mapped", "pinned"]
    assert (directory.of_key(B), directory.of_key(FAR)) == (PEER_B, None)


def test_what_a_peer_is_known_by() -> None:
    directory = Directory(
        PEERS,
        mapped=[("sb-1", "10.9.0.1")],
        records=[Record("sb-1", "House", ("192.168.1.5",)), Record("sb-2", "Barn", ("10.9.0.2",))],
    )
    assert directory.known_as("sb-1") == {"sb-1", "house", "192.168.1.5", "10.9.0.1", "fd00::1"}


# --- our own id


def test_our_own_id(tmp_path: os.PathLike[str], mocker: MockerFixture) -> None:
    path = os.path.join(tmp_path, "node.id")
    mocker.patch("os.uname", return_value=mocker.Mock(nodename="Müllers Router"))
    assert mesh.own_node_id("", path) == "M-llers-Router"
    for text, wanted in (("sb-0011aabbccdd\n", "sb-0011aabbccdd"), ("a b", "M-llers-Router")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        assert mesh.own_node_id("", path) == wanted
    assert mesh.own_node_id("nodeA", path) == "nodeA"


@given(st.text(max_size=100))
def test_any_host_name_fits(name: str) -> None:
    assert mesh.is_peer_id(mesh.fitting_id(name))
