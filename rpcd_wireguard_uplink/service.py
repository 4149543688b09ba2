"""Runs the service, or takes back what it made: its log, signals, the order of its start.

What has not to be there before the object is on the bus is loaded here and later.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from importlib.util import find_spec

from .schema.lean import leaving_out

with leaving_out("ssl", "_hashlib"):
    import asyncio
    import hashlib  # noqa: F401

from .api import methods
from .api.bus import BusService
from .cli.check import CheckMethod
from .command_line import Options
from .errors import BusError, NotSupported, UplinkError
from .events import Events, ReloadAsked
from .tasks import TaskSet, reserve_threads
from .ubus.blocking import BlockingBus
from .ubus.client import Client
from .warnings import Warnings

log = logging.getLogger("wireguard-uplink")


def run(options: Options, bus: BlockingBus | None) -> int:
    """Run the service in this process; its exit status. `bus` has its object, where that is so."""
    _begin_log(options)
    # Keys are in its memory. 1 keeps the kernel from a dump to a file and to a program (core(5);
    # do_coredump in fs/coredump.c takes that limit for a crash handler's own crash).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    try:
        asyncio.run(_serve(options, bus))
    except UplinkError as error:
        log.error("%s", error)
        return int(error.status)
    return 0


def _begin_log(options: Options) -> None:
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        handlers=[_log_handler(to_syslog=options.syslog)],
    )


def _level(record: logging.LogRecord) -> int:
    """The level of a line as syslog and systemd count it (syslog(3))."""
    known = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4}
    return known.get(record.levelno, 3)


class _Syslog(logging.Handler):
    """To syslog, each line with its level: procd gives all of stderr the level of an error."""

    def emit(self, record: logging.LogRecord) -> None:
        import syslog

        syslog.openlog("wireguard-uplink", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(_level(record), self.format(record))


class _ForJournal(logging.Formatter):
    """Lines for systemd's journal, which takes the level from in front of them (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        return "\n".join(f"<{_level(record)}>{line}" for line in lines)


def _log_handler(*, to_syslog: bool) -> logging.Handler:
    if to_syslog:
        return _Syslog()
    handler = logging.StreamHandler(sys.stderr)
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_ForJournal())
    else:
        handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
    return handler


def require_libraries() -> None:
    """Raises NotSupported where a library is lacking that is loaded only when it is needed."""
    lacking = [name for name in ("jsonschema", "h11") if find_spec(name) is None]
    if lacking:
        raise NotSupported(
            f"Python's {' and '.join(lacking)} can't be found: install "
            + " ".join(f"python3-{name}" for name in lacking)
        )


async def _serve(options: Options, begun: BlockingBus | None) -> None:
    """Serve until a signal says stop. Raises UplinkError where it can't begin."""
    reserve_threads()
    warnings = Warnings()
    tasks = TaskSet(warnings)
    events = Events(tasks)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: events.publish(ReloadAsked()))
    async with contextlib.AsyncExitStack() as stack:
        if options.broker:
            from .extras.standalone.broker import Broker

            broker = Broker(options.socket)
            await broker.start()
            stack.push_async_callback(broker.close)
        bus = BusService(options.socket, tasks, events, begun)
        stack.push_async_callback(bus.give_back)
        await bus.join()
        require_libraries()
        # What the service is made of is loaded once its object is on the bus. That takes seconds
        # on a slow router, and a diversion of an earlier run must not lapse meanwhile.
        from .steering.watchdog import Watchdog
        from .storage.state_file import run_dir_of

        Watchdog(run_dir_of(options.state_file)).prolong()
        from .daemon import Daemon, make_platform

        daemon = Daemon(
            make_platform(
                options.platform, options.config_dir, options.keys_dir, bus.client, warnings
            ),
            bus,
            keys_dir=options.keys_dir,
            state_file=options.state_file,
            warnings=warnings,
            tasks=tasks,
            events=events,
        )
        stack.push_async_callback(daemon.stop)
        extras = daemon.start_extras(options.hooks_dir)
        await daemon.start()
        check = CheckMethod(options.config_dir, options.keys_dir, options.socket)
        await bus.begin((*daemon.methods, *extras, check))
        # What is loaded by now stays: a collection that looks at all of it would hold a switch up.
        gc.collect()
        gc.freeze()
        if "NOTIFY_SOCKET" in os.environ:
            from .extras import systemd

            systemd.notify(systemd.READY)
            stack.callback(systemd.notify, systemd.STOPPING)
            tasks.spawn("answering systemd", systemd.stay_alive())
        await stopping.wait()


def uninstall(options: Options) -> int:
    """Take back all that a service made here; the exit status, 1 where something stays."""
    _begin_log(options)
    failed = asyncio.run(_take_back(options))
    for sentence in failed:
        log.error("%s", sentence)
    return int(bool(failed))


async def _take_back(options: Options) -> list[str]:
    from .daemon import make_platform
    from .storage.state_file import run_dir_of
    from .uninstall import take_back

    client = Client(options.socket)
    try:
        with contextlib.suppress(BusError):  # files and the kernel can do without
            await client.connect(methods.JOIN_TIMEOUT_S)
            found = await client.lookup(methods.OBJECT)
            if found and methods.OURS_ALONE in found[0].methods:
                return ["the service still runs: stop it first"]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(options.state_file)
        platform = make_platform(
            options.platform, options.config_dir, options.keys_dir, client, Warnings()
        )
        return await take_back(platform, run_dir_of(options.state_file))
    finally:
        await client.close()
