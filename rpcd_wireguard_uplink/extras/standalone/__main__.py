"""`python -m rpcd_wireguard_uplink.ubus`: the bus from the command line, and a bus of its own.

Owns the options; the commands are command.py's, the bus is broker.py's.
"""

from __future__ import annotations

import getopt
import os
import re
import signal
import sys
from collections.abc import Sequence

from ...errors import BusError
from ...ubus import DEFAULT_SOCKET
from ...ubus.blocking import BlockingBus
from .command import FAILED, USAGE, Command, Options, complain, message_number, status_text

_HELP = """\
Usage: {program} [options] command [arguments]
Options:
 -s SOCKET   the bus's socket ({socket})
 -t SECONDS  how long to wait: for a reply (30), for objects (30), for events (no end)
 -S          compact output and no messages, for scripts
 -v          with list: methods and their arguments
 -m TYPE     with monitor: only messages of this type (may be repeated)
 -M r|t      with monitor: only what the bus receives or transmits
Commands:
 list [PATH]                  the objects, a path may end in *
 call PATH METHOD [JSON]      call a method and print the reply
 subscribe PATH...            print the notifications of objects
 listen [PATTERN...]          print events
 send NAME [JSON]             send an event
 wait_for PATH...             wait until objects are there
 monitor                      print all messages (as root)
 broker                       serve a bus at the socket, where there is no ubusd
"""


def main(argv: Sequence[str]) -> int:
    """Run a command line (without the program's name) and return the exit status."""
    try:
        given, words = getopt.gnu_getopt(list(argv), "m:M:vs:t:S")
        options = parse_options(given)
    except (getopt.GetoptError, ValueError):
        return usage()
    if not words:
        return usage()
    if words[0] == "broker":
        return serve(options.socket) if len(words) == 1 else usage()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        bus = BlockingBus(options.socket)
    except BusError:
        if not options.simple:
            complain("Failed to connect to ubus")
        return FAILED & 0xFF
    result = Command(bus, options).run(words[0], words[1:])
    if result > 0 and not options.simple:
        complain(f"Command failed: {status_text(result)}")
    elif result == USAGE:
        usage()
    bus.close()
    return result & 0xFF


def parse_options(given: Sequence[tuple[str, str]]) -> Options:
    """Return the options as cli.c's main reads them. Raises ValueError."""
    socket, timeout_s, sent = DEFAULT_SOCKET, None, None
    types: set[int] = set()
    names = [name for name, _ in given]
    for name, value in given:
        if name == "-s":
            socket = value
        elif name == "-t":
            # atoi: leading digits count, anything else is 0.
            digits = re.match(r"\s*([+-]?[0-9]+)", value)
            timeout_s = int(digits.group(1)) if digits else 0
        elif name == "-m":
            number = message_number(value)
            if number is None:
                raise ValueError(f"unknown message type {value}")
            types.add(number)
        elif name == "-M":
            if value[:1] not in ("r", "t"):
                raise ValueError(f"unknown direction {value}")
            sent = value[:1] == "t"
    return Options(socket, timeout_s, "-S" in names, "-v" in names, frozenset(types), sent)


def usage() -> int:
    """Print the usage and return the exit status that goes with it."""
    program = "python -m rpcd_wireguard_uplink.ubus"
    complain(_HELP.format(program=program, socket=DEFAULT_SOCKET).rstrip())
    return 1


def serve(socket: str) -> int:
    """Run a broker until SIGINT or SIGTERM."""
    import asyncio

    from .broker import Broker

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        broker = Broker(socket)
        await broker.start()
        await stop.wait()
        await broker.close()

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that goes away must not end the bus
    try:
        asyncio.run(run())
    except BusError as error:
        complain(str(error))
        return 1
    return 0


if __name__ == "__main__":
    # A reader of our output that went away ends us silently, as it ends any C program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    # Nothing is left to clean up, and the interpreter's own end takes as long as the command.
    sys.stdout.flush()
    os._exit(status)
