"""`rpcd-wireguard-uplink serve` and `uninstall`: the command line of the service itself."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .schema.lean import leaving_out

with leaving_out("ssl", "_hashlib"):
    import asyncio
    import hashlib  # noqa: F401

from .api import methods
from .api.bus import JOIN_TIMEOUT_S, BusService
from .cli.check import CheckMethod
from .errors import BusError, NotSupported, UplinkError
from .events import Events, ReloadAsked
from .tasks import TaskSet, reserve_threads
from .ubus import DEFAULT_SOCKET
from .ubus.client import Client
from .values import dataclass
from .warnings import Warnings

if TYPE_CHECKING:
    import argparse

log = logging.getLogger("wireguard-uplink")

PLATFORMS = ("auto", "openwrt", "standalone")


@dataclass
class Options:
    """What the service, or `uninstall`, is told on its command line."""

    command: str = "serve"
    platform: str = "auto"
    socket: str = DEFAULT_SOCKET
    config_dir: str = "/etc/config"
    keys_dir: str = "/etc/wireguard-uplink/keys"
    state_file: str = "/var/run/wireguard-uplinks.json"
    verbose: bool = False
    hooks_dir: str = "/etc/wireguard-uplink.d"
    broker: bool = False
    syslog: bool = False


def command_line() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(prog="rpcd-wireguard-uplink", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doc = "Publishes luci.wireguard-dashboard on the bus and does the work, until SIGTERM."
    serve = commands.add_parser("serve", help=doc, description=doc)
    doc = "Takes back all that the service made; its configuration and keys stay."
    back = commands.add_parser("uninstall", help=doc, description=doc)
    usual = Options()
    for command in (serve, back):
        command.add_argument("--platform", choices=PLATFORMS, default=usual.platform)
        command.add_argument("--socket", metavar="PATH", default=usual.socket, help="the bus")
        command.add_argument("--config-dir", metavar="DIR", default=usual.config_dir)
        command.add_argument("--keys-dir", metavar="DIR", default=usual.keys_dir)
        command.add_argument("--state-file", metavar="FILE", default=usual.state_file)
        command.add_argument("--verbose", action="store_true", help="log more")
    serve.add_argument("--hooks-dir", metavar="DIR", default=usual.hooks_dir)
    serve.add_argument(
        "--broker", action="store_true", help="run a bus of our own at the socket (no ubusd there)"
    )
    serve.add_argument("--syslog", action="store_true", help="log to syslog, not to stderr")
    return parser


def plain_options(words: Sequence[str]) -> Options | None:
    """The options of a service that is started as usual: argparse would stay in its memory. None
    where there is anything that argparse has to judge.
    """
    given, rest = Options(), iter(words[1:])
    known = {f"--{name.replace('_', '-')}": name for name in vars(given) if name != "command"}
    for word in rest:
        name = known.get(word, "")
        is_switch = isinstance(getattr(given, name, None), bool)
        value = True if is_switch else next(rest, "-")
        if not name or str(value).startswith("-"):
            return None
        setattr(given, name, value)
    return given if [*words[:1]] == ["serve"] and given.platform in PLATFORMS else None


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    given = plain_options(words) or command_line().parse_args(words, Options())
    logging.basicConfig(
        level=logging.DEBUG if given.verbose else logging.INFO,
        handlers=[_log_handler(to_syslog=given.syslog)],
    )
    return run_service(given) if given.command == "serve" else uninstall(given)


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


def run_service(options: Options) -> int:
    """Run the service in this process; its exit status."""
    # Keys are in its memory. 1 keeps the kernel from a dump to a file and to a program (core(5);
    # do_coredump in fs/coredump.c takes that limit for a crash handler's own crash).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    try:
        asyncio.run(_serve(options))
    except UplinkError as error:
        log.error("%s", error)
        return int(error.status)
    return 0


def require_libraries() -> None:
    """Raises NotSupported where a library is lacking that is loaded only when it is needed."""
    lacking = [name for name in ("jsonschema", "h11") if find_spec(name) is None]
    if lacking:
        raise NotSupported(
            f"Python's {' and '.join(lacking)} can't be found: install "
            + " ".join(f"python3-{name}" for name in lacking)
        )


async def _serve(options: Options) -> None:
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
        bus = BusService(options.socket, tasks, events)
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
            await client.connect(JOIN_TIMEOUT_S)
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


if __name__ == "__main__":
    sys.exit(main())
