"""A router on a mesh: its service over fakes of the commands.

The mesh is what the answers of `wg` and `ip` say. Requests of peers are handed to the peer API as
the server would; nothing listens, since the mesh device exists only in those answers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.events import TrustChanged
from rpcd_wireguard_uplink.mesh.http import Request, Response
from rpcd_wireguard_uplink.mesh.registry.directory import MeshPeer
from rpcd_wireguard_uplink.uplinks.adding import Given
from tests.unit.fakes import Commands, key_of
from tests.unit.router import NETWORK, Router, offer

CONFIG = """\
config wireguard-uplink 'uplink'
	option enabled '1'
	option node_id 'me'
	option min_uplinks '0'
	list trusted_peer 'nodea'
	list peer 'nodea 10.9.0.2'
	list peer 'nodeb 10.9.0.3'
"""
PROVIDER = """
config provider 'local'
	option enabled '1'
	option pool4 '10.77.1.0/24'
	option pool6 'fd77::/64'
"""
ADDRESSES = {"lan0": "192.168.1.1", "wan0": "8.8.4.4", "wg0": "10.9.0.1"}


def mesh_dump(count: int) -> str:
    """`wg show all dump` of a device with peers at 10.9.0.2, 10.9.0.3 and so on."""
    lines = [f"wg0\t{key_of('mesh private')}\t{key_of('mesh public')}\t51820\toff"]
    lines += [
        f"wg0\t{key_of(f'mesh {n}')}\t(none)\t192.0.2.{n % 250}:51820"
        f"\t10.9.{n // 250}.{n % 250}/32\t{int(time.time()) - 5}\t1\t2\toff"
        for n in range(2, count + 2)
    ]
    return "\n".join(lines) + "\n"


class MeshRouter(Router):
    """A router that is `me` on a mesh with so many peers."""

    def __init__(self, directory: Path, commands: Commands, peers: int = 3) -> None:
        super().__init__(directory)
        self.commands = commands
        self.machine.addresses = {name: [f"{ip}/24"] for name, ip in ADDRESSES.items()}
        commands.answers["wg show all dump"] = mesh_dump(peers)
        commands.answers["wg show wgup_srv dump"] = CommandFailed("no such device")
        commands.answers["wg pubkey"] = key_of("provider public")
        self.write("wireguard-uplink", CONFIG)
        self.write("network", NETWORK)

    async def ask(
        self,
        path: str,
        table: dict[str, Any] | bytes | None = None,
        *,
        method: str = "",
        source: str = "10.9.0.2",
        device: str = "wg0",
    ) -> Response:
        """Ask as a mesh peer does."""
        body = table if isinstance(table, bytes) else json.dumps(table).encode() if table else b""
        method = method or ("POST" if body else "GET")
        return await self.daemon.peer_api.answer(Request(method, path, body, source, device))

    @property
    def refused(self) -> dict[str, int]:
        """What was refused, by code."""
        return dict(self.daemon.validator.refused)

    def kinds(self, event: str) -> list[str]:
        """The kinds of an event that were told, in order."""
        return [table["kind"] for name, table in self.events if name.endswith(f".{event}")]

    def peer(self, address: str) -> MeshPeer:
        """The mesh peer with this address."""
        found = self.daemon.peers.directory.source(address)
        assert found is not None
        return found


GIVEN = {"endpoint": "192.0.2.7:1", "public_key": key_of("k"), "address": "10.5.5.5"}
HAND_MADE = Given(**GIVEN)


async def say(router: MeshRouter, **changes: Any) -> None:
    """nodea offers its internet over the mesh."""
    assert (await router.ask("/v1/message", offer("nodea", **changes))).status == 200


async def stranger_speaks(router: MeshRouter, peer_id: str, **changes: Any) -> MeshPeer:
    """The mesh peer at 10.9.0.4, whom nobody knows, says that he is this one and offers."""
    peer = router.peer("10.9.0.4")
    router.daemon.agent._on_identity(peer, {"type": "uplink_identity", "peer_id": peer_id})
    router.daemon.agent._on_offer(peer, offer(peer_id, **changes))
    await router.daemon.agent.follow_mesh()
    await router.daemon.agent._announce_config()
    await router.daemon.events.publish_and_wait(TrustChanged())
    router.daemon.automatic.judge_terms()
    return peer
