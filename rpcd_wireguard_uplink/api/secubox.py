"""SecuBox's older names: what its page and its configuration file say, in the service's own words.

Translates at the edge and decides nothing: `priority` there is lower for the preferred uplink, here
`weight` is higher, so one is 101 less the other. An uplink is named there by its interface or by
the provider's key, here by the peer's id. The file `wireguard_uplink` is read once, never written.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..config.options import UPLINK_TYPE
from ..config.settings import Config
from ..config.store import ConfigStore
from ..errors import InvalidArgument, NotFound, UplinkError
from ..failover.monitor import Monitor
from ..mesh.offers import OfferBook
from ..model import Uplink, interface_name, is_key
from ..platform.linux import Platform
from ..platform.tunnels import whole_number
from ..schema.endpoints import parse_endpoint
from ..schema.shapes import PEER_ID
from ..text import quoted
from ..uci import Section
from ..values import dataclass
from . import replies as r
from .provider import ProviderMethods
from .status import best_first, path_state
from .uplinks import UplinkMethods

OLDER_CONFIG = "wireguard_uplink"
_STATUS = {"up": "active", "down": "down"}
_CONNECTIVITY = {"up": "ok", "down": "failed"}


@dataclass(eq=False, repr=False)
class OlderMethods:
    """The handlers of the older names, in the words of the newer ones."""

    _store: ConfigStore
    _monitor: Monitor
    _offers: OfferBook
    _uplinks: UplinkMethods
    _provider: ProviderMethods

    def uplinks(self) -> r.OlderUplinks:
        uplinks = best_first(self._store.current.uplinks)
        return r.OlderUplinks(uplinks=[self._row(uplink) for uplink in uplinks])

    def _row(self, uplink: Uplink) -> r.OlderUplink:
        state = path_state(self._monitor, uplink.interface)
        return r.OlderUplink.of(
            uplink,
            node_id=uplink.peer_id,
            peer_pubkey=uplink.public_key,
            endpoint=str(uplink.endpoint),
            priority=101 - uplink.weight,
            status=_STATUS.get(state, "testing"),
            state="down" if state == "down" else "up",
            connectivity=_CONNECTIVITY.get(state, "unknown"),
        )

    async def add_uplink(
        self,
        peer_pubkey: str,
        endpoint: str | None = None,
        local_pubkey: str = "",
        priority: str | int | None = None,
        weight: str | int | None = None,
        node_id: str | None = None,
    ) -> r.OlderAdded:
        """Make an uplink; without a node id it is that of who has or offers the key."""
        del local_pubkey  # every tunnel has a key of its own
        config = self._store.current
        known = {uplink.public_key: uplink.peer_id for uplink in config.uplinks}
        offer = self._offers.with_key(peer_pubkey, time.monotonic())
        if offer is not None:
            known.setdefault(peer_pubkey, offer.peer_id)
            endpoint = endpoint or str(offer.endpoint)
        peer_id = node_id or known.get(peer_pubkey) or peer_id_of(peer_pubkey)
        if endpoint is None and config.uplink_to(peer_id) is None:
            raise InvalidArgument("endpoint is missing: give where the peer listens, host:port")
        done = await self._uplinks.uplink_add(
            peer_id, wanted_weight(priority, weight), endpoint, peer_pubkey
        )
        return r.OlderAdded.of(done)

    async def remove_uplink(self, interface: str) -> r.Done:
        done = await self._uplinks.uplink_remove(self._peer_of(interface))
        return r.Done.of(done)

    async def test_uplink(self, interface: str, target: str = "") -> r.OlderTested:
        tested = await self._uplinks.uplink_test(self._peer_of(interface), target)
        result = "OK" if tested.reachable else "FAILED"
        return r.OlderTested.of(tested, success=tested.reachable, result=result)

    async def set_uplink_priority(
        self, interface: str, priority: str | int | None = None, weight: str | int | None = None
    ) -> r.OlderDone:
        wanted = wanted_weight(priority, weight)
        if wanted is None:
            raise InvalidArgument("priority is missing: give a whole number from 1 to 100")
        done = await self._uplinks.uplink_set_priority(self._peer_of(interface), wanted)
        return r.OlderDone.of(done, interface=interface)

    async def set_uplink_failover(self, enabled: str | int | bool) -> r.Switched:
        return await self._uplinks.uplink_set_failover(enabled in ("1", 1))

    async def offer_uplink(
        self, bandwidth: str | int | None = None, latency: str | int | None = None
    ) -> r.Done:
        given = {"bandwidth_mbps": bandwidth, "latency_ms": latency}
        known: dict[str, Any] = {k: int(v) for k, v in given.items() if v is not None}
        done = await self._provider.uplink_offer(**known)
        return r.Done.of(done)

    async def withdraw_uplink(self) -> r.Done:
        return await self._provider.uplink_withdraw()

    def _peer_of(self, interface: str) -> str:
        for uplink in self._store.current.uplinks:
            if uplink.interface == interface:
                return uplink.peer_id
        raise NotFound(
            f"no uplink has the interface {quoted(interface)}: `wgctl uplink list` shows them",
            code="no_uplink",
        )


def wanted_weight(priority: str | int | None, weight: str | int | None) -> int | None:
    """The weight that is meant: a priority counts if there is one; None without either."""
    if priority is not None:
        return 101 - int(priority)
    return None if weight is None else int(weight)


def peer_id_of(public_key: str) -> str:
    """A peer's id where only its key is known: the same one every time."""
    return "key-" + hashlib.sha256(public_key.encode()).hexdigest()[:8]


async def import_once(platform: Platform, store: ConfigStore) -> list[str]:
    """Take the uplinks of SecuBox's file into ours; what was left out and why, as sentences.

    Marked in our file, so that an uplink that was removed later does not come back. Their peers
    count as trusted, since the owner chose them. Without such a file nothing is written.
    """
    left_out: list[str] = []
    try:
        theirs = (await platform.read(OLDER_CONFIG)).of_type(UPLINK_TYPE)
        if theirs and not store.current.settings.imported:
            await store.edit(lambda config: _with_theirs(config, theirs, left_out), tell=False)
    except UplinkError as error:
        return [f"{OLDER_CONFIG} was not taken over: {error}"]
    return left_out


def _with_theirs(config: Config, theirs: Iterable[Section], left_out: list[str]) -> Config:
    """The configuration with SecuBox's uplinks; `left_out` gets a sentence for each that is not."""
    taken = {*config.names}
    for section in theirs:
        try:
            uplink = parse_older(section, taken)
        except InvalidArgument as error:
            left_out.append(f"{OLDER_CONFIG}.{section.name} was not taken over: {error}")
            continue
        if config.uplink_to(uplink.peer_id) is None:
            taken.add(uplink.interface)
            trusted = config.settings.trusted_peers | {uplink.peer_id}
            config = config.with_uplink(uplink).with_settings(trusted_peers=trusted)
    return config.with_settings(imported=True)


def parse_older(section: Section, taken: set[str]) -> Uplink:
    """One uplink of SecuBox's file. Raises InvalidArgument for what can't be used."""

    def text(option: str) -> str:
        value = section.options.get(option, "")
        return value if isinstance(value, str) else ""

    key = text("peer_pubkey")
    if not is_key(key):
        raise InvalidArgument("peer_pubkey is not a WireGuard key")
    endpoint = parse_endpoint(text("endpoint"))
    peer_id = text("node_id")
    if not re.fullmatch(PEER_ID["pattern"], peer_id):
        peer_id = peer_id_of(key)
    uplink = Uplink(peer_id, interface_name(peer_id, taken), endpoint, key, ())
    priority = whole_number(text("priority"))
    if 1 <= priority <= 100:
        uplink = replace(uplink, weight=101 - priority)
    return replace(uplink, enabled=text("enabled") != "0")
