"""The running service: wires platform, service and bus together, and obeys signals.

What the service is made of is loaded once its object is on the bus: callers that come meanwhile
wait for their answer. The only place where a method's handler name meets a function and where an
exception becomes a reply. Decides nothing about uplinks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .api import methods
from .api.dashboard import Dashboard
from .errors import BusError, MethodNotFound, NameTaken, Status, UplinkError
from .ubus import DEFAULT_SOCKET, BusObject, Call, Encoded, Reply, encode_table
from .ubus.client import Client
from .warnings import Warnings

if TYPE_CHECKING:
    from .extras.standalone.broker import Broker
    from .mesh.agent import MeshAgent
    from .model import HistoryEntry
    from .platform.protocol import Platform
    from .ubus.blobmsg import Type
    from .uplinks.service import Service
    from .usage_file import UsageFile

T = TypeVar("T")

log = logging.getLogger("wireguard-uplink")

CONFIG_CHECK_S = 2.0
NAMES_S = 2.0
MWAN3_S = 30.0
MOST_WAITS = 15  # of CONFIG_CHECK_S, before a tunnel that can't be made is tried again
HOTPLUG_EVENT = "wireguard-uplink.hotplug"  # root/etc/hotplug.d/iface sends it
OURS_ALONE = "uplink_gossip"  # the dashboard has methods of the same names, but not this one
JOIN_TIMEOUT_S = 1.0
JOIN_PAUSE_S = 2.0
OTHERS_S = 3.0  # for an answer of another package's object
CACHED = ("uplink_status", "uplink_list")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line of `serve` says."""

    platform: str = "auto"
    socket: str = DEFAULT_SOCKET
    config_dir: str = "/etc/config"
    keys_dir: str = "/etc/wireguard-uplink/keys"
    state_file: str = "/var/run/wireguard-uplinks.json"
    hooks_dir: str = "/etc/wireguard-uplink.d"
    broker: bool = False


def make_platform(options: Options, bus: Client, warnings: Warnings) -> Platform:
    """The platform that was asked for; `auto` finds out. netifd is reached over the bus."""
    is_openwrt = os.path.exists("/sbin/netifd")
    if options.platform == "openwrt" or (options.platform == "auto" and is_openwrt):
        from .platform.openwrt import OpenWrt

        return OpenWrt(options.config_dir, options.keys_dir, bus, warnings)
    from .platform.standalone import Standalone

    return Standalone(options.config_dir, options.keys_dir, warnings)


class Daemon:
    """One service on one bus."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._broker: Broker | None = None
        self._client = Client(options.socket, on_connection=self._on_connection)
        self._dashboard = Dashboard()
        self._published = False
        self._service: Service | None = None
        self._agent: MeshAgent | None = None
        self._usage: UsageFile | None = None
        self._handlers: Mapping[str, Callable[..., Any]] = {}
        self._encoded: dict[str, Encoded] = {}
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Serve until a signal says stop. Raises UplinkError where it can't begin.

        Without a bus, or while its name is taken, the service works on and keeps trying.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if self._options.broker:
            from .extras.standalone.broker import Broker

            self._broker = Broker(self._options.socket)
            await self._broker.start()
        try:
            joined = await self._join()
            await self._start()
            await asyncio.to_thread(methods.prepare_validation)
            if not joined:
                # Now that nothing is left that could fail: this may take the dashboard's name.
                self._spawn(self._keep_joining())
            if self._dashboard.installed:
                self._spawn(self._dashboard.link())
            await self._stopping.wait()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._agent is not None:
                await self._agent.stop()
            if self._usage is not None:
                await self._usage.save()
            await self._client.close()
            try:
                if self._service is not None:
                    await self._service.stop()
            finally:
                if self._dashboard.installed and (self._published or self._dashboard.marked):
                    await self._dashboard.give_back()
            if self._broker is not None:
                await self._broker.close()

    async def _start(self) -> None:
        from .api.choices import ChoiceService
        from .api.provider import PeerService
        from .api.secubox import Older, import_once
        from .extras.captive import CaptiveWatch
        from .extras.drill import Drills
        from .mesh.agent import MeshAgent
        from .tasks import keep_running
        from .uplinks.service import Service

        platform = make_platform(self._options, self._client, Warnings())
        service = Service(platform, self._options.state_file, self._send_event, self._on_change)
        self._service = service
        for sentence in await import_once(platform):
            log.warning("%s", sentence)
        agent = MeshAgent(service, self._call, self._options.keys_dir)
        self._agent = agent
        self._begin_telling(service, agent)
        await service.start()
        peers = PeerService(agent)
        parts = (Older(service, peers), peers, ChoiceService(service), Drills(service), service)
        self._handlers = {
            name: next(getattr(p, method.handler) for p in parts if hasattr(p, method.handler))
            for name, method in methods.METHODS.items()
        }
        await agent.start()
        self._started.set()
        problems = service.monitor.problems
        portals = CaptiveWatch(
            service.monitor, lambda: service.uplinks.config.settings.captive_check
        )
        self._spawn(keep_running("looking for captive portals", portals.follow, problems))
        self._spawn(keep_running("watching for answers", service.carrying.follow, problems))
        for name, follow in (
            ("following the configuration", lambda: self._follow_config(service)),
            ("following names", lambda: self._follow_names(service)),
        ):
            self._spawn(keep_running(name, follow, problems))

    def _begin_telling(self, service: Service, agent: MeshAgent) -> None:
        """Have everything that happens from now on told to the owner's programs."""
        from .extras.hooks import Hooks, Notice
        from .tasks import keep_running
        from .usage_file import UsageFile

        problems = service.monitor.problems
        folder = os.path.dirname(self._options.keys_dir.rstrip("/"))
        self._usage = UsageFile(os.path.join(folder, "uplink-usage.json"), problems)
        self._usage.load()
        service.monitor.ledger = self._usage.ledger
        hooks = Hooks(self._options.hooks_dir, problems)

        def tell(name: str, entry: HistoryEntry) -> None:
            hooks.add(Notice(name, agent.peers.node_id, entry))

        service.journal.on_entry = tell
        self._spawn(keep_running("running hooks", hooks.run, problems))

    async def _join(self) -> bool:
        try:
            await self._client.connect(JOIN_TIMEOUT_S)
            try:
                await self._publish()
            except NameTaken:
                # Later: rpcd's reload must not delay the service itself.
                if not self._started.is_set() or not await self._dashboard.take(self._publish):
                    raise
        except BusError as error:
            log.warning("%s; trying again", error)
            return False
        await self._client.listen(HOTPLUG_EVENT, self._on_hotplug)
        log.info("%s is on the bus at %s", methods.OBJECT, self._options.socket)
        return True

    async def _keep_joining(self) -> None:
        joined = await self._join()
        while not joined:
            await asyncio.sleep(JOIN_PAUSE_S)
            joined = await self._join()

    async def _publish(self) -> None:
        signatures: dict[str, Mapping[str, Type]] = dict(await self._dashboard.signatures())
        signatures |= {name: methods.signature(method) for name, method in methods.METHODS.items()}
        await self._client.publish(BusObject(methods.OBJECT, signatures, self._handle))
        self._published = True

    async def _reclaimed(self) -> None:
        if self._client.unpublished:
            raise NameTaken(f"{methods.OBJECT} is taken by another program")

    async def _call(self, path: str, method: str) -> dict[str, Any]:
        return await self._client.call(path, method, None, timeout_s=OTHERS_S)

    # --- calls

    def _handle(self, call: Call) -> Reply | Awaitable[Reply]:
        if not self._started.is_set():
            return self._handle_later(call)
        cached = self._encoded.get(call.method)
        try:
            method = methods.METHODS.get(call.method)
            if method is None:
                if self._dashboard.installed:
                    return self._forward(call)
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

    async def _forward(self, call: Call) -> Reply:
        try:
            return await self._dashboard.forward(call)
        except Exception as error:
            return _failure(error)

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

    def _reload(self) -> None:
        if self._service is not None and self._started.is_set():
            self._spawn(self._service.reload())

    def _on_hotplug(self, name: str, data: dict[str, Any]) -> None:
        if self._service is not None:
            self._service.monitor.reread_soon()
            self._spawn(self._tolerate(self._service.follow_wans(afresh=True)))
            self._spawn(self._follow_mwan3(self._service))

    def _on_change(self) -> None:
        self._encoded.clear()

    def _on_connection(self, connected: bool) -> None:
        log.info("the bus is %s", "there" if connected else "gone; waiting for it")
        if connected and self._client.unpublished:
            # rpcd was faster: a reinstalled plugin can run again.
            self._spawn(self._dashboard.take(self._reclaimed))

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

    async def _follow_config(self, service: Service) -> None:
        waits = patience = 1  # what can't be made is tried less and less often
        while True:
            await asyncio.sleep(CONFIG_CHECK_S)
            if service.config_changed():
                waits = patience = 1
                await self._tolerate(service.reload())
            waits -= 1
            if waits <= 0:
                missing = await self._tolerate(service.restore_tunnels())
                patience = min(2 * patience, MOST_WAITS) if missing is not False else 1
                waits = patience

    async def _follow_names(self, service: Service) -> None:
        while True:
            await self._follow_mwan3(service)
            for _ in range(round(MWAN3_S / NAMES_S)):
                await asyncio.sleep(NAMES_S)
                await service.follow_names()
                await self._tolerate(service.follow_wans())
            await service.uplinks.guard_tunnels()
            await service.uplinks.keep_keys()
            if self._usage is not None:
                await self._usage.save_if_due()

    async def _follow_mwan3(self, service: Service) -> None:
        if await self._tolerate(service.uplinks.follow_mwan3()):
            self._on_change()

    async def _tolerate(self, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except UplinkError as error:
            log.warning("%s", error)
            return None


def _failure(error: Exception) -> Reply:
    table, status = methods.error_reply(error)
    return Reply(table, Status(status))


async def _take_back(options: Options) -> list[str]:
    from .uninstall import take_back
    from .uplinks.service import run_dir_of

    client = Client(options.socket)
    try:
        with contextlib.suppress(BusError):  # files and the kernel can do without
            await client.connect(JOIN_TIMEOUT_S)
            found = await client.lookup(methods.OBJECT)
            if found and OURS_ALONE in found[0].methods:
                return ["the service still runs: stop it first"]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(options.state_file)
        return await take_back(
            make_platform(options, client, Warnings()), run_dir_of(options.state_file)
        )
    finally:
        await client.close()


def uninstall(options: Options) -> int:
    """Take back all that a service made here; the exit status, 1 where something stays."""
    failed = asyncio.run(_take_back(options))
    for sentence in failed:
        log.error("%s", sentence)
    return int(bool(failed))


def run(options: Options) -> int:
    """Run the service in this process; its exit status."""
    try:
        asyncio.run(Daemon(options).run())
    except UplinkError as error:
        log.error("%s", error)
        return int(error.status)
    return 0
