"""The `ubus` command where there is none: `python -m rpcd_wireguard_uplink.extras.standalone`.

Commands list, call, listen and wait_for with the arguments, output and exit statuses of ubus's
cli.c, so that scripts may use either; `broker` serves a bus (broker.py).
"""

from __future__ import annotations

import getopt
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...errors import BusError, Status, TimedOut
from ...ubus import DEFAULT_SOCKET, decode_table, encode_table
from ...ubus.blobmsg import Type
from ...ubus.blocking import BlockingBus
from ...ubus.framing import Attr
from ...ubus.objects import Listener, parse_signature
from ...ubus.protocol import Invoked

HELP = """\
Usage: python -m rpcd_wireguard_uplink.extras.standalone [options] command [arguments]
Options:
 -s SOCKET   the bus's socket ({socket})
 -t SECONDS  how long to wait: for a reply (30), for objects (30), for events (no end)
 -S          compact output and no messages, for scripts
 -v          with list: methods and their arguments
Commands:
 list [PATH]                  the objects, a path may end in *
 call PATH METHOD [JSON]      call a method and print the reply
 listen [PATTERN...]          print events
 wait_for PATH...             wait until objects are there
 broker                       serve a bus at the socket, where there is no ubusd
"""
USAGE, FAILED = -2, -1
INTERRUPTED = -126  # exits with 130, as a shell reports SIGINT
TEXTS = (
    *("Success", "Invalid command", "Invalid argument", "Method not found", "Not found"),
    *("No response", "Permission denied", "Request timed out", "Operation not supported"),
    *("Unknown error", "Connection failed", "Out of memory", "Parsing message data failed"),
    "System error",
)
"""ubus_strerror (libubus.c), by status."""
TYPES = {
    **{Type.INT8: "Boolean", Type.INT32: "Integer", Type.STRING: "String"},
    **{Type.ARRAY: "Array", Type.TABLE: "Table"},
}
LONGEST_NUMBER = 316  # blobmsg_format_element prints into a buffer of this size
ESCAPES = {code: f"\\u{code:04x}" for code in range(32)} | {
    ord(char): "\\" + letter for char, letter in zip('\b\n\t\r"\\', 'bntr"\\', strict=True)
}


def main(argv: Sequence[str]) -> int:
    try:
        options, words = getopt.gnu_getopt(list(argv), "vs:t:S")
    except getopt.GetoptError:
        return usage()
    given = dict(options)
    socket, simple = given.get("-s", DEFAULT_SOCKET), "-S" in given
    if words == ["broker"]:
        return serve(socket)
    if not words:
        return usage()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        bus = BlockingBus(socket)
    except BusError:
        if not simple:
            complain("Failed to connect to ubus")
        return FAILED & 0xFF
    timeout_s = leading_number(given["-t"]) if "-t" in given else None
    command = Command(bus, timeout_s, simple=simple, verbose="-v" in given)
    result = command.run(words[0], words[1:])
    if result > 0 and not simple:
        complain(f"Command failed: {status_text(result)}")
    elif result == USAGE:
        usage()
    bus.close()
    return result & 0xFF


def leading_number(text: str) -> int:
    """C's atoi: leading digits count, anything else is 0."""
    digits = re.match(r"\s*([+-]?[0-9]+)", text)
    return int(digits[1]) if digits else 0


class Command:
    """One command on one connection. Each method returns what cli.c's main returns.

    `timeout_s` is None unless given.
    """

    def __init__(
        self, bus: BlockingBus, timeout_s: int | None, *, simple: bool, verbose: bool
    ) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._simple = simple
        self._verbose = verbose

    def run(self, name: str, arguments: Sequence[str]) -> int:
        """Run a command by its name. USAGE stands for a wrong use."""
        commands: dict[str, Callable[[Sequence[str]], int]] = {
            "list": self._list,
            "call": self._call,
            "listen": self._listen,
            "wait_for": self._wait_for,
        }
        if name not in commands:
            return USAGE
        try:
            return commands[name](arguments)
        except KeyboardInterrupt:
            # As uloop_run ends in cli.c: what prints without an end has done its work by then.
            return {"listen": 0, "wait_for": int(Status.TIMEOUT)}.get(name, INTERRUPTED)
        except (BusError, TimedOut) as error:
            return error.status

    def _list(self, arguments: Sequence[str]) -> int:
        if len(arguments) > 1:
            return USAGE
        completed = self._bus.ask(self._bus.connection.lookup(*arguments))
        for reply in completed.replies:
            if Attr.OBJID not in reply or Attr.OBJPATH not in reply or Attr.OBJTYPE not in reply:
                continue
            path = reply[Attr.OBJPATH].decode(errors="replace")
            if self._simple or not self._verbose:
                write(path)
                continue
            write(f"'{path}' @{reply[Attr.OBJID]:08x}")
            for method, parameters in parse_signature(reply.get(Attr.SIGNATURE, b"")).items():
                names = {name: TYPES.get(kind, "(unknown)") for name, kind in parameters.items()}
                write(f"\t{text_of(method)}:{text_of(names)}")
        return completed.status

    def _call(self, arguments: Sequence[str]) -> int:
        if len(arguments) not in (2, 3):
            return USAGE
        path, method = arguments[:2]
        try:
            table = encode_table(parse_json(arguments[2]) if len(arguments) == 3 else {})
        except (BusError, ValueError):
            return self._call_failed(arguments, Status.PARSE_ERROR)
        found = self._bus.ask(self._bus.connection.lookup(path))
        if found.status != Status.OK:
            return found.status
        ids = [reply[Attr.OBJID] for reply in found.replies if Attr.OBJID in reply]
        if not ids:
            return Status.NOT_FOUND
        # 30 s unless given, no limit for 0
        timeout_s = 30 if self._timeout_s is None else self._timeout_s or None
        try:
            request = self._bus.connection.invoke(ids[-1], method, table)
            completed = self._bus.ask(request, timeout_s)
        except (BusError, TimedOut) as error:
            return self._call_failed(arguments, error.status)
        for data in completed.tables():
            write(text_of(decode_table(data), None if self._simple else 0))
        if completed.status != Status.OK:
            return self._call_failed(arguments, completed.status)
        return Status.OK

    def _call_failed(self, arguments: Sequence[str], status: int) -> int:
        """ubus_cli_error: without -S and a terminal the status is negated (exit 256 - status)."""
        if self._simple or sys.stderr.isatty():
            return status
        words = "".join(argument + " " for argument in arguments)
        complain(f"Command failed: ubus call {words}({status_text(status)})")
        return -status

    def _listen(self, arguments: Sequence[str]) -> int:
        status, object_id = self._bus.add(Listener(lambda name, data: None))
        for pattern in arguments or ["*"]:
            if status == Status.OK:
                status = self._bus.ask(self._bus.connection.listen(object_id, pattern)).status
            if status != Status.OK:
                if not self._simple:
                    complain(
                        f"Error while registering for event '{pattern}': {status_text(status)}"
                    )
                return FAILED
        for name, table in self._events(self._timeout_s or None):
            write(f"{{ {text_of(name)}: {text_of(table)} }}")
        return Status.OK

    def _wait_for(self, arguments: Sequence[str]) -> int:
        if not arguments:
            return USAGE
        status, object_id = self._bus.add(Listener(lambda name, data: None))
        if status == Status.OK:
            request = self._bus.connection.listen(object_id, "ubus.object.add")
            status = self._bus.ask(request).status
        if status != Status.OK:
            return status
        found = self._bus.ask(self._bus.connection.lookup())
        missing = set(arguments)
        missing -= {os.fsdecode(reply.get(Attr.OBJPATH, b"")) for reply in found.replies}
        if found.status != Status.OK or not missing:
            return found.status
        timeout_s = 30 if self._timeout_s is None else self._timeout_s
        for _, table in self._events(timeout_s):
            missing.discard(table.get("path", ""))
            if not missing:
                return Status.OK
        return Status.TIMEOUT

    def _events(self, timeout_s: float | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events that arrive until the timeout, or the end of the bus."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                event = self._bus.next_event(deadline)
            except (BusError, TimedOut):
                return
            if isinstance(event, Invoked):
                with suppress(BusError):
                    yield event.method, decode_table(event.data or b"")


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object as json-c reads it: what follows it is ignored, integers are held to 64 bits,
    and texts end at NUL. Raises ValueError for anything else.
    """
    from json import JSONDecoder

    try:
        value = _fitting(JSONDecoder().raw_decode(text.lstrip())[0])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _fitting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.split("\0", 1)[0]: _fitting(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_fitting(item) for item in value]
    if isinstance(value, str):
        return value.split("\0", 1)[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(1 << 63), min(value, (1 << 63) - 1))
    return value


def text_of(value: Any, level: int | None = None) -> str:
    """A value as blobmsg_json.c prints it: compact, or indented from this level on."""
    if isinstance(value, Mapping | list):
        inner = None if level is None else level + 1
        items = [text_of(item, inner) for item in value]
        if isinstance(value, Mapping):
            gap = ":" if level is None else ": "
            items = [f"{text_of(name)}{gap}{text_of(value[name], inner)}" for name in value]
        start, end = ("", "") if level is None else _breaks(level)
        opening, closing = "{}" if isinstance(value, Mapping) else "[]"
        return opening + start + f",{start}".join(items) + end + closing
    if isinstance(value, str):
        return f'"{value.translate(ESCAPES)}"'
    if isinstance(value, float):
        return f"{value:f}"[:LONGEST_NUMBER]
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _breaks(level: int) -> tuple[str, str]:
    """What goes before each item of a table at this level, and behind its last one."""
    return "\n" + "\t" * min(level + 1, 16), "\n" + "\t" * min(level, 16)


def status_text(status: int) -> str:
    return TEXTS[status] if 0 <= status < len(TEXTS) else f"Unknown error: {status}"


def write(line: str) -> None:
    """Print a line at once, so that a reader of a pipe sees each event."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()


def complain(line: str) -> None:
    """Print a line on standard error, with the bytes that the arguments had."""
    sys.stderr.buffer.write(os.fsencode(line) + b"\n")
    sys.stderr.buffer.flush()


def usage() -> int:
    complain(HELP.format(socket=DEFAULT_SOCKET).rstrip())
    return 1


def serve(socket: str) -> int:
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
