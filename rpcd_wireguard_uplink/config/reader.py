"""One section of a configuration, its options read by type.

Owns the sentences for values that are of the wrong kind, and knows which options it was asked for.
Does not know which options and sections there are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from ..errors import ConfigError, InvalidArgument
from ..model import is_key
from ..text import printable
from ..uci import Section

_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")


class Reader:
    """Reads one section's options. Each method raises ConfigError where a value is not of its
    kind, and returns the default where there is none.
    """

    def __init__(self, config: str, section: Section) -> None:
        self.name = section.name
        self.where = f"{config}.{section.name}"
        self._options = section.options
        self._asked: set[str] = set()

    def bad(self, option: str, value: str, want: str) -> ConfigError:
        """The error for a value that is not what is wanted."""
        return ConfigError(f"{self.where}.{option} is '{printable(value[:40])}': it must be {want}")

    def text(self, option: str, default: str = "") -> str:
        """A single value; a list is refused, as libuci's lookup would not give any."""
        self._asked.add(option)
        value = self._options.get(option, default)
        if isinstance(value, tuple):
            raise self.bad(option, " ".join(value), "an option, not a list")
        return value

    def needed(self, option: str, value: str, meaning: str) -> str:
        """The option's value, which must be there."""
        if not value:
            raise ConfigError(f"{self.where}.{option} is missing: it {meaning}")
        return value

    def matching(self, option: str, pattern: re.Pattern[str], want: str, default: str = "") -> str:
        """A single value that matches the whole pattern, or none."""
        value = self.text(option, default)
        if value and not pattern.fullmatch(value):
            raise self.bad(option, value, want)
        return value

    def key(self, option: str, kind: str = "a WireGuard key") -> str:
        """A key of 32 bytes in base64, or ''; never quoted, for it might be the private one."""
        value = self.text(option)
        if value and not is_key(value):
            raise ConfigError(f"{self.where}.{option} is not {kind} (32 bytes in base64)")
        return value

    def flag(self, option: str, default: bool) -> bool:
        """A switch, in the words that OpenWrt's scripts take."""
        value = self.text(option, "1" if default else "0").lower()
        if value in ("1", "on", "true", "yes", "enabled"):
            return True
        if value in ("0", "off", "false", "no", "disabled"):
            return False
        raise self.bad(option, value, "1 or 0")

    def whole(self, option: str, default: int, low: int, high: int) -> int:
        """A whole number between these."""
        value = self.text(option, str(default))
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
        if not low <= number <= high:
            raise self.bad(option, value, f"a whole number from {low} to {high}")
        return number

    def decimal(self, option: str, default: float, high: int) -> float:
        """A number from 0 to this, with up to 6 decimal places."""
        value = self.text(option)
        if not value:
            return default
        if not _DECIMAL.fullmatch(value) or float(value) > high:
            raise self.bad(option, value, f"a number from 0 to {high}")
        return float(value)

    def choice(self, option: str, default: str, allowed: Iterable[str]) -> str:
        """One of these words."""
        value = self.text(option, default)
        if value not in allowed:
            raise self.bad(option, value, "one of " + ", ".join(allowed))
        return value

    def items(self, option: str) -> tuple[str, ...]:
        """The values of a list; those of a single option are one."""
        self._asked.add(option)
        value = self._options.get(option, ())
        return (value,) if isinstance(value, str) else value

    def words(self, option: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The values of a list, or the words of a single option."""
        values = self.items(option)
        if isinstance(self._options.get(option), str):
            return tuple(values[0].split())
        return values or default

    def addresses(self, option: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of addresses, as they were written."""
        values = self.words(option, default)
        for value in values:
            try:
                ipaddress.ip_address(value)
            except ValueError as error:
                raise self.bad(option, value, "an IPv4 or IPv6 address") from error
        return values

    def checked(self, option: str, value: str, check: Callable[[str], str]) -> str:
        """What `check` makes of a value; its InvalidArgument becomes a ConfigError."""
        try:
            return check(value)
        except InvalidArgument as error:
            shown = printable(value[:40])
            raise ConfigError(f"{self.where}.{option} is '{shown}': {error}") from error

    def unknown(self) -> list[str]:
        """A warning for each option that nobody asked for."""
        return [
            f"{self.where}.{option} is not an option of this service"
            for option in self._options
            if option not in self._asked
        ]


def refuse_repeated(named: Iterable[tuple[str, str]], what: str) -> None:
    """Raise ConfigError where two places, given with their values, have the same one ('' never
    counts). The value is not told, since it may be a key.
    """
    seen: dict[str, str] = {}
    for where, value in named:
        if value and value in seen:
            raise ConfigError(f"{where} and {seen[value]} have the same {what}: remove one")
        seen[value] = where
