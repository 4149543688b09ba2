"""`rpcd-wireguard-uplink serve` and `uninstall`: the command line of the service itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .ubus import DEFAULT_SOCKET
from .values import dataclass

if TYPE_CHECKING:
    import argparse

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
