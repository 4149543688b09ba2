"""How offers travel: what is sent, and that no carrier's failure reaches its caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.options import MqttSettings
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.mesh import advertiser as advertiser_module
from rpcd_wireguard_uplink.mesh.advertiser import Advertiser
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, Withdrawal
from rpcd_wireguard_uplink.mesh.wire.signing import verify
from tests.unit.fakes import Commands, key_of
from tests.unit.mesh_router import MeshRouter

OFFER = Offer(peer_id="me", host="192.0.2.1", public_key=key_of("k"), sequence=5)


@pytest.fixture
async def router(tmp_path: Path, commands: Commands) -> AsyncIterator[MeshRouter]:
    made = MeshRouter(tmp_path, commands)
    made.make()
    yield made
    await made.stop()


async def identified(router: MeshRouter) -> Advertiser:
    """The advertiser of a router that is heard by somebody."""
    await router.daemon.peers.reread()
    await router.daemon.advertiser.follow()
    return router.daemon.advertiser


async def test_what_stands_is_what_was_sent_last(router: MeshRouter) -> None:
    pytest.importorskip("nacl", reason="PyNaCl signs messages")
    advertiser = await identified(router)
    advertiser.publish(OFFER)
    assert advertiser.own is not None
    assert verify(advertiser.own) == advertiser.identity_key
    advertiser.publish(Withdrawal(peer_id="me", sequence=6))
    assert advertiser.own is None


async def test_a_seed_that_cannot_be_read_is_told_without_it(router: MeshRouter) -> None:
    pytest.importorskip("nacl", reason="PyNaCl signs messages")
    (router.directory / "keys" / "identity.seed").write_text("no seed, but a secret")
    advertiser = await identified(router)
    assert "secret" not in router.daemon.warnings["identity"]
    advertiser.publish(OFFER)
    assert advertiser.own is not None and "signature" not in advertiser.own


async def test_mirrornet_that_fails_is_told(router: MeshRouter, mocker: MockerFixture) -> None:
    gossip = mocker.patch.object(
        advertiser_module, "publish_gossip", side_effect=CommandFailed("x")
    )
    await router.daemon.advertiser._gossip({"type": "uplink_offer"})
    assert "mirrornet" in router.daemon.warnings["gossip"]
    gossip.side_effect = None
    await router.daemon.advertiser._gossip({"type": "uplink_offer"})
    assert "gossip" not in router.daemon.warnings


async def test_mqtt_without_its_package_is_a_warning(
    router: MeshRouter, mocker: MockerFixture
) -> None:
    mocker.patch.dict("sys.modules", {"rpcd_wireguard_uplink.extras.mqtt.transport": None})
    daemon = router.daemon
    daemon.store.current = Config(mqtt=MqttSettings(enabled=True, host="192.0.2.1"))
    await daemon.advertiser.follow()
    assert "install rpcd-wireguard-uplink-mqtt" in daemon.warnings["mqtt"]
