"""The MQTT password: from a file that only root could make, for the broker that it once opened.

Who may write the configuration, as a LuCI login can be allowed to, may not read root's files nor
send them anywhere. So the file must lie below the service's own folder and not among its keys, be
root's and nobody else's to read. Beside it is kept which broker took the password first: it is sent
to no other host and port, nor without the encryption that it was first sent with.
"""

from __future__ import annotations

import json
import os

from ...config.options import MqttSettings
from ...errors import ConfigError
from ...reasons import because
from ...system.files import UnusableFile, read_bytes, read_table, replace_file
from ...text import printable

FOLDER = "/etc/wireguard-uplink"
KEYS = "keys"
MOST_BYTES = 4096


class Password:
    """The password of one broker's settings; `folder` is where its file may lie."""

    def __init__(self, settings: MqttSettings, folder: str = FOLDER) -> None:
        self._file = settings.password_file
        self._folder = os.path.realpath(folder)
        self._broker = {"host": settings.host, "port": settings.port, "tls": settings.tls}

    def read(self) -> bytes:
        """The file's first line. Raises ConfigError, with what to do, where it must not be sent."""
        path, shown = os.path.realpath(self._file), printable(self._file)
        inside = os.path.relpath(path, self._folder).split(os.sep)
        if inside[0] in (os.pardir, os.curdir, KEYS):
            raise ConfigError(
                because("password_elsewhere", shown, self._folder, f"{KEYS}/", self._folder)
            )
        try:
            data = read_bytes(path, MOST_BYTES, private=True)
            known = read_table(self._note)
        except UnusableFile as error:
            raise ConfigError(because("option_unusable", "password_file", error)) from error
        if not data:
            raise ConfigError(
                because("option_unusable", "password_file", because("empty_file", shown))
            )
        if known is not None and not self._fits(known):
            host, port = (printable(str(known.get(name))) for name in ("host", "port"))
            raise ConfigError(because("password_of_other", host, port, self._note))
        return data.split(b"\n")[0].rstrip(b"\r")

    def opened(self) -> None:
        """The broker took it: from now on it is for this one only. Raises OSError."""
        try:
            known = read_table(self._note)
        except UnusableFile:
            known = None
        if known is None:
            replace_file(self._note, json.dumps(self._broker).encode() + b"\n")

    @property
    def _note(self) -> str:
        return f"{os.path.realpath(self._file)}.broker"

    def _fits(self, known: dict[str, object]) -> bool:
        is_same = all(known.get(name) == self._broker[name] for name in ("host", "port"))
        return is_same and bool(self._broker["tls"] or not known.get("tls"))
