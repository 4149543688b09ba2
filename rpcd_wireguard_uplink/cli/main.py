"""`wgctl uplink ...`: one method of the table called over the bus, its reply for people or scripts.

Owns the command line, made from the method table, and the exit statuses: the ubus status of the
call, 2 for a wrong command line, 10 without a bus or without the service on it. It knows nothing of
what the methods do, and needs no rights but those that the bus asks for. `doctor` alone is no
method: it must work where no service does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from ..api.methods import METHODS, OBJECT, Method, error_reply, parse_arguments
from ..errors import BusError, CallFailed, InvalidArgument, Status, UplinkError
from ..text import printable
from ..ubus import DEFAULT_SOCKET, Client
from .render import render

CALL_TIMEOUT_S = 90.0  # a drill with all traffic takes up to 70 s
_START_HINT = (
    "Is the service running? Start it with `/etc/init.d/wireguard-uplink start`, "
    "or `python -m rpcd_wireguard_uplink serve` where there is no OpenWrt."
)
_NO_COMMAND = 2
_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line; the usage is what --help is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(_NO_COMMAND, f"{printable(message)}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv if None) and return its exit status."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _NO_COMMAND
    try:
        status = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter's own flush at exit must not
        # complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _run(options: argparse.Namespace) -> int:
    if getattr(options, "preflight", False):
        # Here, since it loads half of the service, and no other command needs that.
        from . import doctor

        text, status = doctor.run(doctor.Places(socket=options.socket), as_json=options.json)
        _write(sys.stdout, text)
        return status
    method: Method | None = getattr(options, "method", None)
    if method is None:
        options.explain(sys.stderr)
        return _NO_COMMAND
    try:
        if getattr(options, "watch", False):
            asyncio.run(_watch(options.socket, as_json=options.json))
            return 0
        arguments = parse_arguments(method, _given(method, options))
        reply = asyncio.run(_call(options.socket, method, arguments))
    except UplinkError as error:
        return _report(error, as_json=options.json)
    _write(sys.stdout, _json(reply) if options.json else _text(method, reply))
    return 0


def _given(method: Method, options: argparse.Namespace) -> dict[str, Any]:
    given = {}
    for name, schema in method.arguments.properties.items():
        value = getattr(options, name)
        words = schema.get("x-words")
        given[name] = words.get(value, value) if words else value
    return given


async def _connect(socket: str) -> Client:
    client = Client(socket)
    try:
        await client.connect()
    except BusError as error:
        await client.close()
        raise BusError(f"{error}\n{_START_HINT}") from error
    return client


async def _watch(socket: str, *, as_json: bool) -> None:
    from . import live

    client = await _connect(socket)
    try:
        await live.watch(client, sys.stdout, as_json=as_json)
    finally:
        await client.close()


async def _call(socket: str, method: Method, arguments: Mapping[str, Any]) -> dict[str, Any]:
    client = await _connect(socket)
    try:
        async with _progress(method):
            return await client.call(OBJECT, method.name, arguments, timeout_s=CALL_TIMEOUT_S)
    except CallFailed as error:
        if error.status is Status.NOT_FOUND and not error.data:
            # The service itself never says "not found" without a sentence: this came from the bus.
            raise BusError(f"{OBJECT} is not on the bus at {socket}.\n{_START_HINT}") from error
        raise
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _progress(method: Method) -> AsyncIterator[None]:
    """Say on stderr that a slow call runs; on a terminal the line counts seconds and goes away."""
    if not method.progress:
        yield
        return
    if not sys.stderr.isatty():
        _write(sys.stderr, f"{method.progress} ...\n")
        yield
        return
    ticking = asyncio.create_task(_tick(method.progress))
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        _write(sys.stderr, "\r\x1b[K")


async def _tick(told: str) -> None:
    seconds = 0
    while True:
        _write(sys.stderr, f"\r{told} ... {seconds} s")
        await asyncio.sleep(1)
        seconds += 1


def _report(error: UplinkError, *, as_json: bool) -> int:
    """Tell an error: its sentence on stderr, for scripts also its table on stdout."""
    table = error_reply(error)[0]
    if isinstance(error, CallFailed):
        if error.data:
            table = dict(error.data)
        elif error.status is Status.METHOD_NOT_FOUND:
            told = f"{OBJECT} is on the bus, but without this method: another program or release"
            table["error"] = f"{told} holds the name.\n{_START_HINT}"
    for line in str(table.get("error") or error).splitlines():
        _write(sys.stderr, f"{printable(line)}\n")
    if as_json:
        _write(sys.stdout, _json(table))
    return _exit_status(error)


def _exit_status(error: UplinkError) -> int:
    return _NO_COMMAND if isinstance(error, InvalidArgument) else int(error.status)


def _json(table: Mapping[str, Any]) -> str:
    # ASCII only: json escapes everything that a terminal could take as a command.
    return json.dumps(table, indent=2, ensure_ascii=True) + "\n"


def _text(method: Method, reply: Mapping[str, Any]) -> str:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        return render(method.name, reply, colour=colour)
    except (KeyError, TypeError, AttributeError):
        # A service of another release: what it says is still better than nothing.
        return _json(reply)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="wgctl",
        description="WireGuard mesh peers as backup uplinks of this router.",
        epilog="All commands are below `wgctl uplink`; `wgctl uplink list` is a good start.",
        allow_abbrev=False,
    )
    parser.set_defaults(explain=parser.print_help, socket=DEFAULT_SOCKET, json=False)
    _add_common(parser)
    topics = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    about = "see and manage backup uplinks"
    uplink = topics.add_parser("uplink", help=about, description=about, allow_abbrev=False)
    uplink.set_defaults(explain=uplink.print_help)
    _add_common(uplink)
    commands = uplink.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    below: dict[str, Any] = {"": commands}  # the parsers of what stands behind each word
    made: dict[str, argparse.ArgumentParser] = {}
    for method in METHODS.values():
        if method.command:
            first, _, word = method.command.rpartition(" ")
            if first not in below:
                below[first] = made[first].add_subparsers(
                    title="commands", metavar="COMMAND", parser_class=_Parser
                )
            command = below[first].add_parser(
                word, help=method.doc, description=method.doc, allow_abbrev=False
            )
            made[method.command] = command
            command.set_defaults(method=method)
            _add_arguments(command, method)
            if method.name == "uplink_status":
                command.add_argument("--watch", action="store_true", help="show it live")
            _add_common(command)
    about = "Tells what is missing or wrong on this router, and the commands that mend it."
    doctor = commands.add_parser("doctor", help=about, description=about, allow_abbrev=False)
    doctor.set_defaults(preflight=True)
    _add_common(doctor)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    # Accepted before and behind the command; without SUPPRESS the inner parser's default would
    # undo what stood before it.
    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help=f"the bus's socket (default {DEFAULT_SOCKET})",
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the reply as JSON"
    )


def _add_arguments(parser: argparse.ArgumentParser, method: Method) -> None:
    for name, schema in method.arguments.properties.items():
        told = schema.get("description", "").replace("%", "%%")
        if name not in method.arguments.required:
            parser.add_argument(
                f"--{name.replace('_', '-')}", dest=name, metavar=name.upper(), help=told
            )
        elif "x-words" in schema:
            parser.add_argument(name, choices=list(schema["x-words"]), help=told)
        else:
            many = "+" if schema["type"] == "array" else None
            parser.add_argument(name, metavar=name.upper(), nargs=many, help=told)


if __name__ == "__main__":
    sys.exit(main())
