"""What peers may ask, and who is let through: one answer and one count for each that is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rpcd_wireguard_uplink.mesh.wire.lease import LeaseRelease, LeaseRequest
from tests.unit.fakes import key_of
from tests.unit.mesh_router import MeshRouter
from tests.unit.router import offer

KEY = key_of("consumer")


def wanted(peer_id: str = "nodea", key: str = KEY) -> dict[str, Any]:
    return LeaseRequest(peer_id=peer_id, public_key=key).as_table()


@pytest.mark.parametrize(
    ("source", "device"),
    [
        ("10.9.0.2", "lan0"),  # right address, wrong device
        ("10.9.0.99", "wg0"),  # nobody's
        ("10.9.0.1", "wg0"),  # our own
        ("192.168.1.7", "wg0"),
        ("", "wg0"),
        ("not an address", "wg0"),
    ],
)
async def test_a_forged_source_gets_403_everywhere(
    provider: MeshRouter, source: str, device: str
) -> None:
    paths = ("/v1/identity", "/v1/offer", "/v1/message", "/v1/lease")
    for path in paths:
        answer = await provider.ask(path, offer("nodea"), source=source, device=device)
        assert (answer.status, answer.table["code"]) == (403, "not_a_peer"), path
    assert provider.refused == {"not_a_peer": len(paths)}
    assert not provider.daemon.offers.names


async def test_a_stranger_learns_who_this_is_and_is_asked_for_its_name(
    provider: MeshRouter,
) -> None:
    answer = await provider.ask("/v1/identity", source="10.9.0.4")
    assert (answer.status, answer.table["peer_id"]) == (200, "me")
    assert (await provider.ask("/v1/offer", source="10.9.0.4")).status == 404
    answer = await provider.ask("/v1/message", offer("nodex"), source="10.9.0.4")
    assert (answer.status, answer.table["code"]) == (403, "unknown")
    assert not provider.daemon.offers.names


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, None),
        (b"[1]", 400, None),
        (json.dumps(offer("nodeb")).encode(), 403, "other_peer"),
        (json.dumps(offer("me")).encode(), 400, "own_id"),
    ],
)
async def test_what_is_no_message_of_the_peer(
    provider: MeshRouter, body: bytes, status: int, code: str | None
) -> None:
    answer = await provider.ask("/v1/message", body, method="POST")
    assert answer.status == status, answer
    assert code in (None, answer.table["code"])
    assert len(str(answer.table["error"])) < 300
    assert sum(provider.refused.values()) == 1
    assert not provider.daemon.offers.names


async def test_a_lease_for_a_trusted_peer_alone(provider: MeshRouter) -> None:
    granted = await provider.ask("/v1/lease", wanted())
    assert granted.status == 200, granted
    assert str(granted.table["addresses"][0]).startswith("10.77.1.")  # type: ignore[index]
    again = await provider.ask("/v1/lease", wanted())
    assert again.table["addresses"] == granted.table["addresses"]
    for table, source, code in (
        (wanted("nodeb", key_of("b")), "10.9.0.3", "not_trusted"),
        (wanted("nodeb", key_of("b")), "10.9.0.2", "other_peer"),
        (wanted("nodea", key_of("b")), "10.9.0.3", "other_peer"),
        (wanted("nodea", provider.daemon.lease_server.site.public_key), "10.9.0.2", "key_in_use"),
    ):
        answer = await provider.ask("/v1/lease", table, source=source)
        assert (answer.status in (403, 409), answer.table["code"]) == (True, code)
    assert provider.refused == {"not_trusted": 1, "other_peer": 2, "key_in_use": 1}
    assert [row.peer_id for row in provider.daemon.lease_server.consumer_rows()] == ["nodea"]


async def test_only_its_holder_gives_a_lease_back(provider: MeshRouter) -> None:
    await provider.ask("/v1/lease", wanted())
    for peer, source, status, gone in (
        ("nodea", "10.9.0.3", 403, None),
        ("nodeb", "10.9.0.3", 200, False),
        ("nodea", "10.9.0.2", 200, True),
        ("nodea", "10.9.0.2", 200, False),
    ):
        table = LeaseRelease(peer_id=peer, public_key=KEY).as_table()
        answer = await provider.ask("/v1/lease", table, method="DELETE", source=source)
        assert (answer.status, answer.table.get("released")) == (status, gone)


async def test_inside_the_tunnel_the_address_is_the_lease(provider: MeshRouter) -> None:
    granted = await provider.ask("/v1/lease", wanted())
    address = str(granted.table["addresses"][0]).partition("/")[0]  # type: ignore[index]
    tunnel = {"device": "wgup_srv"}
    assert (await provider.ask("/v1/lease", wanted(), source=address, **tunnel)).status == 200
    for path, table, source in (
        ("/v1/lease", wanted(), "10.77.1.200"),
        ("/v1/lease", wanted(), "10.9.0.2"),
        ("/v1/lease", wanted(key=key_of("other")), address),
        ("/v1/lease", wanted("nodeb"), address),
        ("/v1/message", offer("nodea"), address),
        ("/v1/identity", None, address),
    ):
        answer = await provider.ask(path, table, source=source, **tunnel)
        assert (answer.status, answer.table["code"]) == (403, "no_lease")
    assert provider.refused == {"no_lease": 6}


async def test_refusals_name_no_key(provider: MeshRouter) -> None:
    for table in (wanted("nodeb"), wanted("nodea", "short"), {**wanted(), "avoid": ["x"]}):
        answer = await provider.ask("/v1/lease", table)
        assert answer.status >= 400
        assert KEY not in json.dumps(dict(answer.table))
