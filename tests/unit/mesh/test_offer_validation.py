"""What peers say on its way in: whatever can't be theirs is refused by code, counted, and cheap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import UplinkError
from rpcd_wireguard_uplink.mesh.offer_validation import BURST, MOST_REFUSALS
from rpcd_wireguard_uplink.mesh.offers import Source
from rpcd_wireguard_uplink.mesh.registry.directory import Mesh
from rpcd_wireguard_uplink.mesh.wire.signing import Signer
from tests.unit.choices import uplink_of
from tests.unit.fakes import key_of
from tests.unit.router import Router, offer
from tests.unit.waiting import until

Table = dict[str, Any]


class Door:
    """A validator, what it told on the bus, and a signer for each peer."""

    def __init__(self, directory: Path) -> None:
        self.router = Router(directory)
        self.daemon = self.router.make()
        self.book, self.validator = self.daemon.offers, self.daemon.validator
        self.daemon.peers.node_id = "me"
        self.daemon.peers.mesh = Mesh(addresses=frozenset({"198.51.100.9", "2001:db8::9"}))
        self._directory = directory

    @property
    def events(self) -> list[Table]:
        return [table for _, table in self.router.events]

    @property
    def state(self) -> Path:
        return self.router.state_file

    def signer(self, name: str) -> Signer:
        pytest.importorskip("nacl", reason="PyNaCl signs and checks messages")
        return Signer.load(str(self._directory / f"{name}.seed"))

    def direct(self, message: Table | str, sender: str = "nodea") -> bool:
        return self.validator.take(message, Source.DIRECT, "mesh", sender)[1]

    def relayed(self, message: Table | str) -> bool:
        return self.validator.take(message, Source.RELAYED, "mqtt")[1]


@pytest.fixture
async def door(tmp_path: Path) -> Door:
    made = Door(tmp_path)
    own = replace(uplink_of("x"), own_public_key=key_of("mine"))
    await made.daemon.store.edit(lambda config: config.with_uplink(own), tell=False)
    return made


def endpoint(**changes: Any) -> Table:
    return {"host": "192.0.2.7", "port": 51820, "public_key": key_of("key nodea"), **changes}


BAD = [
    (offer("nodeb"), "other_peer"),
    (offer("me"), "own_id"),
    (offer("nodea", endpoint=endpoint(public_key=key_of("mine"))), "key_is_ours"),
    (offer("nodea", endpoint=endpoint(host="fe80::1")), "bad_endpoint"),
    (offer("nodea", endpoint=endpoint(host="198.51.100.9")), "own_address"),
    (offer("nodea", endpoint=endpoint(host="::ffff:198.51.100.9")), "own_address"),
    (offer("nodea", endpoint=endpoint(host="2001:DB8:0::9")), "own_address"),
    (offer("nodea", endpoints=[{"host": "198.51.100.9", "port": 1}]), "own_address"),
    (offer("nodea", sequence=2**53), "invalid_argument"),
    ({}, "invalid_argument"),
]


@pytest.mark.parametrize(("message", "code"), BAD)
async def test_what_cannot_be_the_peers_is_refused_and_counted(
    door: Door, message: Table, code: str
) -> None:
    with pytest.raises(UplinkError) as caught:
        door.direct(message)
    assert caught.value.code == code
    assert door.validator.refused == {code: 1}
    assert not door.book.names
    assert door.events == []
    assert key_of("mine") not in str(caught.value)


async def test_a_neighbours_lan_may_have_the_addresses_of_ours(door: Door) -> None:
    near = {"host": "198.51.100.9", "port": 1, "scope": "link"}
    door.direct(offer("nodea", endpoint=endpoint(host="198.51.100.9"), endpoints=[near]))
    assert set(door.book.names) == {"nodea"}


async def test_a_text_of_a_megabyte_is_refused_unread(door: Door) -> None:
    text = json.dumps(offer("nodea", more="x" * 1_000_000))
    with pytest.raises(UplinkError) as caught:
        door.direct(text)
    assert len(str(caught.value)) < 300
    assert sum(door.validator.refused.values()) == 1


async def test_the_kinds_of_refusals_are_bounded(door: Door) -> None:
    for number in range(3 * MOST_REFUSALS):
        door.validator.count(f"code{number}")
        door.validator.count("code0")
    assert len(door.validator.refused) == MOST_REFUSALS
    assert door.validator.refused["code0"] == 3 * MOST_REFUSALS + 1


# --- what others pass on


async def test_a_relayed_message_must_be_signed_by_the_known_key(door: Door) -> None:
    signer, other = door.signer("nodea"), door.signer("nodeb")
    message = signer.sign(offer("nodea", sequence=5))
    refusals = [
        (message, "unknown_identity", ""),
        (other.sign(offer("nodea", sequence=5)), "identity_changed", signer.key),
        ({**message, "endpoint": endpoint(host="192.0.2.66")}, "bad_signature", signer.key),
        ({**message, "identity": other.key}, "bad_signature", signer.key),
    ]
    for forged, code, known in refusals:
        door.daemon.peers.identities["nodea"] = known
        with pytest.raises(UplinkError) as caught:
            door.relayed(forged)
        assert caught.value.code == code
        assert door.validator.refused[code] >= 1
    with pytest.raises(UplinkError):
        door.relayed(offer("nodea", sequence=5))
    assert not door.book.names
    assert door.relayed(message)
    assert door.book.names["nodea"].carrier == "mqtt"


async def test_a_replay_changes_nothing(door: Door) -> None:
    signer = door.signer("nodea")
    door.daemon.peers.identities["nodea"] = signer.key
    first, second = (signer.sign(offer("nodea", sequence=n)) for n in (5, 6))
    gone = signer.sign({"type": "uplink_withdraw", "peer_id": "nodea", "sequence": 7})
    assert door.relayed(first)
    assert door.relayed(second)
    assert not door.relayed(first)
    assert not door.relayed(second)
    assert door.relayed(gone)
    for old in (first, second, gone):
        assert not door.relayed(old)
    assert not door.book.names
    assert not door.relayed(signer.sign(offer("nodea"))), "without a sequence it may be any"


async def test_a_flood_of_offers_of_one_peer_is_cut_off(door: Door) -> None:
    """Only so many are taken; what it takes back is always believed."""
    refused = 0
    for number in range(10 * BURST):
        try:
            door.direct(offer("nodea", sequence=number, wan_type=f"w{number}"))
        except UplinkError as error:
            assert error.code == "too_many_offers"
            refused += 1
    assert refused > 8 * BURST
    assert door.validator.refused == {"too_many_offers": refused}
    assert len(door.events) < 2 * BURST
    assert door.direct({"type": "uplink_withdraw", "peer_id": "nodea", "sequence": 99_999})
    assert door.direct(offer("nodeb"), sender="nodeb"), "others are heard as before"


# --- what is told


async def test_an_offer_that_says_the_same_again_is_no_news(door: Door) -> None:
    assert door.direct(offer("nodea", sequence=1))
    assert [event["kind"] for event in door.events] == ["offer"]
    assert door.direct(offer("nodea", sequence=2))
    assert door.book.names["nodea"].sequence == 2
    assert len(door.events) == 1
    assert door.direct(offer("nodea", sequence=3, metered=True))
    assert len(door.events) == 2
    assert door.direct({"type": "uplink_withdraw", "peer_id": "nodea", "reason": "the line died"})
    assert (door.events[-1]["kind"], door.events[-1]["cause"]) == ("withdrawn", "the line died")


async def test_many_offers_are_one_write_of_the_state_file(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpcd_wireguard_uplink.storage.state_file.OFFERS_S", 0.05)
    for number in range(10):
        door.direct(offer(f"p{number}"), sender=f"p{number}")
    assert not door.state.exists()
    await until(door.state.exists)
