"""How offers travel: what is sent, and that no carrier's failure reaches its caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.peering import MqttSettings, PeerSettings
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.history import Journal
from rpcd_wireguard_uplink.mesh import advertiser as delivery_module
from rpcd_wireguard_uplink.mesh.advertiser import Advertiser
from rpcd_wireguard_uplink.mesh.offer_validation import OfferValidator
from rpcd_wireguard_uplink.mesh.offers import OfferBook
from rpcd_wireguard_uplink.mesh.poller import MeshTransport
from rpcd_wireguard_uplink.mesh.wire.offer import OfferMessage, WithdrawMessage
from rpcd_wireguard_uplink.mesh.wire.signing import verify
from rpcd_wireguard_uplink.model import Endpoint
from tests.unit.fakes import key_of

OFFER = OfferMessage("me", Endpoint("192.0.2.1"), key_of("k"), sequence=5)


@pytest.fixture
async def advertiser(tmp_path: Path) -> AsyncIterator[Advertiser]:
    journal = Journal(str(tmp_path / "state.json"), lambda *_: None, lambda: None, dict)
    mesh = MeshTransport(lambda *_: None, lambda *_: None, 7333)
    made = Advertiser(OfferValidator(OfferBook(), journal), mesh, lambda: OFFER)
    await made.follow(PeerSettings(), MqttSettings(), "me")
    yield made
    await made.stop()


async def test_what_stands_is_what_was_sent_last(advertiser: Advertiser, tmp_path: Path) -> None:
    pytest.importorskip("nacl", reason="PyNaCl signs messages")
    await advertiser.load_identity(str(tmp_path / "seed"))
    advertiser.publish(OFFER)
    assert advertiser.own is not None
    assert verify(advertiser.own) == advertiser.identity_key
    advertiser.publish(WithdrawMessage("me", sequence=6))
    assert advertiser.own is None


async def test_a_seed_that_cannot_be_read_is_told_without_it(
    advertiser: Advertiser, tmp_path: Path
) -> None:
    pytest.importorskip("nacl", reason="PyNaCl signs messages")
    (tmp_path / "seed").write_text("no seed, but a secret")
    await advertiser.load_identity(str(tmp_path / "seed"))
    assert "identity" in advertiser.problems
    assert "secret" not in advertiser.problems["identity"]
    advertiser.publish(OFFER)
    assert advertiser.own is not None and "signature" not in advertiser.own


async def test_mirrornet_that_fails_is_told(advertiser: Advertiser, mocker: MockerFixture) -> None:
    gossip = mocker.patch.object(delivery_module, "publish_gossip", side_effect=CommandFailed("x"))
    await advertiser._gossip({"type": "uplink_offer"})
    assert "mirrornet" in advertiser.problems["gossip"]
    gossip.side_effect = None
    await advertiser._gossip({"type": "uplink_offer"})
    assert "gossip" not in advertiser.problems


async def test_mqtt_without_its_package_is_a_warning(
    advertiser: Advertiser, mocker: MockerFixture
) -> None:
    mocker.patch.dict("sys.modules", {"rpcd_wireguard_uplink.extras.mqtt.transport": None})
    await advertiser.follow(PeerSettings(), MqttSettings(enabled=True, host="192.0.2.1"), "me")
    assert "install rpcd-wireguard-uplink-mqtt" in advertiser.problems["mqtt"]
