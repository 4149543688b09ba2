"""The nft command: a script goes to its standard input, a set's counters come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.system import nft
from rpcd_wireguard_uplink.system.netlink import Message, text
from tests.unit.fakes import replace_commands

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("nftables", "set", "elem", "val", "counter", "packets", "x")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


async def test_a_script_is_one_transaction(mocker: MockerFixture) -> None:
    commands = replace_commands(mocker)
    await nft.run_script("add table inet x\n")
    assert commands.calls == [(["nft", "-f", "-"], "add table inet x\n")]
    commands.answers["nft"] = CommandFailed("no such table")
    with pytest.raises(CommandFailed):
        await nft.run_script("add rule inet x y drop\n")


async def test_a_table_that_is_not_there_is_deleted_too(mocker: MockerFixture) -> None:
    commands = replace_commands(mocker)
    commands.answers["nft delete"] = CommandFailed("No such file or directory")
    await nft.delete_table("inet", "x")
    assert commands.lines() == ["nft delete table inet x"]


async def test_counters_of_a_set(mocker: MockerFixture) -> None:
    commands = replace_commands(mocker)
    elements = [{"elem": {"val": "wan", "counter": {"packets": 7, "bytes": 1}}}, "bare"]
    listed = {"nftables": [{"metainfo": {}}, {"set": {"elem": elements}}]}
    commands.answers["nft -j list set inet wgup heard4"] = json.dumps(listed)
    assert await nft.read_set_counters("wgup", "heard4") == {"wan": 7}
    commands.answers["nft -j"] = CommandFailed("No such file or directory")
    assert await nft.read_set_counters("wgup", "heard6") == {}


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ('{"nftables": []}', {}),
        ('{"nftables": [{"set": {}}]}', {}),
        ('{"nftables": [{"set": {"elem": [{"elem": {"val": "wan"}}]}}]}', {"wan": 0}),
    ],
)
def test_sets_without_counters(listing: str, found: dict[str, int]) -> None:
    assert nft.parse_set_counters(listing) == found


@pytest.mark.parametrize(
    "listing",
    ["", "oops", "[]", "{}", '{"nftables": 7}', '{"nftables": [7]}', "[" * 100_000],
)
def test_what_is_no_listing_is_said(listing: str) -> None:
    with pytest.raises(CommandFailed, match="JSON"):
        nft.parse_set_counters(listing)


@given(JSON)
def test_any_json_gives_counters_or_a_clear_error(value: object) -> None:
    for listing in (json.dumps(value), json.dumps({"nftables": value})):
        try:
            found = nft.parse_set_counters(listing)
        except CommandFailed:
            continue
        assert all(isinstance(count, int) for count in found.values())


def event(kind: int, name: str) -> Message:
    return Message(10 << 8 | kind, bytes(4) + text(1, name))


def test_the_end_of_a_table_is_heard() -> None:
    gone, made, other = event(2, "wgup"), event(0, "wgup"), event(2, "wgup2")
    assert nft.deletes_table([made, other, gone], "wgup")
    assert not nft.deletes_table([made, other, Message(gone.kind, b"\0"), Message(3, b"")], "wgup")


@given(st.binary(max_size=60))
def test_random_events_never_raise(data: bytes) -> None:
    assert nft.deletes_table([Message(10 << 8 | 2, data)], "wgup") in (False, True)
