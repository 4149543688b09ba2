"""Mesh transport: asks each peer for its offer now and then, and sends our own to all at once.

A change reaches every peer by a POST within seconds; the slow polling is for what was missed. A
peer that does not answer is asked less and less often.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

from ..config.store import ConfigStore
from ..errors import NotTrusted, UplinkError
from ..tasks import tell, woken
from ..values import dataclass
from .http import request
from .registry.directory import MeshPeer

Table = dict[str, Any]
FIRST_WITHIN_S = 2.0  # new peers are asked soon, but not all at once
FIRST_RETRY_S = 5.0
ASK_AGAIN_S = 1.0  # a peer that makes itself heard is not asked more often than this
LONGEST_PAUSE_S = 1800.0
IDENTITY_S = 3600.0
ANSWER_S = 3.0
ASKED_AT_ONCE = 4
SENT_AT_ONCE = 8
SEND_PAUSES_S = (0.0, 1.0, 4.0)


@dataclass(slots=True)
class _Known:
    """One peer: when it is to be asked, and how it answered."""

    peer: MeshPeer
    due_s: float
    identity_due_s: float = 0.0
    failures: int = 0
    answered_s: float = 0.0
    asked_s: float = float("-inf")
    is_asked: bool = False
    failure: UplinkError | None = None

    def see(self, peer: MeshPeer, now_s: float) -> bool:
        """Take the peer as it is now; whether it may answer again, having shaken hands since."""
        before_s, age_s = self.peer.handshake_age_s, peer.handshake_age_s
        is_new = age_s is not None and (before_s is None or age_s < before_s)
        self.peer = peer
        if is_new and self.failures:
            self.due_s, self.failures = now_s, 0
            return True
        return False

    def hasten(self, now_s: float) -> None:
        """Ask it now, for its identity too, or once it has been left alone for a moment."""
        self.due_s = max(now_s, self.asked_s + ASK_AGAIN_S)
        self.identity_due_s = 0.0

    def begin(self, now_s: float) -> None:
        self.due_s, self.asked_s, self.is_asked = now_s + LONGEST_PAUSE_S, now_s, True

    def end(self, pause_s: float) -> None:
        """It was asked; the pause is what it is given until the next time."""
        self.is_asked = False
        self.due_s = time.monotonic() + pause_s * random.uniform(0.8, 1.2)

    def identify(self, status: int, table: Table, now_s: float) -> bool:
        """Take the answer to the question who it is; whether it says that."""
        if status == 200:
            self.identity_due_s, self.failure = now_s + IDENTITY_S, None
        elif table.get("code") == "not_a_peer":
            self.failure = NotTrusted("it does not know us", code="not_a_peer")
        return status == 200

    def answer(self) -> None:
        self.failures, self.answered_s = 0, time.monotonic()
        if self.failure is not None and self.failure.code != "not_a_peer":
            self.failure = None

    def fail(self, error: UplinkError) -> float:
        """It does not answer; seconds until it is to be asked again. Once may be an accident."""
        if self.failures or not self.answered_s:
            self.failure = error
        pause_s = min(LONGEST_PAUSE_S, FIRST_RETRY_S * 2.0 ** min(self.failures, 10))
        self.failures += 1
        return pause_s


@dataclass(eq=False, repr=False)
class MeshTransport:
    """Asks and tells the mesh peers that it is given.

    `on_identity` and `on_offer` take answers; an offer is None where the peer has none. `sending`
    is the task that sends peers something, if one does.
    """

    _store: ConfigStore
    _on_identity: Callable[[MeshPeer, Table], None]
    _on_offer: Callable[[MeshPeer, Table | None], None]
    sending: asyncio.Task[None] | None = None
    _known: dict[str, _Known] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def follow(self, peers: Iterable[MeshPeer]) -> None:
        """Ask these peers, and no others, from now on."""
        found = {peer.key: peer for peer in peers if peer.addresses}
        for key in self._known.keys() - found.keys():
            del self._known[key]
        now_s = time.monotonic()
        within_s = max(FIRST_WITHIN_S, 0.05 * len(found))
        for key, peer in found.items():
            known = self._known.get(key)
            if known is None:
                self._known[key] = _Known(peer, now_s + random.uniform(0, within_s))
            if known is None or known.see(peer, now_s):
                self._wake.set()

    def ask_soon(self, key: str) -> None:
        """Ask this peer now, or once it has been left alone for a moment."""
        known = self._known.get(key)
        if known is not None and not known.is_asked:
            known.hasten(time.monotonic())
            self._wake.set()

    def failure_of(self, key: str) -> UplinkError | None:
        """Why the peer does not answer as it should, once that is no accident; else None."""
        known = self._known.get(key)
        return known.failure if known is not None else None

    async def run(self) -> None:
        """The task: ask whoever is due, for ever."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                now_s = time.monotonic()
                due = sorted(
                    (k for k in self._known.values() if k.due_s <= now_s and not k.is_asked),
                    key=lambda known: known.due_s,
                )
                for known in due[: max(0, ASKED_AT_ONCE - len(running))]:
                    known.begin(now_s)
                    task = asyncio.get_running_loop().create_task(self._ask(known))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(self._asked)
                next_s = min((known.due_s for known in self._known.values()), default=now_s + 60.0)
                pause_s = max(0.05, next_s - now_s) if len(running) < ASKED_AT_ONCE else 60.0
                await woken(self._wake, min(pause_s, 60.0))
        finally:
            for task in running:
                task.cancel()
            if self.sending is not None:
                self.sending.cancel()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._wake.set()
        _report_failure(task)

    async def _ask(self, known: _Known) -> None:
        pause_s, now_s = LONGEST_PAUSE_S, time.monotonic()
        try:
            if known.identity_due_s <= now_s:
                status, table = await self.call(known.peer, "GET", "/v1/identity")
                if known.identify(status, table, now_s):
                    self._on_identity(known.peer, table)
            if "mesh" in self._store.current.peering.carriers:
                status, table = await self.call(known.peer, "GET", "/v1/offer")
                if status in (200, 404):
                    self._on_offer(known.peer, table if status == 200 else None)
            known.answer()
            pause_s = self._store.current.peering.poll_s
        except UplinkError as error:
            pause_s = known.fail(error)
        finally:
            known.end(pause_s)

    async def call(
        self, peer: MeshPeer, method: str, path: str, table: Mapping[str, Any] | None = None
    ) -> tuple[int, Table]:
        """A peer's answer to a request: its status and JSON object. Raises as http.request."""
        host, port = peer.addresses[0], self._store.current.peering.mesh_port
        return await request(
            host, port, method, path, table, device=peer.device, timeout_s=ANSWER_S
        )

    def publish(self, table: Mapping[str, Any]) -> None:
        """Send a message to every peer, those first that answered last; replaces an older one."""
        if self.sending is not None:
            self.sending.cancel()
        order = sorted(self._known.values(), key=lambda known: -known.answered_s)
        work = self._send_to_all([known.peer for known in order], table)
        self.sending = asyncio.get_running_loop().create_task(work)
        self.sending.add_done_callback(_report_failure)

    async def _send_to_all(self, peers: list[MeshPeer], table: Mapping[str, Any]) -> None:
        for pause_s in SEND_PAUSES_S:
            await asyncio.sleep(pause_s)
            places = asyncio.Semaphore(SENT_AT_ONCE)
            reached = await asyncio.gather(*(self._send(places, peer, table) for peer in peers))
            peers = [peer for peer, done in zip(peers, reached, strict=True) if not done]
            if not peers:
                return

    async def _send(
        self, places: asyncio.Semaphore, peer: MeshPeer, table: Mapping[str, Any]
    ) -> bool:
        async with places:
            try:
                await self.call(peer, "POST", "/v1/message", table)
            except UplinkError:
                return False
            return True


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        tell("asking a peer", error)
