"""The nft command: a script goes to its standard input, a set's counters come back."""

from __future__ import annotations

import errno
import shlex
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system import nft
from rpcd_wireguard_uplink.system.netlink import (
    Message,
    attribute,
    network_number,
    parse_attributes,
    text,
)
from rpcd_wireguard_uplink.system.nft import ConnectionTracking
from tests.unit.apart import apart
from tests.unit.fakes import replace_commands


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


ODD_NAMES = [
    *("wan", "b\xfcro", "st*", "*", "a\\b", "a*b", "a\\"),
    *("o'o", "$x", "{", "@a", "-x", "a#b"),
]


@pytest.mark.needs("unshare", "nft")
def test_devices_of_any_name() -> None:
    """Linux takes whatever has no blank, slash or colon; a star is no wildcard here."""
    program = (
        "from rpcd_wireguard_uplink.system.nft import TableReader; "
        "print(*(each.text for each in TableReader('t').read('names')))"
    )
    root = Path(__file__).parents[3]
    elements = nft.names_text(['q"q', *ODD_NAMES, "a\\b*", "\ufffd"])
    script = (
        f"add table inet t; add set inet t names {{ type ifname; elements = {{ {elements} }}; }}"
    )
    command = f"export PYTHONPATH={root}\nnft {shlex.quote(script)}\n"
    found = apart(f"{command}{sys.executable} -c {shlex.quote(program)}", cwd=root).split()
    assert sorted(found) == sorted(ODD_NAMES)


def event(kind: int, name: str) -> Message:
    return Message(10 << 8 | kind, bytes(4) + text(1, name))


def test_the_end_of_a_table_is_heard() -> None:
    gone, made, other = event(2, "wgup"), event(0, "wgup"), event(2, "wgup2")
    assert nft.deleted_tables([made, other, gone]) == ["wgup2", "wgup"]
    assert nft.deleted_tables([made, Message(gone.kind, b"\0"), Message(3, b"")]) == [""]


def test_changes_of_tables_of_others_are_heard() -> None:
    ours, theirs = event(6, "wgup_inbound"), event(12, "fw4")
    generation = Message(10 << 8 | 15, bytes(12))
    assert not nft.changes_others([ours, generation], "wgup")
    assert nft.changes_others([ours, theirs], "wgup")


def test_changes_of_rules_of_others_are_heard() -> None:
    ours, element, rule, gone = event(6, "wgup"), event(12, "fw4"), event(6, "fw4"), event(2, "fw4")
    assert not nft.changes_others_rules([ours, element], "wgup")
    assert nft.changes_others_rules([rule], "wgup") and nft.changes_others_rules([gone], "wgup")


SHARING = {
    "wg-quick": "nft add rule ip t c meta l4proto udp meta mark set ct mark",
    "an owner": "nft add rule ip t c ct mark set meta mark",
    "iptables": "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark",
    "mwan3": "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark "
    "--nfmask 0x3f00 --ctmask 0x3f00",
    "a firewall": "nft add rule ip t c ct state established meta mark set 1",
    "ours": "nft add table inet wgup; nft add chain inet wgup c; "
    "nft add rule inet wgup c ct mark set 1",
}


@pytest.mark.needs("unshare", "nft", "iptables-nft")
@pytest.mark.parametrize("whose", SHARING)
def test_who_else_may_touch_our_bits_of_connection_marks(whose: str) -> None:
    program = (
        "from rpcd_wireguard_uplink.model import INBOUND, SLOT_MASK; "
        "from rpcd_wireguard_uplink.system.nft import TableReader; "
        "print(TableReader('wgup').others_use_connection_marks(INBOUND | SLOT_MASK))"
    )
    root = Path(__file__).parents[3]
    setup = (
        f"export PYTHONPATH={root}\nnft add table ip t\nnft add chain ip t c\n{SHARING[whose]}\n"
    )
    found = apart(f"{setup}{sys.executable} -c {shlex.quote(program)}", cwd=root).strip()
    assert found == str(whose in ("wg-quick", "an owner", "iptables"))


@given(st.binary(max_size=60))
def test_random_rules_never_raise(data: bytes) -> None:
    nft.uses_connection_marks(Message(10 << 8 | 6, bytes(4) + data), 1)


@given(st.binary(max_size=60))
def test_random_events_never_raise(data: bytes) -> None:
    assert len(nft.deleted_tables([Message(10 << 8 | 2, data)])) == 1


# --- connection tracking


@pytest.mark.parametrize(
    ("family", "domain"), [(Family.IPV4, socket.AF_INET), (Family.IPV6, socket.AF_INET6)]
)
def test_one_message_says_family_mark_and_mask(
    mocker: MockerFixture, family: Family, domain: int
) -> None:
    tracking = ConnectionTracking()
    change = mocker.patch.object(tracking._netlink, "change", return_value=[0])
    tracking.delete_marked(family, 0x02000000, 0x7F000000)
    [[message]] = change.call_args.args
    assert message.kind == 0x0102
    assert message.body[:4] == struct.pack("!BBH", domain, 1, 0), "version 1: of that family only"
    # ctnetlink reads both in network order, whatever the machine's is
    assert dict(parse_attributes(message.body, 4)) == {8: b"\x02\0\0\0", 21: b"\x7f\0\0\0"}


def test_what_had_no_answer_is_deleted_alone(mocker: MockerFixture) -> None:
    tracking = ConnectionTracking()
    which = [(1, b"asked"), (1, b"answered"), (18, b"no tuple")]
    found = [
        Message(0x0100, bytes(4) + attribute(*each) + network_number(3, 0b1000 | seen_reply))
        for each, seen_reply in zip(which, (0, 0b10, 0), strict=True)
    ]
    mocker.patch.object(tracking._netlink, "dump", return_value=found)
    change = mocker.patch.object(tracking._netlink, "change", return_value=[0])
    assert tracking.delete_unanswered(Family.IPV4, 1, 1)
    [[message]] = change.call_args.args
    assert message.kind == 0x0102
    assert dict(parse_attributes(message.body, 4)) == {1: b"asked"}, "never all of them"
    tracking.close()


def test_no_connection_is_no_error_and_a_refusal_is(mocker: MockerFixture) -> None:
    tracking = ConnectionTracking()
    change = mocker.patch.object(tracking._netlink, "change", return_value=[errno.ENOENT])
    tracking.delete_marked(Family.IPV4, 1, 1)
    change.return_value = [errno.EPERM]
    with pytest.raises(CommandFailed, match="not permitted"):
        tracking.delete_marked(Family.IPV4, 1, 1)
    tracking.close()
