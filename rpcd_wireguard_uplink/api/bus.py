"""The service's object on the bus: how it gets its name, and how calls become replies.

The object is published before the service is loaded: callers that come meanwhile wait for their
answer. The only place where a method's handler name meets a function and where an exception becomes
a reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from ..errors import BusError, MethodNotFound, NameTaken, Status, TimedOut
from ..events import Events, HotplugReported
from ..schema.record import Record
from ..schema.validation import Schema
from ..tasks import TaskSet
from ..ubus import BusObject, Call, Reply, encode_table
from ..ubus.blobmsg import Type
from ..ubus.blocking import BlockingBus
from ..ubus.client import Client
from . import methods
from .dashboard import Dashboard

log = logging.getLogger("wireguard-uplink")

HOTPLUG_EVENT = "wireguard-uplink.hotplug"  # root/etc/hotplug.d/iface sends it
JOIN_PAUSE_S = 2.0
OTHERS_S = 3.0  # for an answer of another package's object
CACHED = ("uplink_status", "uplink_list")


class BusService:
    """One object on one bus. Without a bus, or while its name is taken, it keeps trying."""

    def __init__(
        self, socket: str, tasks: TaskSet, events: Events, begun: BlockingBus | None = None
    ) -> None:
        self.client = Client(socket, on_connection=self._on_connection, begun=begun)
        self._tasks = tasks
        self._events = events
        self._dashboard = Dashboard()
        self._published = False
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._remembered: dict[str, Reply] = {}
        self._started = asyncio.Event()
        self._preparing = asyncio.Lock()
        self._joined = False

    # --- life

    async def join(self) -> None:
        """Publish the object, if that can be done at once."""
        try:
            await self.client.connect(methods.JOIN_TIMEOUT_S)
            try:
                if not self._published:
                    await self._publish()
            except NameTaken:
                # Later: rpcd's reload must not delay the service itself.
                if not self._started.is_set() or not await self._dashboard.take(self._publish):
                    raise
            await self.client.listen(
                HOTPLUG_EVENT, lambda name, data: self._events.publish(HotplugReported())
            )
        except (BusError, TimedOut) as error:  # it may be lost again at any moment
            log.warning("%s; trying again", error)
            return
        log.info("%s is on the bus", methods.OBJECT)
        self._joined = True

    async def begin(self, parts: Iterable[object]) -> None:
        """Answer from now on: each method by the first part that has a function of its name."""
        parts = list(parts)
        self._handlers = {
            name: next(getattr(part, name) for part in parts if hasattr(part, name))
            for name in methods.METHODS
        }
        self._started.set()
        # Now that nothing is left that could fail: this may take the dashboard's name.
        self._tasks.spawn("joining the bus", self._keep_joining())
        if self._dashboard.installed:
            self._tasks.spawn("linking the dashboard's files", self._dashboard.link())

    async def close(self) -> None:
        await self.client.close()

    async def give_back(self) -> None:
        """Have rpcd publish the dashboard's plugin again, where it gave its name to us."""
        await self.close()  # our object is off the bus before, also after a start that failed
        if self._dashboard.installed and (self._published or self._dashboard.marked):
            await self._dashboard.give_back()

    async def _keep_joining(self) -> None:
        while not self._joined:
            await self.join()
            if not self._joined:
                await asyncio.sleep(JOIN_PAUSE_S)

    async def _publish(self) -> None:
        signatures: dict[str, Mapping[str, Type]] = dict(await self._dashboard.signatures())
        signatures |= {name: methods.signature(method) for name, method in methods.METHODS.items()}
        await self.client.publish(
            BusObject(methods.OBJECT, signatures, self._handle, self._remembered)
        )
        self._published = True

    async def _reclaimed(self) -> None:
        if self.client.unpublished:
            raise NameTaken(f"{methods.OBJECT} is taken by another program")

    def _on_connection(self, connected: bool) -> None:
        log.info("the bus is %s", "there" if connected else "gone; waiting for it")
        if connected and self.client.unpublished:
            # rpcd was faster: a reinstalled plugin can run again.
            work = self._dashboard.take(self._reclaimed)
            self._tasks.spawn("taking the dashboard's name", work)

    # --- others' objects and our events

    async def call(self, path: str, method: str) -> dict[str, Any]:
        """What a method without arguments of another object replies."""
        return await self.client.call(path, method, None, timeout_s=OTHERS_S)

    def send_event(self, name: str, table: dict[str, Any]) -> None:
        """Log an event, and send it to whoever listens on the bus."""
        told = [f"{k}={v}" for k, v in table.items() if v not in ("", -1) and k != "cause_args"]
        log.info("%s %s", name, " ".join(told))
        if self.client.connected:
            self._tasks.spawn("sending an event", self._send(name, table))

    async def _send(self, name: str, table: dict[str, Any]) -> None:
        try:
            await self.client.send(name, table)
        except BusError as error:
            log.warning("the event %s was not sent: %s", name, error)

    # --- calls

    def forget_replies(self) -> None:
        """Replies differ from now on."""
        self._remembered.clear()

    def _handle(self, call: Call) -> Reply | Awaitable[Reply]:
        if not self._started.is_set():
            return self._handle_later(call)
        remembered = self._remembered.get(call.method)
        if remembered is not None and not call.arguments:
            return remembered
        try:
            method = methods.METHODS.get(call.method)
            if method is None:
                if self._dashboard.installed:
                    return self._finish(call.method, self._dashboard.forward(call))
                raise MethodNotFound(f"{methods.OBJECT} has no method {call.method[:40]}")
            if not method.arguments.is_ready(methods.given(method, call.arguments)):
                return self._handle_once_prepared(call, method.arguments)
            arguments = methods.parse_arguments(method, call.arguments)
            if remembered is not None:
                return remembered
            result = self._handlers[call.method](**arguments)
        except Exception as error:
            return _failure(error)
        if isinstance(result, Record):
            return self._success(call.method, result)
        return self._finish(call.method, result)

    async def _handle_later(self, call: Call) -> Reply:
        await self._started.wait()
        return await self._handle_again(call)

    async def _handle_once_prepared(self, call: Call, arguments: Schema) -> Reply:
        """What loads a library must not hold a switch up."""
        try:
            async with self._preparing:
                await asyncio.to_thread(arguments.prepare)
        except Exception as error:
            return _failure(error)
        return await self._handle_again(call)

    async def _handle_again(self, call: Call) -> Reply:
        reply = self._handle(call)
        return reply if isinstance(reply, Reply) else await reply

    async def _finish(self, name: str, work: Awaitable[Record | Reply]) -> Reply:
        try:
            done = await work
        except Exception as error:
            return _failure(error)
        return done if isinstance(done, Reply) else self._success(name, done)

    def _success(self, name: str, reply: Record) -> Reply:
        if name not in CACHED:
            return Reply(reply.as_table())
        remembered = self._remembered[name] = Reply(encode_table(reply.as_table()))
        return remembered


def _failure(error: Exception) -> Reply:
    table, status = methods.error_reply(error)
    return Reply(table, Status(status))
