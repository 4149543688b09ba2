"""The bus for an asyncio program: what is published, listened to and called stays so.

A Client keeps what is wanted (objects, listeners, subscriptions) and restores it after a lost
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ..errors import BusError, CallFailed, NameTaken, NotFound, Status, TimedOut
from .blobmsg import encode_table, text_of
from .blocking import BlockingBus
from .dispatch import Dispatcher, report
from .framing import Attr
from .objects import BusObject, Callback, Listener, ObjectInfo, parse_signature
from .protocol import Completed, Unsubscribed
from .session import ANSWER_S, Session, result_of, status_of

RETRY_S = 0.2
RECLAIM_S = 1.0
MAX_KNOWN = 256


class _Subscription:
    """A path whose object's notifications are wanted, whether it is on the bus now or not."""

    def __init__(self, path: str, callback: Callback) -> None:
        self.path = path
        self.attached = False
        self._listener = Listener(callback)
        self._ids: tuple[int, int] = (0, 0)
        self._lock = asyncio.Lock()  # one at a time, so that nothing comes twice

    async def begin(self, session: Session) -> None:
        self.attached = False
        self._ids = (await session.add(self._listener), 0)
        await self.attach(session)

    async def attach(self, session: Session) -> None:
        """Subscribe where the object is on the bus. Raises CallFailed where that is refused."""
        async with self._lock:
            target_id = 0 if self.attached else await session.find(self.path)
            if not target_id:
                return
            self._ids = (self._ids[0], target_id)
            completed = await session.ask(session.connection.subscribe(*self._ids))
            if completed.status != Status.NOT_FOUND:
                result_of(f"subscribing to {self.path}", completed)
                self.attached = True

    def lose(self, event: Unsubscribed) -> None:
        """The object has gone, if it is ours."""
        if self._ids == (event.object_id, event.target_id):
            self.attached = False


class Client:
    """A connection to the bus that comes back by itself, with everything that it had.

    `on_connection` is called with True once the bus is there and everything is published on it,
    and with False when it is lost. Use it inside one running event loop.
    """

    def __init__(
        self,
        socket_path: str = "/var/run/ubus/ubus.sock",
        *,
        on_connection: Callable[[bool], None] | None = None,
        begun: BlockingBus | None = None,
    ) -> None:
        """`begun` is a connection to go on with, and objects on it are what `publish` says then."""
        self._begun = begun
        self._path = socket_path
        self._on_connection = on_connection
        self._dispatcher = Dispatcher()
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._published: dict[str, BusObject] = {}
        self._object_ids: dict[str, int] = {}
        self._listeners: list[tuple[str, Listener]] = []
        self._subscriptions: list[_Subscription] = []
        self._known: dict[str, int] = {}
        self._watching = False

    @property
    def connected(self) -> bool:
        """True while calls can be made and what is published is there."""
        return self._session is not None

    @property
    def unpublished(self) -> frozenset[str]:
        """The paths that should be on the bus and are not, because another process has them."""
        return frozenset(self._published.keys() - self._object_ids.keys())

    # --- the connection

    async def connect(self, timeout_s: float = 5.0) -> None:
        """Connect; from then on a lost connection comes back by itself. Raises BusError."""
        if self._session is not None:
            return
        if self._keeper is None:
            await self._establish(timeout_s)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            raise BusError(f"no bus at {self._path} within {timeout_s:g} s; start it") from error

    async def close(self) -> None:
        """Leave the bus for good: objects vanish from it, running handlers are cancelled."""
        session, self._session = self._session, None
        tasks = [*self._tasks, *([self._keeper] if self._keeper is not None else [])]
        self._keeper = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._dispatcher.close()
        if session is not None:
            session.close()
            self._changed(False)

    # --- objects

    async def publish(self, obj: BusObject) -> None:
        """Put an object on the bus and keep it there.

        Raises NameTaken where somebody has the path (ubusd says the same for a path that its ACL
        does not allow us), BusError without a connection.
        """
        if obj.path in self._published:
            raise NameTaken(f"{obj.path} is published already; withdraw it first")
        self._published[obj.path] = obj
        try:
            self._object_ids[obj.path] = await self._ready().add(obj)
        except BaseException:
            self._published.pop(obj.path, None)
            raise

    async def withdraw(self, path: str) -> None:
        """Take an object off the bus. Raises NotFound where it was never published here."""
        if self._published.pop(path, None) is None:
            raise NotFound(f"{path} is not published by this program")
        object_id, session = self._object_ids.pop(path, None), self._session
        if session is not None and object_id is not None:
            await session.ask(session.connection.remove_object(object_id))

    async def notify(self, path: str, name: str, data: Mapping[str, Any]) -> None:
        """Tell the subscribers of an object of ours something; nobody answers."""
        session = self._ready()
        object_id = self._object_ids.get(path)
        if object_id is None:
            raise NotFound(f"{path} is not published by this program")
        session.write(session.connection.notify(object_id, name, encode_table(data)))

    # --- calls

    async def call(
        self,
        path: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> dict[str, Any]:
        """Call a method and return its reply; several tables of one reply are merged.

        Raises CallFailed with status and data where it is refused, TimedOut, MessageTooLarge
        before anything is sent, BusError at once without a connection.
        """
        session = self._ready()
        table = encode_table(arguments or {})
        what = f"{path} {method}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            completed = await self._invoke(session, path, method, table, timeout_s)
            if completed.by_bus and completed.status == Status.NOT_FOUND:
                # The id that we knew is stale: the object came back under another one.
                self._known.pop(path, None)
                left_s = max(0.0, deadline - loop.time())
                completed = await self._invoke(session, path, method, table, left_s)
        except TimedOut as error:
            raise TimedOut(f"{what} did not answer within {timeout_s:g} s") from error
        return result_of(what, completed)

    async def _invoke(
        self, session: Session, path: str, method: str, table: bytes, timeout_s: float
    ) -> Completed:
        object_id = self._known.get(path)
        if object_id is None:
            object_id = await session.find(path, timeout_s)
            if not object_id:
                return Completed(0, int(Status.NOT_FOUND), [], False)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[path] = object_id
        return await session.ask(session.connection.invoke(object_id, method, table), timeout_s)

    async def lookup(self, pattern: str | None = None) -> list[ObjectInfo]:
        """The objects at a path, at a prefix ending in *, or all; [] for none."""
        session = self._ready()
        found = await session.ask(session.connection.lookup(pattern))
        if found.status not in (Status.OK, Status.NOT_FOUND):
            raise CallFailed(f"looking up {pattern} failed", status_of(found.status))
        return [
            ObjectInfo(
                text_of(reply[Attr.OBJPATH]),
                reply[Attr.OBJID],
                reply[Attr.OBJTYPE],
                parse_signature(reply.get(Attr.SIGNATURE, b"")),
            )
            for reply in found.replies
            if Attr.OBJPATH in reply and Attr.OBJID in reply and Attr.OBJTYPE in reply
        ]

    # --- news

    async def listen(self, pattern: str, callback: Callback) -> None:
        """Call back for every event of this name, or of this prefix ending in *, from now on."""
        listener = Listener(callback)
        await self._ready().listen(pattern, listener)
        self._listeners.append((pattern, listener))

    async def send(self, name: str, data: Mapping[str, Any]) -> None:
        """Send an event. Raises CallFailed where the bus refuses it (names in `ubus.`)."""
        session = self._ready()
        request = session.connection.send_event(name, encode_table(data))
        result_of(f"sending the event {name}", await session.ask(request))

    async def subscribe(self, path: str, callback: Callback) -> bool:
        """Call back for the notifications of an object, now or as soon as it is on the bus.

        Returns whether it is there now. Raises CallFailed for an object of our own.
        """
        await self._watch()
        subscription = _Subscription(path, callback)
        self._subscriptions.append(subscription)
        try:
            await subscription.begin(self._ready())
        except BaseException:
            self._subscriptions.remove(subscription)
            raise
        return subscription.attached

    async def _watch(self) -> None:
        """Listen for objects that appear."""
        if not self._watching:
            self._watching = True
            try:
                await self.listen("ubus.object.add", self._on_appeared)
            except BaseException:
                self._watching = False
                raise

    def _on_appeared(self, _: str, data: dict[str, Any]) -> None:
        for subscription in self._subscriptions:
            if self._session and subscription.path == data.get("path"):
                self._spawn(subscription.attach(self._session))

    def _on_unsubscribed(self, event: Unsubscribed) -> None:
        for subscription in self._subscriptions:
            subscription.lose(event)

    # --- losing the bus, and coming back

    def _ready(self) -> Session:
        if self._session is None:
            raise BusError(f"not connected to the bus at {self._path}; is it running?")
        return self._session

    async def _establish(self, timeout_s: float) -> None:
        begun, self._begun = self._begun, None
        session = Session(
            self._path,
            self._dispatcher,
            on_lost=self._on_lost,
            on_unsubscribed=self._on_unsubscribed,
            begun=begun,
        )
        try:
            await session.greeted(timeout_s)
            await self._restore(session)
            if not session.open:
                raise BusError(f"the connection to the bus at {self._path} was lost; try again")
        except BaseException:
            session.close()
            raise
        self._session = session
        self._keeper = None
        self._changed(True)
        if self.unpublished:
            self._spawn(self._reclaim(session))

    def _changed(self, connected: bool) -> None:
        if connected:
            self._up.set()
        else:
            self._up.clear()
        if self._on_connection is not None:
            try:
                self._on_connection(connected)
            except Exception:
                report("on_connection failed")

    def _on_lost(self, session: Session) -> None:
        if session is self._session:
            self._session = None
            self._keeper = asyncio.ensure_future(self._come_back())
            self._changed(False)

    async def _come_back(self) -> None:
        while True:
            try:
                await self._establish(ANSWER_S)
                return
            except (BusError, TimedOut):
                pass
            except Exception:
                report("connecting to the bus failed")
            await asyncio.sleep(RETRY_S)

    async def _restore(self, session: Session) -> None:
        self._object_ids.clear()
        self._known.clear()
        for obj in list(self._published.values()):
            try:
                self._object_ids[obj.path] = await session.add(obj)
            except NameTaken:
                report(f"{obj.path} is taken; trying again until it is free")
        for pattern, listener in self._listeners:
            await session.listen(pattern, listener)
        for subscription in self._subscriptions:
            await subscription.begin(session)

    async def _reclaim(self, session: Session) -> None:
        while session.open and self.unpublished:
            await asyncio.sleep(RECLAIM_S)
            for path in self.unpublished:
                try:
                    self._object_ids[path] = await session.add(self._published[path])
                except (BusError, TimedOut, KeyError):
                    continue

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background; a lost connection ends it, and brings it again later."""

        async def quietly() -> None:
            try:
                await work
            except (BusError, TimedOut):
                pass
            except Exception:
                report("work on the bus in the background failed")

        task = asyncio.ensure_future(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
