"""How offers travel: our own goes out by every carrier that is on, others' come in by them.

Owns the signing of what is sent and the broker's connection. What a message means is decided
elsewhere; what comes in goes to intake.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config.peering import MqttSettings, PeerSettings
from ..errors import InvalidArgument, NotTrusted, UplinkError
from ..schema.json_message import parse_json_message
from .master_link import publish_gossip
from .offer_validation import OfferValidator
from .offers import Numbering, Source
from .poller import MeshTransport
from .wire.offer import OfferMessage, WithdrawMessage, offer_table, parse_message, withdraw_table
from .wire.signing import Signer, can_sign, verify

if TYPE_CHECKING:
    from ..extras.mqtt.transport import MqttTransport

Table = dict[str, Any]
Message = OfferMessage | WithdrawMessage
FAREWELL_S = 1.0


class Advertiser:
    """The carriers of one router. `current` makes the message that holds now, numbered anew.

    `own` is the offer that was sent last, None where none stands. `folder` is the service's own.
    """

    def __init__(
        self,
        validator: OfferValidator,
        mesh: MeshTransport,
        current: Callable[[], Message],
        folder: str = "/etc/wireguard-uplink",
    ) -> None:
        self.mesh = mesh
        self.numbering = Numbering()
        self.problems: dict[str, str] = {}
        self.identity_key = ""
        self.own: Table | None = None
        self._current = current
        self._validator = validator
        self._folder = folder
        self._has_spoken = False
        self._signer: Signer | None = None
        self._carriers: frozenset[str] = frozenset()
        self._mqtt: MqttTransport | None = None
        self._broker: tuple[MqttSettings, str] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load_identity(self, path: str) -> None:
        """Sign from now on; without it, who only hears us through others won't believe us."""
        if not can_sign():
            return
        try:
            self._signer = await asyncio.to_thread(Signer.load, path)
            self.identity_key = self._signer.key
        except UplinkError as error:
            self.problems["identity"] = str(error)

    async def follow(self, peering: PeerSettings, broker: MqttSettings, node_id: str) -> None:
        """Use the carriers that are configured."""
        self._carriers = peering.carriers
        self.mesh.port, self.mesh.poll_s = peering.mesh_port, peering.poll_s
        self.mesh.asks_offers = "mesh" in peering.carriers
        wanted = (broker, node_id) if broker.enabled else None
        if wanted == self._broker:
            return
        self._broker = wanted
        if self._mqtt is not None:
            await self._mqtt.close()
            self._mqtt = None
        self.problems.pop("mqtt", None)
        if wanted is None:
            return
        try:
            from ..extras.mqtt.transport import MqttTransport
        except ImportError:  # a package of its own on OpenWrt
            self.problems["mqtt"] = "MQTT needs its own package: install rpcd-wireguard-uplink-mqtt"
            return
        try:
            self._mqtt = MqttTransport(
                broker, node_id, self._last_will, self._on_message, self._on_state, self._folder
            )
            self._mqtt.start()
        except UplinkError as error:
            self.problems["mqtt"] = str(error)

    def publish(self, message: Message) -> None:
        """Send our own message to everybody; it replaces what was sent before."""
        table = self._table(message)
        self._has_spoken = True
        self.own = table if isinstance(message, OfferMessage) else None
        if "mesh" in self._carriers:
            self.mesh.tell(table)
        if self._mqtt is not None:
            self._mqtt.publish(_bytes(table))
        if "bus" in self._carriers:
            self._spawn(self._gossip(table))

    async def _gossip(self, table: Table) -> None:
        try:
            await publish_gossip(table)
            self.problems.pop("gossip", None)
        except UplinkError as error:
            self.problems["gossip"] = f"mirrornet did not take the message: {error}"

    async def stop(self) -> None:
        """Let what was sent last get away, and end."""
        if self.mesh.telling is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(FAREWELL_S):
                    await asyncio.shield(self.mesh.telling)
        if self._mqtt is not None:
            await self._mqtt.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the broker's

    def _on_message(self, peer_id: str, payload: bytes) -> None:
        try:
            table = parse_json_message(payload)
            if table.get("peer_id") != peer_id:
                raise InvalidArgument("topic and peer_id differ", code="other_peer")
            if self._broker is not None and peer_id == self._broker[1]:
                self._surpass(table)
                return
        except UplinkError as error:
            self._validator.count(error.code)
            return
        with contextlib.suppress(UplinkError):  # counted there
            self._validator.take(table, Source.RELAYED, "mqtt")

    def _surpass(self, table: Table) -> None:
        """The broker holds what an earlier run of ours has said: if its clock was ahead, or ours
        went back, nobody would believe us before we count on from there.
        """
        sequence = parse_message(table).sequence
        if self._signer is None or self._mqtt is None or sequence is None:
            return
        if verify(table) != self._signer.key:
            raise NotTrusted("another router speaks in this router's name", code="own_id")
        if self.numbering.surpass(sequence):
            self._mqtt.renew()  # the last will must be above it too

    def _on_state(self, problem: str) -> None:
        if problem:
            self.problems["mqtt"] = problem
            return
        self.problems.pop("mqtt", None)
        if self._mqtt is not None and self._has_spoken:
            self._mqtt.publish(_bytes(self._table(self._current())))

    def _last_will(self) -> bytes:
        assert self._broker is not None
        sequence = self.numbering.last_will(time.time())
        gone = WithdrawMessage(self._broker[1], sequence=sequence, reason="connection lost")
        return _bytes(self._table(gone))

    def _table(self, message: Message) -> Table:
        table = (
            offer_table(message) if isinstance(message, OfferMessage) else withdraw_table(message)
        )
        return table if self._signer is None else self._signer.sign(table)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bytes(table: Table) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()
