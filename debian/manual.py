"""Manual pages and bash completion, made from the parsers of the two commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from rpcd_wireguard_uplink import __version__
from rpcd_wireguard_uplink.cli.main import below
from rpcd_wireguard_uplink.cli.main import command_line as wgctl
from rpcd_wireguard_uplink.command_line import command_line as service

PAGES = {
    "wgctl": (wgctl, "see and manage backup uplinks through WireGuard mesh peers"),
    "rpcd-wireguard-uplink": (service, "the service behind wgctl and LuCI's pages"),
}

_EXIT_STATUS = r"""
.SH EXIT STATUS
0 where it did what was asked, 2 for a wrong command line, 10 without a bus or without the service
on it, 1 where
.B wgctl uplink doctor
found a fault. A call that the service refuses has the status of ubus.
"""
_FILES = r"""
.SH FILES
.TP
.I /etc/config/wireguard\-uplink
The options;
.B wgctl uplink get
prints all of them.
.TP
.I /etc/wireguard\-uplink/keys
Private keys, for root alone.
.TP
.I /etc/wireguard\-uplink.d
Programs that are run when something happens.
.SH SEE ALSO
"""


def page(name: str) -> str:
    """The manual page of a command, in the macros of man(7)."""
    make, purpose = PAGES[name]
    lines = [
        f'.TH "{name.upper()}" 8 "" "wireguard-uplink {__version__}"',
        ".SH NAME",
        rf"{_escaped(name)} \- {_escaped(purpose)}",
        ".SH SYNOPSIS",
        rf"\fB{_escaped(name)}\fR \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH COMMANDS",
    ]
    for command in _commands(make()):
        usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: ")).strip()
        usage = re.sub(r" \[(-h|-s PATH|--json)\]", "", usage)
        lines += [".TP", rf"\fB{_escaped(usage)}\fR", _escaped(command.description or "")]
        for action in _arguments(command):
            shown = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            lines += [".RS", ".TP", rf"\fB{_escaped(shown)}\fR", _escaped(action.help or ""), ".RE"]
    status = _EXIT_STATUS if name == "wgctl" else "\n"
    others = "\n".join(rf".BR {_escaped(other)} (8)" for other in PAGES if other != name)
    return "\n".join(lines) + status.rstrip("\n") + _FILES + others + "\n"


def completion() -> str:
    """bash's completion of `wgctl`: the commands, then what a command takes."""
    parsers = [wgctl(), *_commands(wgctl())]
    paths = [" ".join(parser.prog.split()[1:]) for parser in parsers]
    cases = []
    for path, parser in zip(paths, parsers, strict=True):
        words = [*below(parser), "--json", "--help"]
        for action in _arguments(parser):
            words += [*action.option_strings, *map(str, action.choices or ())]
        cases.append(f'    "{path}") words="{" ".join(words)}" ;;')
    known = "|".join(f'"{path}"' for path in paths if path)
    return "\n".join(
        [
            "_wgctl() {",
            '    local word next path="" words=""',
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '        next="${path:+$path }$word"',
            f'        case "$next" in {known}) path=$next ;; esac',
            "    done",
            '    case "$path" in',
            *cases,
            "    esac",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}")',
            "}",
            "complete -F _wgctl wgctl\n",
        ]
    )


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for each in below(parser).values():
        yield each
        yield from _commands(each)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes, without what all take."""
    common = {"help", "json", "version"} | (
        {"socket"} if parser.prog.startswith("wgctl") else set()
    )
    return [
        action
        for action in parser._actions
        if action.dest not in common and not isinstance(action, argparse._SubParsersAction)
    ]


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return f"\\&{text}" if text.startswith((".", "'")) else text
