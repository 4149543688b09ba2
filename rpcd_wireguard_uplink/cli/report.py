"""`wgctl uplink report`: all that a bug report needs in one text, without a secret.

Keys are cut to their first characters, public ones too, since private ones look the same. What
can't be had is told in its place: a report is most wanted where something is broken.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

from .. import __version__
from ..api.methods import OBJECT
from ..config.options import SECTIONS
from ..errors import UplinkError
from ..system import process
from ..ubus.client import Client
from . import doctor
from .options import read_options

Connected = AbstractAsyncContextManager[Client]
CALLS = (
    *("uplink_status", "uplink_explain", "uplink_list", "uplink_history"),
    *("uplink_consumers", "uplink_trust"),
)
COMMANDS = (
    *("ip -br link", "ip -br addr", "ip rule", "ip -6 rule", "ip route show table all"),
    *("ip -6 route show table all", "nft list tables", "nft list table inet wgup", "wg show"),
)
_KEY = re.compile(r"\b[0-9a-fA-F]{64}\b|[A-Za-z0-9+/]{43}=?")
_SECRET = {option.name for kind in SECTIONS.values() for option in kind.options if option.secret}


def report(socket: str, config_dir: str, connected: Connected) -> str:
    """The text; `connected` is the bus at that socket. Nothing on the machine is changed."""
    return without_keys(asyncio.run(_collect(socket, config_dir, connected)))


def without_keys(text: str) -> str:
    """The text with everything that looks like a key cut."""
    return _KEY.sub(lambda found: f"{found[0][:6]}...", text)


async def _collect(socket: str, config_dir: str, connected: Connected) -> str:
    parts = [
        f"wireguard-uplink {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()} {platform.machine()}\n"
    ]
    places = doctor.Places(socket=socket, config_dir=config_dir)
    findings = doctor.examine(await doctor.read_facts(places))
    parts += ["== doctor", *doctor.report(findings)]
    parts += ["== configuration", *_configuration(config_dir)]
    parts += [line async for line in _replies(connected)]
    for command in COMMANDS:
        try:
            done = await process.run(command.split(), check=False)
            text = f"{done.stdout}{done.stderr}".rstrip()
        except UplinkError as error:
            text = str(error)
        parts += [f"== {command}", text]
    return "\n".join(parts) + "\n"


def _configuration(config_dir: str) -> Iterator[str]:
    try:
        options = read_options(config_dir)
    except UplinkError as error:
        yield str(error)
        return
    for name, items in options.items():
        is_secret = name.rpartition(".")[2] in _SECRET and items
        yield f"{name} {'(not shown)' if is_secret else ' '.join(items)}".rstrip()


async def _replies(connected: Connected) -> AsyncIterator[str]:
    try:
        async with connected as client:
            for name in CALLS:
                yield f"== {name}"
                try:
                    yield json.dumps(await client.call(OBJECT, name, {}), indent=1)
                except UplinkError as error:
                    yield str(error)
    except UplinkError as error:
        yield f"== bus\n{error}"
