"""The nft command: a script goes to its standard input, a set's counters come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.system import nft
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
    ("text", "found"),
    [
        ('{"nftables": []}', {}),
        ('{"nftables": [{"set": {}}]}', {}),
        ('{"nftables": [{"set": {"elem": [{"elem": {"val": "wan"}}]}}]}', {"wan": 0}),
    ],
)
def test_sets_without_counters(text: str, found: dict[str, int]) -> None:
    assert nft.parse_set_counters(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "oops", "[]", "{}", '{"nftables": 7}', '{"nftables": [7]}', "[" * 100_000],
)
def test_what_is_no_listing_is_said(text: str) -> None:
    with pytest.raises(CommandFailed, match="JSON"):
        nft.parse_set_counters(text)


@given(JSON)
def test_any_json_gives_counters_or_a_clear_error(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"nftables": value})):
        try:
            found = nft.parse_set_counters(text)
        except CommandFailed:
            continue
        assert all(isinstance(count, int) for count in found.values())
