"""Handler of `uplink_check`: the preflight for pages, loaded when it is asked for."""

from __future__ import annotations

from dataclasses import field

from ..api import replies as r
from ..tasks import Once
from ..values import dataclass


@dataclass(eq=False, repr=False)
class CheckMethod:
    """The preflight of the router whose configuration, keys and bus these are."""

    _config_dir: str
    _keys_dir: str
    _socket: str
    _once: Once = field(default_factory=Once)

    async def uplink_check(self) -> r.Checked:
        """It starts a dozen programs: many who ask at once share one."""
        return await self._once.do(self._examine)

    async def _examine(self) -> r.Checked:
        from .doctor import Places, examine, read_facts

        places = Places(self._config_dir, self._keys_dir, self._socket)
        findings = sorted(examine(await read_facts(places)), key=lambda f: f.level.value != "wrong")
        return r.Checked(
            findings=[r.FindingRow.of(each, level=each.level.value) for each in findings]
        )
