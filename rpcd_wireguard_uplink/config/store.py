"""The configuration in force, for whoever asks what the owner wants."""

from __future__ import annotations

from dataclasses import dataclass

from ..events import Event
from .settings import Config


@dataclass(frozen=True, slots=True)
class ConfigChanged(Event):
    """The configuration was read again."""

    old: Config
    new: Config


class ConfigStore:
    """The last good configuration. Nobody keeps a part of it: `current` is replaced whole."""

    def __init__(self) -> None:
        self.current = Config()
        self.understood = False

    def take(self, config: Config) -> None:
        """Have this configuration in force from now on."""
        self.current, self.understood = config, True
