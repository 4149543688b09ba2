"""Handler of `uplink_check`: the preflight for pages, loaded when it is asked for."""

from __future__ import annotations

from ..api import replies as r
from ..values import dataclass


@dataclass(frozen=True, slots=True)
class CheckMethod:
    """The preflight of the router whose configuration, keys and bus these are."""

    _config_dir: str
    _keys_dir: str
    _socket: str

    async def uplink_check(self) -> r.Checked:
        from .doctor import Places, examine, read_facts

        places = Places(self._config_dir, self._keys_dir, self._socket)
        findings = sorted(examine(await read_facts(places)), key=lambda f: f.level.value != "wrong")
        return r.Checked(
            findings=[r.FindingRow.of(each, level=each.level.value) for each in findings]
        )
