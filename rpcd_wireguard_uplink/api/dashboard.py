"""Beside SecuBox's dashboard: its object's name is ours, its plugin's other methods stay served.

rpcd publishes the plugin under the name before any service starts. It publishes nothing for a file
that lists no methods (rpc_plugin_parse_exec, plugin.c), so the script puts such a stand-in in the
plugin's place, marked by the sticky bit, which nothing else uses, and has rpcd reload; then the
name is free. The mark survives a crash and a reboot, and a reinstalled plugin is unmarked again.
Calls are forwarded by rpcd's rules (rpc_plugin_call).
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..errors import NameTaken, Status, TimedOut, UplinkError
from ..system import process
from ..ubus import Call, Reply
from ..ubus.blobmsg import Type
from .methods import PLUGIN

log = logging.getLogger("wireguard-uplink")

SCRIPT = "/usr/libexec/wireguard-uplink/dashboard"
CALL_S = 30.0  # what rpcd's init script gives a plugin
LIST_S = 5.0
FREE_S = 15.0  # rpcd's reload runs every plugin once before the name can be judged
PAUSE_S = 0.1

Signatures = dict[str, dict[str, Type]]


class Dashboard:
    """The plugin of one machine, installed or not; it may come and go at any time."""

    def __init__(self, plugin: str = PLUGIN, script: str = SCRIPT) -> None:
        self._plugin = plugin
        self._script = script
        self._asked = False
        self._listed: tuple[object, Signatures] = (None, {})

    @property
    def installed(self) -> bool:
        """Whether there is a plugin that rpcd could run."""
        return os.path.isfile(self._plugin)

    @property
    def marked(self) -> bool:
        """Whether a stand-in of ours has the plugin's place."""
        return bool(self._mode() & stat.S_ISVTX)

    @property
    def _source(self) -> str:
        """The plugin itself, which lies aside while a stand-in has its place."""
        aside = f"{self._plugin}.dashboard"
        return aside if self.marked and os.path.isfile(aside) else self._plugin

    def _mode(self) -> int:
        try:
            return os.stat(self._plugin).st_mode
        except OSError:
            return 0

    # --- the name

    async def take(self, publish: Callable[[], Awaitable[None]]) -> bool:
        """Have rpcd let go of the name and publish; False where it is not the plugin's name.

        A name that stays taken is not asked for again: rpcd would be reloaded for nothing.
        """
        if self._asked or self.marked or not self._mode() & stat.S_IXUSR:
            return False
        self._asked = True
        await self._run("take")
        deadline_s = asyncio.get_running_loop().time() + FREE_S
        while True:
            try:
                await publish()
                self._asked = False
                return True
            except NameTaken:
                if asyncio.get_running_loop().time() > deadline_s:
                    await self.give_back()
                    return False
            await asyncio.sleep(PAUSE_S)

    async def give_back(self) -> None:
        """Have rpcd publish the plugin again; our own object must be off the bus before."""
        await self._run("give-back")

    async def link(self) -> None:
        """Put links to ours in the place of the dashboard's files, which move aside."""
        await self._run("link")

    async def _run(self, word: str) -> None:
        try:
            await process.run(("sh", self._script, word), timeout_s=10)
        except UplinkError as error:
            log.warning("the dashboard's plugin: %s", error)

    # --- its methods

    async def signatures(self) -> Signatures:
        """The plugin's methods as rpcd would advertise them; none where it can't be asked."""
        try:
            found = os.stat(self._source)
        except OSError:
            return {}
        version = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._listed[0] != version:
            try:
                done = await process.run(
                    ("sh", self._source, "list"), timeout_s=LIST_S, check=False
                )
            except UplinkError as error:
                log.warning("the dashboard's methods: %s", error)
                return {}
            self._listed = (version, parse_signatures(done.stdout))
        return self._listed[1]

    async def forward(self, call: Call) -> Reply:
        """The plugin's answer to a call of a method that is not ours."""
        if call.method not in await self.signatures():
            return Reply(status=Status.METHOD_NOT_FOUND)
        import json  # not for routers without a dashboard

        argv = ("sh", self._source, "call", call.method)
        try:
            arguments = json.dumps(call.arguments)
            done = await process.run(argv, stdin=arguments, timeout_s=CALL_S, check=False)
        except TimedOut:
            return Reply(status=Status.TIMEOUT)
        return parse_reply(done.stdout)


def parse_reply(output: str) -> Reply:
    """What rpcd makes of a plugin's output: its first JSON value, whatever follows.

    Not a table or not JSON is INVALID_ARGUMENT, nothing is NO_DATA (rpc_plugin_call_finish_cb).
    """
    import json

    text = output.lstrip()
    if not text:
        return Reply(status=Status.NO_DATA)
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return Reply(status=Status.INVALID_ARGUMENT)
    if value is None:
        return Reply(status=Status.NO_DATA)
    return Reply(value) if isinstance(value, dict) else Reply(status=Status.INVALID_ARGUMENT)


def parse_signatures(output: str) -> Signatures:
    """The methods that a plugin's `list` shows: name -> argument -> type of its example.

    An integer stands for its width (rpc_plugin_parse_signature); what is no table is left out.
    """
    listed = parse_reply(output).data
    if not isinstance(listed, Mapping):
        return {}
    return {
        name: {argument: _type_of(example) for argument, example in arguments.items() if argument}
        for name, arguments in listed.items()
        if name and isinstance(arguments, dict)
    }


def _type_of(example: Any) -> Type:
    if isinstance(example, bool):
        return Type.BOOL
    if isinstance(example, int):
        return {8: Type.BOOL, 16: Type.INT16, 64: Type.INT64}.get(example, Type.INT32)
    kinds: tuple[tuple[type, Type], ...] = (
        (str, Type.STRING),
        (float, Type.DOUBLE),
        (list, Type.ARRAY),
        (dict, Type.TABLE),
    )
    return next((kind for python, kind in kinds if isinstance(example, python)), Type.UNSPEC)
