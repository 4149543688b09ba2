"""`wgctl uplink ...`: a method of the table called over the bus, its reply for people or scripts.

The command line is made from the method table. The exit status is the ubus status of the call, 2
for a wrong command line, 10 without a bus or without the service on it. No rights are needed but
those that the bus asks for. `doctor` is no method: it must work where no service does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..api.methods import METHODS, OBJECT, Method, error_reply, parse_arguments
from ..errors import BusError, CallFailed, InvalidArgument, Status, UplinkError
from ..tasks import woken
from ..text import printable, quoted
from ..ubus import DEFAULT_SOCKET
from ..ubus.client import Client
from .render import render
from .start import start_command

CALL_TIMEOUT_S = 90.0  # a drill with all traffic takes up to 70 s
WATCH_S = 1.0
_CLEAR = "\x1b[H\x1b[2J"
_START_HINT = f"Is the service running? `{start_command()}` starts it."
_NO_COMMAND = 2
_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and what may have been meant; the usage is for --help."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        near = difflib.get_close_matches(str(value), list(action.choices), 1)
        if isinstance(action, argparse._SubParsersAction):
            meant = f": did you mean `{self.prog} {near[0]}`?" if near else ""
            raise argparse.ArgumentError(None, f"there is no command {quoted(value)}{meant}")
        known = " or ".join(map(str, action.choices))
        raise argparse.ArgumentError(None, f"{action.dest} must be {known}, not {quoted(value)}")

    def error(self, message: str) -> NoReturn:
        self.exit(_NO_COMMAND, f"{printable(message)}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line()
    words = _with_uplink(parser, list(sys.argv[1:] if argv is None else argv))
    try:
        options = parser.parse_args(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _NO_COMMAND
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except UplinkError as error:
        return _report(error, as_json=options.json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        # The interpreter's own flush at exit must not complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0  # whoever read the output has seen enough
        _write(sys.stderr, f"the output can't be written: {os.strerror(error.errno or 0)}\n")
        return 1
    return status


def _with_uplink(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The words with `uplink` in front of one of its commands where it was left out."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in ("-s", "--socket") else 1
    if place < len(words) and words[place] in below(below(parser)["uplink"]):
        words.insert(place, "uplink")
    return words


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a command's own commands, by their words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


# --- commands


def _run_help(parser: argparse.ArgumentParser, _options: argparse.Namespace) -> int:
    parser.print_help(sys.stderr)
    return _NO_COMMAND


def _run_method(method: Method, options: argparse.Namespace) -> int:
    if getattr(options, "watch", False):
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_watch(method, options))
        return 0
    given = {}
    for name, schema in method.arguments.properties.items():
        value = getattr(options, name)
        given[name] = schema["x-words"].get(value, value) if "x-words" in schema else value
    try:
        arguments = parse_arguments(method, given)
    except InvalidArgument as error:
        raise _as_typed(error, method) from error
    (reply,) = asyncio.run(_call(options, (method, arguments)))
    _write(sys.stdout, _json(reply) if options.json else _text(method, reply))
    # A test or a rehearsal that failed is an answer, and yet a failure for a script.
    went_well = reply.get("reachable", True) and all(row["ok"] for row in reply.get("drills", ()))
    return 0 if went_well else 1


def _as_typed(error: InvalidArgument, method: Method) -> InvalidArgument:
    """The error with the option that was typed in the place of the argument's name."""
    name, _, rest = str(error).partition(" ")
    if name in method.arguments.properties and name not in method.arguments.required:
        return InvalidArgument(f"{_option(name)} {rest}")
    return error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _run_metrics(options: argparse.Namespace) -> int:
    from ..extras.metrics import exposition

    asked = [(METHODS[name], dict[str, Any]()) for name in ("uplink_status", "uplink_list")]
    status, listed = asyncio.run(_call(options, *asked))
    _write(sys.stdout, exposition(status, listed["offers"]))
    return 0


def _run_doctor(options: argparse.Namespace) -> int:
    # Here, since it loads half of the service, and no other command needs that.
    from . import doctor

    text, status = doctor.run(doctor.Places(socket=options.socket), as_json=options.json)
    _write(sys.stdout, text)
    return status


def _run_report(options: argparse.Namespace) -> int:
    from .report import report

    text = report(options.socket, options.config_dir, _connected(options.socket))
    if options.file == "-":
        _write(sys.stdout, text)
        return 0
    try:
        with open(options.file, "x", encoding="utf-8", opener=_for_owner) as file:
            file.write(text)
    except OSError as error:
        told = f"{options.file} can't be written: {error.strerror}"
        raise UplinkError(f"{told}; name another file: wgctl uplink report FILE") from error
    _write(sys.stdout, f"The report is in {options.file}. Read it before you pass it on.\n")
    return 0


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _run_get(options: argparse.Namespace) -> int:
    from .options import read_options

    found = read_options(options.config_dir, options.option or "")
    if options.json:
        _write(sys.stdout, _json({name: list(items) for name, items in found.items()}))
        return 0
    for name, items in found.items():
        lines = items if options.option else [f"{name} {' '.join(items)}".rstrip()]
        _write(sys.stdout, "".join(f"{printable(line)}\n" for line in lines))
    return 0


def _run_set(options: argparse.Namespace) -> int:
    from .options import set_option, unset_option

    values = getattr(options, "value", None)
    if values is None:
        told = unset_option(options.config_dir, options.option)
    else:
        told = set_option(options.config_dir, options.option, values)
    _write(sys.stdout, _json({"success": True, "message": told}) if options.json else f"{told}\n")
    return 0


# --- the bus


@contextlib.asynccontextmanager
async def _connected(socket: str) -> AsyncIterator[Client]:
    client = Client(socket)
    try:
        await client.connect()
        yield client
    except CallFailed as error:
        if error.status is Status.NOT_FOUND and not error.data:
            # The service itself never says "not found" without a sentence: this came from the bus.
            raise BusError(f"{OBJECT} is not on the bus at {socket}.\n{_START_HINT}") from error
        raise
    except BusError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise BusError(f"{error}\n{_START_HINT}") from error
    finally:
        await client.close()


async def _call(
    options: argparse.Namespace, *calls: tuple[Method, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    async with _connected(options.socket) as client:
        found = []
        for method, arguments in calls:
            async with _progress(method):
                reply = client.call(OBJECT, method.name, arguments, timeout_s=CALL_TIMEOUT_S)
                found.append(await reply)
        return found


async def _watch(method: Method, options: argparse.Namespace) -> None:
    """Print the reply once a second, on a terminal in the place of the last one."""
    async with _connected(options.socket) as client, _key_pressed("q") as quits:
        while not quits.is_set():
            try:
                reply = await client.call(OBJECT, method.name, {}, timeout_s=CALL_TIMEOUT_S)
                text = json.dumps(reply) + "\n" if options.json else _text(method, reply)
            except UplinkError as error:  # the service may come back
                text = f"{OBJECT} does not answer: {printable(str(error))}\n"
                text = json.dumps({"error": text.rstrip()}) + "\n" if options.json else text
            _write(sys.stdout, text if options.json or not sys.stdout.isatty() else _CLEAR + text)
            await woken(quits, WATCH_S)


@contextlib.asynccontextmanager
async def _key_pressed(key: str) -> AsyncIterator[asyncio.Event]:
    """An event for a key on the terminal, which is put back as it was."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    import termios
    import tty

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def look() -> None:
        if key.encode() in os.read(terminal, 64):
            pressed.set()

    loop.add_reader(terminal, look)
    try:
        yield pressed
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


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


async def _tick(progress: str) -> None:
    seconds = 0
    while True:
        _write(sys.stderr, f"\r{progress} ... {seconds} s")
        await asyncio.sleep(1)
        seconds += 1


# --- output


def _report(error: UplinkError, *, as_json: bool) -> int:
    """Print an error: its sentence on stderr, for scripts also its table on stdout."""
    table = error_reply(error)[0]
    if isinstance(error, CallFailed):
        if error.data:
            table = dict(error.data)
        elif error.status is Status.METHOD_NOT_FOUND:
            there = f"{OBJECT} is on the bus, but without this method: another program or release"
            table["error"] = f"{there} holds the name.\n{_START_HINT}"
    for line in str(table.get("error") or error).splitlines():
        _write(sys.stderr, f"{printable(line)}\n")
    if as_json:
        _write(sys.stdout, _json(table))
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


# --- the command line

_METRICS = "Prints the status in Prometheus' text format, for a node exporter to read from a file."
_DOCTOR = "Tells what is missing or wrong on this router, and the commands that mend it."
_REPORT = "Writes all that a bug report needs to a file, without keys and passwords."
_FILE = "a file that does not exist yet, wireguard-uplink-report.txt if left out; - to print it"
_GET = "Prints an option of the configuration, or all of them, with their defaults."
_SET = "Sets an option of the configuration; a bad value is refused."
_UNSET = "Takes an option out of the configuration, so that its default counts again."


@cache
def command_line() -> argparse.ArgumentParser:
    """The parser of all of wgctl, made from the method table."""
    parser = _Parser(
        prog="wgctl",
        description="WireGuard mesh peers as backup uplinks of this router.",
        epilog="All commands are below `wgctl uplink`; `wgctl uplink list` is a good start.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=partial(_run_help, parser), socket=DEFAULT_SOCKET, json=False)
    parser.add_argument("--version", action="version", version=f"wgctl {__version__}")
    _add_common(parser)
    uplink = _add_command(_commands_of(parser), "uplink", "See and manage backup uplinks.")
    uplink.set_defaults(run=partial(_run_help, uplink))
    behind = {"": _commands_of(uplink)}  # the parsers of what is behind each word
    made: dict[str, argparse.ArgumentParser] = {}
    for method in METHODS.values():
        if method.command:
            first, _, word = method.command.rpartition(" ")
            if first not in behind:
                behind[first] = _commands_of(made[first])
            shown = f"{method.command} {method.example}".rstrip()
            command = made[method.command] = _add_command(behind[first], word, method.doc, shown)
            command.set_defaults(run=partial(_run_method, method))
            _add_arguments(command, method)
    made["status"].add_argument(
        "--watch", action="store_true", help="show it once a second until q is pressed"
    )
    _add_command(behind[""], "metrics", _METRICS).set_defaults(run=_run_metrics)
    _add_command(behind[""], "doctor", _DOCTOR).set_defaults(run=_run_doctor)
    made["report"] = _add_command(behind[""], "report", _REPORT, "report")
    made["report"].set_defaults(run=_run_report)
    name = "wireguard-uplink-report.txt"
    made["report"].add_argument("file", nargs="?", default=name, metavar="FILE", help=_FILE)
    _add_config_dir(made["report"])
    for word, doc, run in (("get", _GET, _run_get), ("set", _SET, _run_set)):
        _add_option_command(behind[""], word, doc).set_defaults(run=run)
    _add_option_command(behind[""], "unset", _UNSET).set_defaults(run=_run_set)
    return parser


def _commands_of(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)


def _add_command(commands: Any, word: str, doc: str, example: str = "") -> argparse.ArgumentParser:
    shown = f"For example: wgctl uplink {example}" if example else None
    made: _Parser = commands.add_parser(
        word, help=doc, description=doc, epilog=shown, allow_abbrev=False
    )
    _add_common(made)
    return made


def _add_option_command(commands: Any, word: str, doc: str) -> argparse.ArgumentParser:
    example = {"get": "get min_uplinks", "set": "set min_uplinks 1", "unset": "unset min_uplinks"}
    made = _add_command(commands, word, doc, example[word])
    about = "min_uplinks, local.limit_mbps, broker.host, wgup_nodea.weight, ..."
    made.add_argument("option", metavar="OPTION", nargs="?" if word == "get" else None, help=about)
    if word == "set":
        made.add_argument("value", metavar="VALUE", nargs="+", help="a list has several")
    _add_config_dir(made)
    return made


def _add_config_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config-dir", metavar="DIR", default="/etc/config", help="where it lies")


def _add_common(parser: argparse.ArgumentParser) -> None:
    # Accepted before and behind the command; without SUPPRESS the inner parser's default would
    # undo what was given before it.
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
        meaning = schema["description"].replace("%", "%%")
        is_needed = name in method.arguments.required
        if name == "peer_id":
            parser.add_argument(
                name, metavar="PEER", nargs=None if is_needed else "?", help=meaning
            )
        elif not is_needed and schema["type"] == "boolean":
            flag = argparse.BooleanOptionalAction
            parser.add_argument(_option(name), dest=name, action=flag, help=meaning)
        elif not is_needed:
            parser.add_argument(_option(name), dest=name, metavar=name.upper(), help=meaning)
        elif "x-words" in schema:
            parser.add_argument(name, choices=list(schema["x-words"]), help=meaning)
        else:
            many = "+" if schema["type"] == "array" else None
            parser.add_argument(name, metavar=name.upper(), nargs=many, help=meaning)


if __name__ == "__main__":
    sys.exit(main())
