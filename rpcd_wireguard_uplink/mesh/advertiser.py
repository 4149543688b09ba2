"""How offers travel: our own goes out by every carrier that is on, others' come in by them.

Owns the signing of what is sent and the broker's connection. What a message means is decided
elsewhere; what comes in goes to offer_validation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any, Protocol

from ..config.options import MqttSettings
from ..config.store import ConfigStore
from ..errors import InvalidArgument, NotTrusted, UplinkError
from ..reasons import because
from ..schema.json_message import parse_json_message
from ..tasks import TaskSet
from ..values import dataclass
from ..warnings import Warnings
from .offer_validation import OfferValidator
from .offers import Numbering, Source
from .registry.master_link import publish_gossip
from .registry.peers import Peers
from .transport import MeshTransport
from .wire.offer import Offer, Withdrawal, parse_message
from .wire.signing import Signer, can_sign, verify

Table = dict[str, Any]
Message = Offer | Withdrawal
FAREWELL_S = 1.0


class BrokerTransport(Protocol):
    """A connection to a broker that keeps what each router has said last."""

    def start(self) -> None:
        """Connect, and again whenever the connection is lost."""

    async def close(self) -> None:
        """End the connection."""

    def publish(self, payload: bytes) -> object:
        """Say this from now on."""

    def clear(self) -> None:
        """Take back what was said last."""

    def renew(self) -> None:
        """Connect anew, with another last will."""


OpenBroker = Callable[
    [MqttSettings, str, Callable[[], bytes], Callable[[str, bytes], None], Callable[[str], None]],
    BrokerTransport,
]
"""Settings, node id, the last will, who hears messages (peer, payload) and who hears of its state
('' while all is well).
"""


@dataclass(eq=False, repr=False)
class Advertiser:
    """The transports of one router. `current` makes the message that holds now, numbered anew.

    `own` is the offer that was sent last, None where there is none. `seed_file` holds the signing
    key.
    """

    _store: ConfigStore
    _peers: Peers
    _validator: OfferValidator
    _mesh: MeshTransport
    _numbering: Numbering
    _current: Callable[[], Message]
    _open_broker: OpenBroker
    _seed_file: str
    _warnings: Warnings
    _tasks: TaskSet
    own: Table | None = None
    _has_spoken: bool = False
    _signer: Signer | None = None
    _has_identity: bool = False
    _identifying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _mqtt: BrokerTransport | None = None
    _broker: tuple[MqttSettings, str] | None = None

    @property
    def identity_key(self) -> str:
        """The public key that our messages are signed with; '' while they are not."""
        return self._signer.key if self._signer is not None else ""

    async def identify(self) -> None:
        """Sign from now on, where anybody may hear it; the library for it weighs a megabyte.

        Without a signature, who only hears us through others won't believe us.
        """
        config = self._store.current
        is_heard = self._peers.directory.peers or config.mqtt.enabled or config.provider.enabled
        async with self._identifying:
            if is_heard and not self._has_identity:
                self._has_identity = True
                if can_sign():
                    with self._warnings.catch("identity"):
                        self._signer = await asyncio.to_thread(Signer.load, self._seed_file)

    async def follow(self) -> None:
        """Use the transports that are configured."""
        await self.identify()
        config, node_id = self._store.current, self._peers.node_id
        wanted = (config.mqtt, node_id) if config.mqtt.enabled else None
        if wanted == self._broker:
            return
        self._broker = wanted
        if self._mqtt is not None:
            self._mqtt.clear()
            await self._mqtt.close()
            self._mqtt = None
        self._warnings.clear_topic("mqtt")
        if wanted is not None:
            with self._warnings.catch("mqtt"):
                self._mqtt = self._open_broker(
                    config.mqtt, node_id, self._last_will, self._on_message, self._on_state
                )
                self._mqtt.start()

    def publish(self, message: Message) -> None:
        """Send our own message to everybody; it replaces what was sent before."""
        table = self._table(message)
        self._has_spoken = True
        self.own = table if isinstance(message, Offer) else None
        carriers = self._store.current.peering.carriers
        if "mesh" in carriers:
            self._mesh.publish(table)
        if self._mqtt is not None:
            self._mqtt.publish(_bytes(table))
        if "bus" in carriers:
            self._tasks.spawn("gossip", self._gossip(table))

    async def _gossip(self, table: Table) -> None:
        with self._warnings.catch("gossip", sentence=lambda e: because("gossip_refused", e)):
            await publish_gossip(table)

    async def stop(self) -> None:
        """Let what was sent last get away, and end."""
        if self._mesh.sending is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(FAREWELL_S):
                    await asyncio.shield(self._mesh.sending)
        if self._mqtt is not None:
            await self._mqtt.close()

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
            raise NotTrusted(because("name_used"), code="own_id")
        if self._numbering.surpass(sequence):
            self._mqtt.renew()  # the last will must be above it too

    def _on_state(self, problem: str) -> None:
        self._warnings.set("mqtt", problem)
        if problem:
            return
        if self._mqtt is not None and self._has_spoken:
            self._mqtt.publish(_bytes(self._table(self._current())))

    def _last_will(self) -> bytes:
        assert self._broker is not None
        sequence = self._numbering.last_will(time.time())
        gone = Withdrawal(peer_id=self._broker[1], sequence=sequence, reason="connection lost")
        return _bytes(self._table(gone))

    def _table(self, message: Message) -> Table:
        table = message.as_table()
        return table if self._signer is None else self._signer.sign(table)


def _bytes(table: Table) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()
