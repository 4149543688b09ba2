"""The running service: wires platform, service and bus together, and obeys signals.

The only place where a method's handler name meets a function and where an exception becomes a
reply. Decides nothing about uplinks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import methods
from .errors import BusError, MethodNotFound, NotSupported, Status, UplinkError
from .platform import Platform
from .platform.standalone import Standalone
from .service import Service
from .ubus import DEFAULT_SOCKET, BusObject, Call, Client, Encoded, Reply, encode_table
from .ubus.broker import Broker

log = logging.getLogger("wireguard-uplink")

CONFIG_CHECK_S = 2.0
NAMES_S = 30.0
CACHED = ("uplink_status", "uplink_list")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of `serve` says."""

    platform: str = "auto"
    socket: str = DEFAULT_SOCKET
    config_dir: str = "/etc/config"
    keys_dir: str = "/etc/wireguard-uplink/keys"
    state_file: str = "/var/run/wireguard-uplinks.json"
    broker: bool = False


def make_platform(options: Options) -> Platform:
    """The platform that was asked for; `auto` finds out. Raises NotSupported."""
    is_openwrt = os.path.exists("/sbin/netifd")
    if options.platform == "openwrt" or (options.platform == "auto" and is_openwrt):
        raise NotSupported(
            "this version does not drive netifd yet: use --platform standalone, which makes its "
            "tunnels itself, in a configuration directory of its own (--config-dir)"
        )
    return Standalone(options.config_dir, options.keys_dir)


class Daemon:
    """One service on one bus."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._broker: Broker | None = None
        self._client = Client(options.socket, on_connection=self._on_connection)
        self._service = Service(
            make_platform(options), options.state_file, self._send_event, self._on_change
        )
        self._handlers: Mapping[str, Callable[..., Any]] = {
            name: getattr(self._service, method.handler) for name, method in methods.METHODS.items()
        }
        self._encoded: dict[str, Encoded] = {}
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Serve until a signal says stop. Raises UplinkError where it can't begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._service.reload()))
        if self._options.broker:
            self._broker = Broker(self._options.socket)
            await self._broker.start()
        try:
            starting = asyncio.create_task(self._start())
            self._tasks.add(starting)
            await self._client.connect()
            await self._client.publish(self._object())
            log.info("%s is on the bus at %s", methods.OBJECT, self._options.socket)
            await starting
            await asyncio.to_thread(methods.prepare_validation)
            self._spawn(self._follow_config())
            self._spawn(self._follow_names())
            await self._stopping.wait()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._client.close()
            await self._service.stop()
            if self._broker is not None:
                await self._broker.close()

    async def _start(self) -> None:
        """Beside the registration: callers are answered as soon as this is done."""
        await self._service.start()
        self._started.set()

    def _object(self) -> BusObject:
        signatures = {name: methods.signature(method) for name, method in methods.METHODS.items()}
        return BusObject(methods.OBJECT, signatures, self._handle)

    # --- calls

    def _handle(self, call: Call) -> Reply | Awaitable[Reply]:
        if not self._started.is_set():
            return self._handle_later(call)
        cached = self._encoded.get(call.method)
        try:
            method = methods.METHODS.get(call.method)
            if method is None:
                raise MethodNotFound(f"{methods.OBJECT} has no method {call.method[:40]}")
            arguments = methods.parse_arguments(method, call.arguments)
            if cached is not None:
                return Reply(cached)
            result = self._handlers[call.method](**arguments)
        except Exception as error:
            return _failure(error)
        if isinstance(result, dict):
            return self._success(call.method, result)
        return self._finish(call.method, result)

    async def _handle_later(self, call: Call) -> Reply:
        await self._started.wait()
        reply = self._handle(call)
        return reply if isinstance(reply, Reply) else await reply

    async def _finish(self, name: str, work: Awaitable[dict[str, Any]]) -> Reply:
        try:
            return self._success(name, await work)
        except Exception as error:
            return _failure(error)

    def _success(self, name: str, table: dict[str, Any]) -> Reply:
        if name not in CACHED:
            return Reply(table)
        encoded = Encoded(encode_table(table))
        self._encoded[name] = encoded
        return Reply(encoded)

    # --- events

    def _on_change(self) -> None:
        self._encoded.clear()

    def _on_connection(self, connected: bool) -> None:
        log.info("the bus is %s", "there" if connected else "gone; waiting for it")

    def _send_event(self, name: str, table: dict[str, Any]) -> None:
        log.info("%s %s", name, " ".join(f"{k}={v}" for k, v in table.items() if v not in ("", -1)))
        if self._client.connected:
            self._spawn(self._send(name, table))

    async def _send(self, name: str, table: dict[str, Any]) -> None:
        try:
            await self._client.send(name, table)
        except BusError as error:
            log.warning("the event %s was not sent: %s", name, error)

    # --- following

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            methods.error_reply(error)  # logs what is unexpected

    async def _follow_config(self) -> None:
        while True:
            await asyncio.sleep(CONFIG_CHECK_S)
            if self._service.config_changed():
                await self._tolerate(self._service.reload())
            await self._tolerate(self._service.restore_tunnels())

    async def _follow_names(self) -> None:
        while True:
            await asyncio.sleep(NAMES_S)
            await self._tolerate(self._service.follow_names())

    async def _tolerate(self, work: Awaitable[None]) -> None:
        try:
            await work
        except UplinkError as error:
            log.warning("%s", error)


def _failure(error: Exception) -> Reply:
    table, status = methods.error_reply(error)
    return Reply(table, Status(status))


def run(options: Options) -> int:
    """Run the service in this process; its exit status."""
    try:
        asyncio.run(Daemon(options).run())
    except UplinkError as error:
        log.error("%s", error)
        return int(error.status)
    return 0
