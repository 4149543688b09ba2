"""The commands of `python -m rpcd_wireguard_uplink.ubus`, as the `ubus` command has them.

Owns arguments, output and exit statuses; each is that of cli.c, so that scripts and people may use
either. Connections are blocking.py's, the text of tables is jsontext.py's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import BusError, MessageTooLarge, Status, TimedOut
from ...ubus.blobmsg import Encoded, decode_table, encode_table, walk
from ...ubus.blocking import BlockingBus
from ...ubus.framing import MONITOR_OBJECT, Attr, MessageType, attributes_of, parse_attributes
from ...ubus.objects import Reply
from ...ubus.protocol import Completed, Event, Invoked, Monitored
from .jsontext import format_method, format_string, format_table

USAGE = -2
FAILED = -1
INTERRUPTED = -126
"""Exits with 130, as a shell reports SIGINT."""

_TEXTS = {
    Status.OK: "Success",
    Status.INVALID_COMMAND: "Invalid command",
    Status.INVALID_ARGUMENT: "Invalid argument",
    Status.METHOD_NOT_FOUND: "Method not found",
    Status.NOT_FOUND: "Not found",
    Status.NO_DATA: "No response",
    Status.PERMISSION_DENIED: "Permission denied",
    Status.TIMEOUT: "Request timed out",
    Status.NOT_SUPPORTED: "Operation not supported",
    Status.UNKNOWN_ERROR: "Unknown error",
    Status.CONNECTION_FAILED: "Connection failed",
    Status.NO_MEMORY: "Out of memory",
    Status.PARSE_ERROR: "Parsing message data failed",
    Status.SYSTEM_ERROR: "System error",
}


@dataclass(frozen=True, slots=True)
class Options:
    """The options in front of the command."""

    socket: str
    timeout_s: int | None = None
    simple: bool = False
    verbose: bool = False
    types: frozenset[int] = frozenset()
    sent: bool | None = None

    @property
    def call_timeout_s(self) -> float | None:
        """How long a call may take: 30 s unless given, no limit for 0."""
        return 30.0 if self.timeout_s is None else float(self.timeout_s) or None


class Command:
    """One command on one connection. Each method returns what cli.c's main returns."""

    def __init__(self, bus: BlockingBus, options: Options) -> None:
        self._bus = bus
        self._options = options

    def run(self, name: str, arguments: Sequence[str]) -> int:
        """Run a command by its name. USAGE stands for a wrong use."""
        commands: dict[str, Callable[[Sequence[str]], int]] = {
            "list": self._list,
            "call": self._call,
            "listen": self._listen,
            "subscribe": self._subscribe,
            "send": self._send,
            "wait_for": self._wait_for,
            "monitor": self._monitor,
        }
        command = commands.get(name)
        if command is None:
            return USAGE
        try:
            return command(arguments)
        except KeyboardInterrupt:
            # As uloop_run ends in cli.c: what prints without an end has done its work by then.
            ends = {"listen": 0, "subscribe": 0, "monitor": 0, "wait_for": int(Status.TIMEOUT)}
            return ends.get(name, INTERRUPTED)
        except TimedOut:
            return Status.TIMEOUT
        except MessageTooLarge:
            return Status.INVALID_ARGUMENT
        except BusError as error:
            return error.status

    def _list(self, arguments: Sequence[str]) -> int:
        if len(arguments) > 1:
            return USAGE
        request = self._bus.connection.lookup(arguments[0] if arguments else None)
        completed = self._bus.ask(request)
        for reply in completed.replies:
            if Attr.OBJID not in reply or Attr.OBJPATH not in reply or Attr.OBJTYPE not in reply:
                continue
            if self._options.simple or not self._options.verbose:
                write(reply[Attr.OBJPATH] + b"\n")
                continue
            write(b"'%s' @%08x\n" % (reply[Attr.OBJPATH], reply[Attr.OBJID]))
            signature = reply.get(Attr.SIGNATURE, b"")
            for _, name, start, end in walk(signature, 0, len(signature)):
                write(b"\t" + format_method(name, signature[start:end]) + b"\n")
        return completed.status

    def _call(self, arguments: Sequence[str]) -> int:
        if len(arguments) not in (2, 3):
            return USAGE
        try:
            table = parse_json(arguments[2]) if len(arguments) == 3 else Encoded()
        except (BusError, ValueError):
            return self._call_failed(arguments, Status.PARSE_ERROR)
        found = self._bus.ask(self._bus.connection.lookup(arguments[0]))
        ids = [reply[Attr.OBJID] for reply in found.replies if Attr.OBJID in reply]
        if found.status != Status.OK:
            return found.status
        if not ids:
            return Status.NOT_FOUND
        request = self._bus.connection.invoke(ids[-1], arguments[1], table)
        try:
            completed = self._bus.ask(request, self._options.call_timeout_s)
        except TimedOut:
            return self._call_failed(arguments, Status.TIMEOUT)
        except BusError as error:
            return self._call_failed(arguments, error.status)
        for data in completed.tables():
            write(format_table(data, indent=not self._options.simple) + b"\n")
        if completed.status != Status.OK:
            return self._call_failed(arguments, completed.status)
        return Status.OK

    def _call_failed(self, arguments: Sequence[str], status: int) -> int:
        """ubus_cli_error: without -S and a terminal the status is negated (exit 256 - status)."""
        if self._options.simple or sys.stderr.isatty():
            return status
        words = "".join(argument + " " for argument in arguments)
        complain(f"Command failed: ubus call {words}({status_text(status)})")
        return -status

    def _listen(self, arguments: Sequence[str]) -> int:
        status, object_id = self._bus.add_listener()
        pattern = "*"
        for pattern in arguments or ["*"]:
            if status == Status.OK:
                status = self._bus.ask(self._bus.connection.listen(object_id, pattern)).status
            if status != Status.OK:
                return self._registering_failed(pattern, status)
        return self._print_events()

    def _subscribe(self, arguments: Sequence[str]) -> int:
        if not arguments:
            if not self._options.simple:
                complain("You need to specify an object to subscribe to")
            return FAILED
        status, object_id = self._bus.add_listener()
        for path in arguments:
            if status == Status.OK:
                found = self._bus.ask(self._bus.connection.lookup(path))
                status = found.status
                ids = [reply[Attr.OBJID] for reply in found.replies if Attr.OBJID in reply]
                if ids:
                    request = self._bus.connection.subscribe(object_id, ids[-1])
                    status = self._bus.ask(request).status
            if status != Status.OK:
                return self._registering_failed(path, status)
        return self._print_events()

    def _registering_failed(self, name: str, status: int) -> int:
        if not self._options.simple:
            text = status_text(status)
            complain(f"Error while registering for event '{name}': {text}")
        return FAILED

    def _print_events(self) -> int:
        """Print what is delivered until the timeout, a signal or the end of the bus."""
        limit_s = self._options.timeout_s
        for event in self._events(time.monotonic() + limit_s if limit_s else None):
            if isinstance(event, Invoked):
                text = format_table(event.data or b"")
                write(b'{ "%s": %s }\n' % (os.fsencode(event.method), text))
                if event.peer:
                    self._bus.write(self._bus.connection.reply(event, Reply()))
        return Status.OK

    def _events(self, deadline: float | None) -> Any:
        try:
            while True:
                yield self._bus.next_event(deadline)
        except (BusError, TimedOut):
            return

    def _send(self, arguments: Sequence[str]) -> int:
        if len(arguments) not in (1, 2):
            return USAGE
        try:
            table = parse_json(arguments[1]) if len(arguments) == 2 else Encoded()
        except (BusError, ValueError):
            return Status.PARSE_ERROR
        return self._bus.ask(self._bus.connection.send_event(arguments[0], table)).status

    def _wait_for(self, arguments: Sequence[str]) -> int:
        if not arguments:
            return USAGE
        missing = set(arguments)
        status, object_id = self._bus.add_listener()
        if status == Status.OK:
            request = self._bus.connection.listen(object_id, "ubus.object.add")
            status = self._bus.ask(request).status
        if status != Status.OK:
            return status
        completed = self._bus.ask(self._bus.connection.lookup(None))
        missing -= {os.fsdecode(reply.get(Attr.OBJPATH, b"")) for reply in completed.replies}
        if completed.status != Status.OK or not missing:
            return completed.status
        limit_s = 30 if self._options.timeout_s is None else self._options.timeout_s
        for event in self._events(time.monotonic() + limit_s):
            if isinstance(event, Invoked) and event.method == "ubus.object.add":
                missing.discard(_path_of(event))
                if not missing:
                    return Status.OK
        return Status.TIMEOUT

    def _monitor(self, arguments: Sequence[str]) -> int:
        request = self._bus.connection.invoke(MONITOR_OBJECT, "add", b"")
        completed: Completed = self._bus.ask(request, 1.0)
        if completed.status != Status.OK:
            return completed.status
        for event in self._events(None):
            line = monitor_line(event, self._options)
            if line is not None:
                write(line)
        return Status.OK


def _path_of(event: Invoked) -> object:
    try:
        return decode_table(event.data or b"").get("path")
    except BusError:
        return None


def monitor_line(event: Event, options: Options) -> bytes | None:
    """Return the line for a monitored message, None for one that the options leave out."""
    if not isinstance(event, Monitored):
        return None
    found = {attr: event.body[start:end] for attr, start, end in attributes_of(event.body)}
    if any(attr not in found for attr in (0, 1, 2, 4, 5)):
        return b"Invalid monitor msg\n"
    client, peer, kind = (int.from_bytes(found[attr], "big") for attr in (0, 1, 4))
    sent = any(found[2])
    if options.types and kind < 32 and kind not in options.types:
        return None
    if options.sent is not None and sent != options.sent:
        return None
    known = kind < MessageType.MONITOR
    name = MessageType(kind).name.lower().encode() if known else b"%d" % kind
    arrow = b"->" if sent else b"<-"
    try:
        data = _monitored_attributes(found[5])
    except BusError:
        return b"Invalid monitor msg\n"
    return b"%s %08x #%08x %14s: %s\n" % (arrow, client, peer, name, data)


def _monitored_attributes(body: bytes) -> bytes:
    """Return a message's attributes in the order of their numbers (ubus_cli_get_monitor_data)."""
    parts = []
    for attr, value in sorted(parse_attributes(body).items()):
        if attr in (Attr.TARGET, Attr.SUBSCRIBERS):
            continue
        if attr in (Attr.ACTIVE, Attr.NO_REPLY):
            text = b"true" if value else b"false"
        elif isinstance(value, int):
            text = b"%d" % (value - (1 << 32) if value >> 31 else value)
        elif attr in (Attr.DATA, Attr.SIGNATURE):
            text = format_table(value)
        else:
            text = format_string(value)
        parts.append(b'"%s":%s' % (Attr(attr).name.lower().encode(), text))
    return b"{" + b",".join(parts) + b"}"


def parse_json(text: str) -> Encoded:
    """Return a JSON object as a table, as json-c reads it: what follows the object is ignored.

    Raises ValueError or BusError for what is no object or can't be encoded.
    """
    from json import JSONDecoder

    value, _ = JSONDecoder().raw_decode(text.lstrip())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return encode_table(_fitting(value))


def _fitting(value: Any) -> Any:
    """Return a value with integers held to 64 bits and texts ended at NUL, as json-c does it."""
    if isinstance(value, dict):
        return {name.split("\0", 1)[0]: _fitting(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_fitting(item) for item in value]
    if isinstance(value, str):
        return value.split("\0", 1)[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(1 << 63), min(value, (1 << 63) - 1))
    return value


def status_text(status: int) -> str:
    """Return the sentence of ubus_strerror (libubus.c)."""
    if 0 <= status <= Status.SYSTEM_ERROR:
        return _TEXTS[Status(status)]
    return f"Unknown error: {status}"


def write(data: bytes) -> None:
    """Print bytes at once, so that a reader of a pipe sees each event."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def complain(line: str) -> None:
    """Print a line on standard error, with the bytes that the arguments had."""
    sys.stderr.buffer.write(os.fsencode(line) + b"\n")
    sys.stderr.buffer.flush()


def message_number(name: str) -> int | None:
    """Return the number of a message type that `monitor -m` can be told to show."""
    types = {kind.name.lower(): int(kind) for kind in MessageType if kind != MessageType.MONITOR}
    return types.get(name)
