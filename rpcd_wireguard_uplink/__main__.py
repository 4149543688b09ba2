"""`rpcd-wireguard-uplink serve` and `uninstall`: the command line of the service itself."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .schema.lean import leaving_out

with leaving_out("ssl", "_hashlib", "bz2", "lzma"):
    import asyncio
    import hashlib  # noqa: F401
    import shutil  # noqa: F401

from .api import methods
from .api.bus import JOIN_TIMEOUT_S, BusService
from .errors import BusError, UplinkError
from .events import Events, ReloadAsked
from .tasks import TaskSet
from .ubus import DEFAULT_SOCKET
from .ubus.client import Client
from .warnings import Warnings

log = logging.getLogger("wireguard-uplink")

OURS_ALONE = "uplink_gossip"  # the dashboard has methods of the same names, but not this one


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


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and do what they say; returns the exit status."""
    parser = argparse.ArgumentParser(prog="rpcd-wireguard-uplink", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="publish luci.wireguard-dashboard and do the work")
    back = commands.add_parser(
        "uninstall", help="take back all that the service made; its configuration and keys stay"
    )
    default = Options()
    for command in (serve, back):
        command.add_argument(
            "--platform", choices=("auto", "openwrt", "standalone"), default=default.platform
        )
        command.add_argument("--socket", metavar="PATH", default=default.socket, help="the bus")
        command.add_argument("--config-dir", metavar="DIR", default=default.config_dir)
        command.add_argument("--keys-dir", metavar="DIR", default=default.keys_dir)
        command.add_argument("--state-file", metavar="FILE", default=default.state_file)
        command.add_argument("--verbose", action="store_true", help="log more")
    serve.add_argument("--hooks-dir", metavar="DIR", default=default.hooks_dir)
    serve.add_argument(
        "--broker", action="store_true", help="run a bus of our own at the socket (no ubusd there)"
    )
    given = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if given.verbose else logging.INFO,
        format="%(name)s: %(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    options = Options(
        platform=given.platform,
        socket=given.socket,
        config_dir=given.config_dir,
        keys_dir=given.keys_dir,
        state_file=given.state_file,
    )
    if given.command == "uninstall":
        return uninstall(options)
    return run(replace(options, hooks_dir=given.hooks_dir, broker=given.broker))


def run(options: Options) -> int:
    """Run the service in this process; its exit status."""
    try:
        asyncio.run(_serve(options))
    except UplinkError as error:
        log.error("%s", error)
        return int(error.status)
    return 0


async def _serve(options: Options) -> None:
    """Serve until a signal says stop. Raises UplinkError where it can't begin."""
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
        # What the service is made of is loaded once its object is on the bus. That takes seconds
        # on a slow router, and a diversion of an earlier run must not lapse meanwhile.
        from .state_file import run_dir_of
        from .steering.watchdog import Watchdog

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
        drills = daemon.start_extras(options.hooks_dir)
        await daemon.start()
        await bus.begin((*daemon.methods, drills))
        await stopping.wait()


def uninstall(options: Options) -> int:
    """Take back all that a service made here; the exit status, 1 where something stays."""
    failed = asyncio.run(_take_back(options))
    for sentence in failed:
        log.error("%s", sentence)
    return int(bool(failed))


async def _take_back(options: Options) -> list[str]:
    from .daemon import make_platform
    from .state_file import run_dir_of
    from .uninstall import take_back

    client = Client(options.socket)
    try:
        with contextlib.suppress(BusError):  # files and the kernel can do without
            await client.connect(JOIN_TIMEOUT_S)
            found = await client.lookup(methods.OBJECT)
            if found and OURS_ALONE in found[0].methods:
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
