"""The one reader and writer of /etc/config/wireguard-uplink, and what is in force of it.

An edit is one write and one event; what was good last is kept on disk for a start over a bad file.
Absence is not intent: a file that is missing, cut off or no UCI removes nothing, and nothing is
written on top of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Protocol

from ..errors import ConfigError, UplinkError
from ..events import Event, Events
from ..reasons import because, of_system
from ..system.files import UnusableFile, read_text, replace_file
from ..uci import Document, Draft, export, parse
from ..values import dataclass
from ..warnings import Warnings
from .options import CONFIG, MAIN_NAME, MAIN_TYPE
from .parser import parse_config
from .settings import Config
from .writer import write_config

log = logging.getLogger(__name__)

LOST = because("config_lost", CONFIG, MAIN_TYPE)
KEPT_HEAD = f"# The last good {CONFIG}, for a start over a bad one; made by the service.\n"


@dataclass(frozen=True, slots=True)
class ConfigChanged(Event):
    """Other settings are in force; `old` is None where everything is to be followed anew."""

    old: Config | None
    new: Config

    def touches(self, *parts: str) -> bool:
        """Whether one of these fields of Config differs."""
        return any(getattr(self.old, part, None) != getattr(self.new, part) for part in parts)


class ConfigFiles(Protocol):
    """Where the file lies; a Platform is one."""

    async def read(self, config: str) -> Document:
        """The file's document; an absent file is an empty one."""

    async def edit(self, config: str, change: Callable[[Draft], None]) -> object:
        """Apply `change` to the file under its lock; its signature behind the edit."""

    def signature(self, config: str) -> object:
        """A value that differs once the file was changed by anybody."""


class _Lost(ConfigError):
    """The file has no main section."""


@dataclass(eq=False, repr=False)
class ConfigStore:
    """The configuration in force. `has_made` says whether anything exists that an earlier run made
    by a configuration which nobody remembers; `kept_file` holds the last good one ('' for none).
    """

    _files: ConfigFiles
    _has_made: Callable[[], Awaitable[bool]]
    _events: Events
    _warnings: Warnings
    _kept_file: str = ""
    current: Config = field(default_factory=Config)
    understood: bool = False
    _told: Config | None = None
    _kept: str = ""
    _is_lost: bool = False
    _signature: object = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def changed_outside(self) -> bool:
        """Whether somebody else has changed the file since it was last read or written."""
        return self._files.signature(CONFIG) != self._signature

    @property
    def _is_followed(self) -> bool:
        """Whether what is in force is what the file says."""
        return self.understood and "config" not in self._warnings and not self.changed_outside

    async def reload(self) -> bool:
        """Read the file where it was changed; False, and the last good configuration stays, where
        it says nothing.

        Nobody hears before `tell`, and of the first one not at all.
        """
        async with self._lock:
            is_understood = self._is_followed or await self._reload()
        self._told = self._told or self.current
        return is_understood

    async def require(self) -> Config:
        """The configuration as the file has it now; ConfigError where that can't be changed."""
        async with self._lock:
            if self._is_followed or await self._reload():
                return self.current
            if not self._is_lost or await self._is_made():
                raise ConfigError(self._warnings["config"])
            return self.current

    async def edit(self, change: Callable[[Config], Config], *, tell: bool = True) -> Config:
        """Have the file say what `change` makes of it, and that be in force; one write at most.

        What `change` raises stops the edit; nothing is written where it changes nothing. Raises
        ConfigError where the file is bad or lost, and what the files and followers raise.
        """
        async with self._lock:
            try:
                await self._edit(change, may_begin=False)
            except _Lost:
                if await self._is_made():
                    raise ConfigError(LOST) from None
                await self._edit(change, may_begin=True)
        if tell:
            await self.tell()
        return self.current

    async def tell(self, *, anew: bool = False) -> None:
        """Have everybody follow what has changed since this was called last; `anew`: everything."""
        old, self._told = None if anew else self._told, self.current
        if old != self.current:
            await self._events.publish_and_wait(ConfigChanged(old, self.current))

    async def _edit(self, change: Callable[[Config], Config], *, may_begin: bool) -> None:
        made: list[Config] = []

        def write(draft: Draft) -> None:
            is_lost = not draft.of_type(MAIN_TYPE)
            if is_lost and not may_begin:
                raise _Lost(LOST)
            before = parse_config(draft.sections, self.current.good)
            after = change(before)
            if is_lost:
                draft.set_section(MAIN_NAME, MAIN_TYPE, {})
            write_config(draft, before, after)
            made.append(parse_config(draft.sections, before.good))

        self._signature = await self._files.edit(CONFIG, write)
        await self._take(made[0])

    async def _reload(self) -> bool:
        kept = Config() if self.understood else await asyncio.to_thread(self._read_kept)
        self._signature, self._is_lost = self._files.signature(CONFIG), False
        try:
            document = await self._files.read(CONFIG)
        except ConfigError as error:
            return await self._fall_back(kept, because("config_unread", error))
        config = parse_config(document.sections, (kept if kept.good else self.current).good)
        self._is_lost = not document.of_type(MAIN_TYPE)
        if self._is_lost and (config != self.current or kept.has_made or await self._is_made()):
            return await self._fall_back(kept, LOST)
        await self._take(config)
        return True

    async def _fall_back(self, kept: Config, told: str) -> bool:
        if kept.good:
            await self._take(kept)
        self._warnings.set("config", told)
        return False

    async def _take(self, config: Config) -> None:
        self.current, self.understood = config, True
        self._warnings.clear_topic("config")
        await self.keep()

    async def keep(self) -> None:
        """Have what is in force kept for the next start; to be called again where that failed."""
        if not any(uplink.pending for uplink in self.current.uplinks):
            with self._warnings.catch("kept config", UplinkError, OSError, sentence=_unkept):
                await asyncio.to_thread(self._keep, self.current)

    async def _is_made(self) -> bool:
        return self.current.has_made if self.understood else await self._has_made()

    # --- the last good configuration

    def _read_kept(self) -> Config:
        """What an earlier run kept; an empty configuration where there is none to read."""
        if not self._kept_file:
            return Config()
        try:
            self._kept = read_text(self._kept_file)
            return parse_config(parse(self._kept, file=self._kept_file).sections)
        except (UnusableFile, ConfigError) as error:
            log.warning("%s", error)
            return Config()

    def _keep(self, config: Config) -> None:
        if not self._kept_file:
            return
        draft = Draft(parse("", file=self._kept_file))
        for section in config.good:
            name = MAIN_NAME if section.type == MAIN_TYPE else section.name
            draft.set_section(name, section.type, section.options)
        text = KEPT_HEAD + export(draft.document, CONFIG)
        if text != self._kept:
            replace_file(self._kept_file, text.encode("utf-8", "surrogateescape"))
            self._kept = text


def _unkept(error: Exception) -> str:
    return because("config_unkept", of_system(error) if isinstance(error, OSError) else error)
