"""The mesh as a carrier: a peer's offer is asked for slowly, and our own is told to peers at once.

Owns when each peer is asked and how it is backed off. A change reaches every peer by a POST within
seconds; the slow polling is for what was missed. What an answer means is decided by who listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config.peering import PeerSettings
from ..errors import NotTrusted, UplinkError
from ..tasks import tell
from .directory import MeshPeer
from .http import request

Table = dict[str, Any]
FIRST_WITHIN_S = 2.0  # new peers are asked soon, but not all at once
FIRST_RETRY_S = 5.0
ASK_AGAIN_S = 1.0  # a peer that makes itself heard is not asked more often than this
LONGEST_PAUSE_S = 1800.0
IDENTITY_S = 3600.0
ANSWER_S = 3.0
ASKED_AT_ONCE = 4
TOLD_AT_ONCE = 8
TELL_PAUSES_S = (0.0, 1.0, 4.0)


@dataclass(slots=True)
class _Known:
    """What is remembered of one peer between two questions."""

    peer: MeshPeer
    due_s: float
    identity_due_s: float = 0.0
    failures: int = 0
    answered_s: float = 0.0
    asked_s: float = float("-inf")
    is_asked: bool = False
    failure: UplinkError | None = None


@dataclass(slots=True)
class MeshTransport:
    """Asks and tells the mesh peers that it is given.

    `on_identity` and `on_offer` hear of answers; an offer is None where the peer has none.
    `telling` is the task that tells peers something, if one does.
    """

    on_identity: Callable[[MeshPeer, Table], None]
    on_offer: Callable[[MeshPeer, Table | None], None]
    port: int
    poll_s: float = 120.0
    asks_offers: bool = True
    _known: dict[str, _Known] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    telling: asyncio.Task[None] | None = None

    def configure(self, peering: PeerSettings) -> None:
        """Ask by these settings from now on."""
        self.port, self.poll_s = peering.mesh_port, peering.poll_s
        self.asks_offers = "mesh" in peering.carriers

    def follow(self, peers: Iterable[MeshPeer]) -> None:
        """Ask these peers, and no others, from now on."""
        found = {peer.key: peer for peer in peers if peer.addresses}
        for key in self._known.keys() - found.keys():
            del self._known[key]
        now_s = time.monotonic()
        for key, peer in found.items():
            known = self._known.get(key)
            if known is None:
                within_s = max(FIRST_WITHIN_S, 0.05 * len(found))
                self._known[key] = _Known(peer, now_s + random.uniform(0, within_s))
                self._wake.set()
            else:
                if _is_new_session(known.peer, peer) and known.failures:
                    known.due_s, known.failures = now_s, 0
                    self._wake.set()
                known.peer = peer

    def ask_soon(self, key: str) -> None:
        """Ask this peer now, or once it has been left alone for a moment."""
        known = self._known.get(key)
        if known is not None and not known.is_asked:
            known.due_s = max(time.monotonic(), known.asked_s + ASK_AGAIN_S)
            known.identity_due_s = 0.0
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
                    known.due_s, known.asked_s = now_s + LONGEST_PAUSE_S, now_s
                    known.is_asked = True
                    task = asyncio.get_running_loop().create_task(self._ask(known))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(self._asked)
                next_s = min((known.due_s for known in self._known.values()), default=now_s + 60.0)
                pause_s = max(0.05, next_s - now_s) if len(running) < ASKED_AT_ONCE else 60.0
                # wait_for of Python 3.11 may lose a cancellation that meets a wake-up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(pause_s, 60.0)):
                        await self._wake.wait()
        finally:
            for task in running:
                task.cancel()
            if self.telling is not None:
                self.telling.cancel()

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._wake.set()
        _tell_failure(task)

    async def _ask(self, known: _Known) -> None:
        try:
            pause_s = await self._ask_now(known)
        finally:
            known.is_asked = False
        known.due_s = time.monotonic() + pause_s

    async def _ask_now(self, known: _Known) -> float:
        """Ask, and have the answers heard; seconds until the peer is to be asked again."""
        now_s = time.monotonic()
        try:
            if known.identity_due_s <= now_s:
                status, table = await self._request(known.peer, "GET", "/v1/identity")
                if status == 200:
                    known.identity_due_s = now_s + IDENTITY_S
                    self.on_identity(known.peer, table)
                    known.failure = None
                elif table.get("code") == "not_a_peer":
                    known.failure = NotTrusted("it does not know us", code="not_a_peer")
            if self.asks_offers:
                status, table = await self._request(known.peer, "GET", "/v1/offer")
                if status in (200, 404):
                    self.on_offer(known.peer, table if status == 200 else None)
            known.failures, known.answered_s = 0, time.monotonic()
            if known.failure is not None and known.failure.code != "not_a_peer":
                known.failure = None
            pause_s = self.poll_s
        except UplinkError as error:
            if known.failures or not known.answered_s:
                known.failure = error
            pause_s = min(LONGEST_PAUSE_S, FIRST_RETRY_S * 2.0 ** min(known.failures, 10))
            known.failures += 1
        return pause_s * random.uniform(0.8, 1.2)

    async def _request(
        self, peer: MeshPeer, method: str, path: str, table: Mapping[str, Any] | None = None
    ) -> tuple[int, Table]:
        return await request(
            peer.addresses[0],
            self.port,
            method,
            path,
            table,
            device=peer.device,
            timeout_s=ANSWER_S,
        )

    def tell(self, table: Mapping[str, Any]) -> None:
        """Send a message to every peer, those first that answered last; replaces an older one."""
        if self.telling is not None:
            self.telling.cancel()
        order = sorted(self._known.values(), key=lambda known: -known.answered_s)
        work = self._tell_all([known.peer for known in order], table)
        self.telling = asyncio.get_running_loop().create_task(work)
        self.telling.add_done_callback(_tell_failure)

    async def _tell_all(self, peers: list[MeshPeer], table: Mapping[str, Any]) -> None:
        for pause_s in TELL_PAUSES_S:
            await asyncio.sleep(pause_s)
            gate = asyncio.Semaphore(TOLD_AT_ONCE)
            reached = await asyncio.gather(*(self._tell(gate, peer, table) for peer in peers))
            peers = [peer for peer, done in zip(peers, reached, strict=True) if not done]
            if not peers:
                return

    async def _tell(
        self, gate: asyncio.Semaphore, peer: MeshPeer, table: Mapping[str, Any]
    ) -> bool:
        async with gate:
            try:
                await self._request(peer, "POST", "/v1/message", table)
            except UplinkError:
                return False
            return True


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        tell("asking a peer", error)


def _is_new_session(before: MeshPeer, now: MeshPeer) -> bool:
    """Whether the peer has shaken hands since: it may answer now."""
    if now.handshake_age_s is None:
        return False
    return before.handshake_age_s is None or now.handshake_age_s < before.handshake_age_s
