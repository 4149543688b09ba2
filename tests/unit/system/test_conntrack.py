"""Connections that are deleted by their mark: the message, and what the kernel says to it."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.netlink import parse_attributes
from rpcd_wireguard_uplink.system.nft import ConnectionTracking


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
    assert dict(parse_attributes(message.body, 4)) == {
        8: b"\x02\0\0\0",
        21: b"\x7f\0\0\0",
    }


def test_no_connection_is_no_error_and_a_refusal_is(mocker: MockerFixture) -> None:
    tracking = ConnectionTracking()
    change = mocker.patch.object(tracking._netlink, "change", return_value=[errno.ENOENT])
    tracking.delete_marked(Family.IPV4, 1, 1)
    change.return_value = [errno.EPERM]
    with pytest.raises(CommandFailed, match="not permitted"):
        tracking.delete_marked(Family.IPV4, 1, 1)
    tracking.close()
