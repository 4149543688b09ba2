"""Names to addresses: literals at once, failures as '', and a deadline that holds."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.system.dns import in_turns, resolve, resolve_all


@pytest.mark.parametrize(
    ("host", "address"), [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1")]
)
async def test_a_literal_needs_no_look_up(mocker: MockerFixture, host: str, address: str) -> None:
    asked = mocker.patch("socket.getaddrinfo")
    assert await resolve(host) == address
    asked.assert_not_called()


async def test_the_first_address_counts(mocker: MockerFixture) -> None:
    rows = [(0, 0, 0, "", ("192.0.2.7", 0)), (0, 0, 0, "", ("2001:db8::7", 0, 0, 0))]
    mocker.patch("socket.getaddrinfo", return_value=rows)
    assert await resolve("gw.example") == "192.0.2.7"


async def test_every_address_is_found(mocker: MockerFixture) -> None:
    rows = [(0, 0, 0, "", ("2001:db8::7", 0, 0, 0)), (0, 0, 0, "", ("192.0.2.7", 0))]
    mocker.patch("socket.getaddrinfo", return_value=rows)
    assert await resolve_all("gw.example") == ("2001:db8::7", "192.0.2.7")


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ("2001:db8::1 2001:db8::2 192.0.2.1", "2001:db8::1 192.0.2.1 2001:db8::2"),
        ("192.0.2.1 192.0.2.2 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2"),
        ("192.0.2.1 192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"),
        ("127.0.0.1 ::1 0.0.0.0 ff02::1 fe80::1%lan ::ffff:127.0.0.1 192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_families_take_turns(found: str, order: str) -> None:
    """And nobody's tunnel leads to this router itself, whatever a name says."""
    assert in_turns(found.split()) == tuple(order.split())


@pytest.mark.parametrize(
    "outcome", [socket.gaierror("no such name"), UnicodeError("label too long"), []]
)
async def test_what_is_not_found_is_empty(mocker: MockerFixture, outcome: object) -> None:
    if isinstance(outcome, Exception):
        mocker.patch("socket.getaddrinfo", side_effect=outcome)
    else:
        mocker.patch("socket.getaddrinfo", return_value=outcome)
    assert await resolve("gw.example") == ""


async def test_a_resolver_that_hangs_holds_nobody_up(mocker: MockerFixture) -> None:
    release = threading.Event()
    ended = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        release.wait(30)
        ended.set()
        return []

    mocker.patch("socket.getaddrinfo", side_effect=hang)
    assert await asyncio.wait_for(resolve("gw.example", timeout_s=0.05), 10) == ""
    release.set()
    assert await asyncio.to_thread(ended.wait, 10), "the late answer is dropped in silence"
