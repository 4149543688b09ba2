"""The exchange with peers: carriers, trust, offering and leases, wired to one service.

Owns when the mesh is looked at and what follows from it: whose offers are asked for, which uplinks
may be used, which leases end. Every decision is made in the modules that this one brings together;
the methods about offering and trust are in peer_service.py.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from ..config.options import CONFIG, MAIN_NAME
from ..config.settings import Config
from ..errors import UplinkError
from ..failover.decision import dead_for_s
from ..failover.selection import cost_of, missing_uplink, terms_of
from ..model import DEVICE_GROUP, PROVIDER_DEVICE, Offer, Uplink
from ..provider.device import Provider
from ..provider.lease_server import LeaseServer
from ..provider.offer import OwnOffer
from ..system import process
from ..tasks import keep_running, tell_awhile
from ..uci import Draft
from ..uplinks.lease_client import LeaseClient
from ..uplinks.service import Service
from ..warnings import Warnings
from . import upstream_identity
from .advertiser import Advertiser
from .directory import MeshPeer, plain_address
from .http import Server
from .master_link import BusCall
from .offers import Source
from .peer_api import PATHS, PeerApi
from .peers import Peers
from .poller import MeshTransport
from .trust import rejected_pins

Table = dict[str, Any]
MESH_S = 10.0
EGRESS_S = 60.0
REPEAT_S = 300.0  # an offer that others carry is repeated long before it expires
GIVEN_UP_S = 600.0  # an uplink that was dead for so long is not ready, and another is made
KEEP_COSTS_S = 7200.0  # flash is written at most so often because a peer's cost changed
PASS_OVER_S = 300.0  # a peer that no uplink could be made to: others have their turn


class MeshAgent:
    """The exchange of one router. `keys_dir` is where its keys lie."""

    def __init__(self, service: Service, bus_call: BusCall | None, keys_dir: str) -> None:
        self.service = service
        self.problems = Warnings()
        self.peers = Peers(lambda: service.uplinks.config, bus_call)
        self.peers.identities.update(service.remembered.identities)
        folder = os.path.dirname(keys_dir.rstrip("/"))
        self.lease_server = LeaseServer(service, Provider(), folder)
        carrier = MeshTransport(self._on_identity, self._on_offer, 0)
        self.advertiser = Advertiser(
            service.validator, carrier, lambda: self.own_offer.message(), folder
        )
        self.own_offer = OwnOffer(
            self.lease_server, self.advertiser.publish, self.advertiser.numbering
        )
        self.lease_client = LeaseClient(
            service,
            lambda peer_id: self.peers.directory.named(peer_id),
            lambda: self.peers.mesh.peers,
        )
        self.peer_api = PeerApi(
            self.peers,
            self.lease_server,
            service.validator,
            lambda: (self.advertiser.own, self.own_offer.reason()),
            lambda peer: carrier.ask_soon(peer.key),
        )
        self.server = Server(
            self.peer_api.answer, PATHS, self.problems, refused=service.validator.count
        )
        self._has_identity = False
        self._identifying = asyncio.Lock()
        self._seed_file = os.path.join(keys_dir, "identity.seed")
        self._devices: set[str] = set()
        self._offer_of: dict[str, Offer] = {}
        self._trusted_before: frozenset[str] | None = None
        self._costs_due_s = 0.0
        self._passed_over: dict[str, float] = {}
        self._followed: tuple[Config, str] | None = None
        self._judging = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._join_service()

    def _join_service(self) -> None:
        service = self.service
        service.validator.identity_of = self.peers.identity_of
        service.validator.distrust_reason = self._distrust
        service.validator.own_keys = self._own_keys
        service.validator.own_addresses = lambda: self.peers.mesh.addresses
        service.distrust_reason = self.distrust_reason
        service.offer_distrust_reason = self.offer_distrust_reason
        service.ask_lease = self._ask_lease
        service.on_removed = self.lease_client.release
        service.on_read = self._on_read
        service.on_config = self.follow_config
        service.on_update = lambda: self._watch_offer(self.own_offer.watch)
        service.more_status = self._status
        service.more_state = lambda: {"identities": dict(self.peers.identities)}

    def _on_read(self) -> None:
        """The first configuration: nothing is decided before trust and terms are known again."""
        self.peers.rebuild()
        self._judge_terms()

    # --- life

    async def start(self) -> None:
        """Read the mesh and begin to serve it; nothing that fails here stops the service."""
        self.lease_server.start()
        try:
            await self._follow_mesh()
            await self.follow_config()
            await self.trust_changed()
        except UplinkError as error:  # the task that looks around tries again
            self.problems["start"] = str(error)
        for name, begin in (
            ("the mesh", self._look_around),
            ("asking peers", self.advertiser.mesh.run),
            ("leases", self.lease_client.run),
            ("consumers", self.lease_server.run),
            ("the offer", self._tend_offer),
        ):
            task = asyncio.get_running_loop().create_task(keep_running(name, begin, self.problems))
            self._tasks.add(task)

    async def stop(self) -> None:
        """Withdraw what is offered and stop; tunnels and consumers stay."""
        self._watch_offer(self.own_offer.shut_down)
        await self.advertiser.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lease_client.stop()
        await self.lease_server.stop()
        await self.server.close()

    # --- following

    async def follow_config(self) -> None:
        """Take a changed configuration: who is trusted, what is offered, how offers travel."""
        config = self.service.uplinks.config
        self._followed, self._devices = (config, self.peers.node_id), set()
        if self.peers.rebuild():
            await self.trust_changed()
        await self.service.follow_watch()
        await self._identify()
        await self.advertiser.follow(config.peering, config.mqtt, self.peers.node_id)
        await self.lease_server.follow()
        self.own_offer.watch()
        self._listen()

    async def _identify(self) -> None:
        """Sign from now on, where anybody may hear it; the library for it weighs a megabyte."""
        config = self.service.uplinks.config
        is_heard = self.peers.directory.peers or config.mqtt.enabled or config.provider.enabled
        async with self._identifying:
            if is_heard and not self._has_identity:
                await self.advertiser.load_identity(self._seed_file)
                self.peer_api.identity_key = self.advertiser.identity_key
                self._has_identity = True

    async def _look_around(self) -> None:
        last_s = float("-inf")
        while True:
            await asyncio.sleep(MESH_S)
            is_due = time.monotonic() - last_s > EGRESS_S
            # Where there is no mesh, one comes with a new device.
            devices = {link.name for link in self.service.monitor.network.state.links.values()}
            is_known = devices == self._devices and "mesh" not in self.peers.problems
            if self.peers.mesh.own or is_due or not is_known:
                await self._follow_mesh()
                self._devices = devices
            # A call that came first may have read what its owner changed.
            if self._followed != (self.service.uplinks.config, self.peers.node_id):
                await self.follow_config()
            if is_due:
                last_s = time.monotonic()
                await self._follow_egress()
            self._judge_terms()
            await self._keep_costs()
            await self._drop_untrusted()
            await self._keep_ready()
            self.problems.pop("start", None)

    async def _follow_egress(self) -> None:
        """Tell peers what our way out is called; a dead line keeps the name that it had."""
        found = await upstream_identity.read_tokens(self.service.monitor.network.state)
        if found and found != self.own_offer.egress:
            self.own_offer.egress = found
            self.own_offer.announce()

    async def _follow_mesh(self) -> None:
        changed = await self.peers.reread()
        node_id = self.peers.node_id
        self.lease_server.node_id = self.lease_client.node_id = self.service.validator.own_id = (
            node_id
        )
        devices = tuple(sorted(self.peers.mesh.own))
        if devices != self.lease_server.mesh_devices:
            self.lease_server.mesh_devices = devices
            await self.lease_server.follow()
        await self._identify()
        self.advertiser.mesh.follow(self.peers.directory.peers)
        await self._group_mesh()
        self._listen()
        if changed:
            await self.trust_changed()

    async def _group_mesh(self) -> None:
        """Mesh devices are no lines and no way for a tunnel's outer packets."""
        network = self.service.monitor.network.state
        lines = set(network.wan_devices())
        for link in network.links.values():
            if link.name in self.peers.mesh.own and link.group == 0 and link.name not in lines:
                words = ["ip", "link", "set", "dev", link.name, "group", str(DEVICE_GROUP)]
                await process.run(words, check=False)

    def _listen(self) -> None:
        config = self.service.uplinks.config
        port = config.peering.mesh_port
        wanted = [
            (plain_address(text), port, device)
            for device, texts in self.peers.mesh.own.items()
            for text in texts
            if plain_address(text)
        ]
        if self.lease_server.pool is not None:
            gateways = self.lease_server.pool.gateways
            wanted += [(plain_address(text), port, PROVIDER_DEVICE) for text in gateways]
        self.server.listen(wanted if config.settings.enabled else [])

    async def trust_changed(self) -> None:
        """What hangs on trust follows at once: traffic, leases, offers, uplinks of our own making.

        A pin that master-link rejects goes for good, since master-link itself forgets.
        """
        async with self._judging:
            await self._forget_rejected()
            await self.service.follow_watch()
            self._tell_trust()
            await self.lease_server.revoke(lambda peer_id: self.peers.standing(peer_id).reason)
        await self._drop_untrusted()

    async def _forget_rejected(self) -> None:
        rejected = [pin.name for pin in rejected_pins(self.peers.ground)]
        if rejected:

            def forget(draft: Draft) -> None:
                for name in rejected:
                    draft.remove_section(name)

            await self.edit(forget)
            self.peers.rebuild()

    def _tell_trust(self) -> None:
        """Whose standing is another than before; what a start finds is no news."""
        standing, ids = self.peers.standing, self.peers.directory.peer_ids
        now = frozenset(peer_id for peer_id in ids if not standing(peer_id).reason)
        before = now if self._trusted_before is None else self._trusted_before
        self._trusted_before = now
        for peer_id in sorted(before ^ now):
            reason = standing(peer_id).reason
            if reason:
                self.service.offers.forget(peer_id)
            kind = "untrusted" if reason else "trusted"
            self.service.journal.peer("trust", kind, peer_id, reason)

    async def _drop_untrusted(self) -> None:
        """Remove uplinks that were made by themselves to peers that are not trusted any more."""
        async with self._judging:
            for uplink in self.service.uplinks.config.uplinks:
                if uplink.auto and self.distrust_reason(uplink.peer_id):
                    why = "its peer is not trusted any more"
                    await self.service.remove_uplink(uplink.peer_id, why, asked=False)

    async def edit(self, change: Callable[[Draft], None]) -> None:
        """Change our own file under the lock of changes, and take what it says now."""
        async with self.service.lock:
            await self.service.uplinks.read_strictly()
            await self.service.platform.edit(CONFIG, change)
            await self.service.uplinks.read_strictly()

    def _judge_terms(self) -> None:
        """What each uplink costs and gives, and whether it leaves by the line it should replace.

        The last offer counts, whatever its age: in an outage there may be no newer one.
        """
        peek, uplinks = self.service.offers.peek, self.service.uplinks.config.uplinks
        found = ((u, self._last_offer(u, peek(u.peer_id))) for u in uplinks)
        known = [(uplink, offer) for uplink, offer in found if offer is not None]
        self._offer_of = {offer.peer_id: offer for _, offer in known}
        limit_mbps = self.lease_client.limit_mbps
        terms = {u.interface: terms_of(offer, limit_mbps(u)) for u, offer in known}
        same_wan = frozenset(
            uplink.interface
            for uplink, offer in known
            if upstream_identity.shared(offer.egress, self.own_offer.egress)
        )
        self.service.monitor.learn_terms(terms, same_wan)

    async def _keep_costs(self) -> None:
        """Keep what peers cost with their uplinks: a start must not take all for free."""
        service, now_s = self.service, time.monotonic()
        uplinks = service.uplinks.config.uplinks
        costs = {
            uplink.interface: cost_of(offer)
            for uplink in uplinks
            if (offer := self._offer_of.get(uplink.peer_id)) is not None
        }
        changed = any(costs.get(uplink.interface, uplink.cost) != uplink.cost for uplink in uplinks)
        if not changed or now_s < self._costs_due_s:
            return
        self._costs_due_s = now_s + KEEP_COSTS_S
        async with service.lock:
            await service.uplinks.read_strictly()
            await service.uplinks.keep_costs(costs)

    def _last_offer(self, uplink: Uplink, newest: Offer | None) -> Offer | None:
        """The last offer that its own peer made: a stranger's by the same id does not count."""
        if newest is not None and not self.offer_distrust_reason(newest):
            return newest
        return self._offer_of.get(uplink.peer_id)

    async def _keep_ready(self) -> None:
        """Have `min_uplinks` uplinks, as far as trusted peers on the mesh offer them."""
        config = self.service.uplinks.config
        if not (config.settings.enabled and config.settings.auto_failover):
            return
        now_s = time.monotonic()
        self._passed_over = {i: s for i, s in self._passed_over.items() if s > now_s}
        able = [
            offer
            for offer in self.service.offers.fresh(now_s)
            if offer.peer_id not in self._passed_over
            and offer.peer_id not in config.settings.declined
            and self.peers.directory.named(offer.peer_id) is not None
            and not self.offer_distrust_reason(offer)
            and not upstream_identity.shared(offer.egress, self.own_offer.egress)
        ]
        monitor = self.service.monitor
        sound = [
            uplink
            for uplink in config.uplinks
            if uplink.enabled
            and not monitor.shares_underlay(uplink.interface)
            and dead_for_s(monitor, uplink.interface, now_s) < GIVEN_UP_S
        ]
        wanted, by_latency = config.settings.min_uplinks, config.settings.prefer_latency
        choice = missing_uplink(wanted, config.uplinks, len(sound), able, prefer_latency=by_latency)
        if not self._passed_over:
            self.problems.pop("min_uplinks", None)
        if choice is not None:
            try:
                await self.service.add_uplink(choice.peer_id, auto=True)
            except UplinkError as error:
                self._passed_over[choice.peer_id] = time.monotonic() + PASS_OVER_S
                told = f"no uplink to {choice.peer_id} could be made: {error}"
                self.problems["min_uplinks"] = told

    def _watch_offer(self, look: Callable[[], None]) -> None:
        """Look at the offer; whatever is wrong with it, its caller goes on."""
        try:
            look()
        except Exception as error:
            tell_awhile("offer", "the offer", error, self.problems)

    async def _tend_offer(self) -> None:
        """Look after the hold time, and repeat what others carry."""
        told_s = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            self.own_offer.watch()
            if time.monotonic() - told_s > REPEAT_S:
                told_s = time.monotonic()
                self.own_offer.announce()

    # --- hearing

    def _on_identity(self, peer: MeshPeer, table: Table) -> None:
        try:
            if self.peers.heard(peer, table):
                self.service.journal.refreshed()
        except UplinkError as error:
            self.service.validator.count(error.code)

    def _on_offer(self, peer: MeshPeer, table: Table | None) -> None:
        name = self.peers.directory.name_of(peer.key)
        if not name:
            return
        self.lease_client.heard(name)
        if table is None:
            known = self.service.offers.peek(name)
            if known is not None and known.carrier == "bus" and self._distrust(name, "mesh"):
                return
            if self.service.offers.withdraw(name, source=Source.DIRECT):
                self.service.journal.offer("withdrawn", name, "the peer has no offer")
            return
        try:
            self.service.validator.take(table, Source.DIRECT, "mesh", name)
        except UplinkError:
            return  # counted there

    async def _ask_lease(self, wanted: Uplink) -> Uplink | None:
        """Ask for a place, but nobody whose mesh key the owner has not tied to the id."""
        if self.peers.standing(wanted.peer_id).reason:
            return None
        return await self.lease_client.ask(wanted)

    # --- telling

    def distrust_reason(self, peer_id: str) -> str:
        """Why a peer is not trusted; '' if it is.

        What its owner set up by hand needs no mesh, and nobody on the mesh who goes by the same id
        has a say in it. Without an uplink its offer decides.
        """
        uplink = self.service.uplinks.find(peer_id)
        if uplink is not None:
            return self._reason_against(peer_id, local=not (uplink.leased or uplink.auto))
        offer = self.service.offers.peek(peer_id)
        return self._reason_against(peer_id, local=offer is None or offer.carrier == "bus")

    def offer_distrust_reason(self, offer: Offer) -> str:
        """Why the peer that an offer came from is not trusted, whatever its owner set up."""
        return self._distrust(offer.peer_id, offer.carrier)

    def _distrust(self, peer_id: str, carrier: str) -> str:
        return self._reason_against(peer_id, local=carrier == "bus")

    def _reason_against(self, peer_id: str, *, local: bool) -> str:
        """`local` is for what this router's own programs and its owner say."""
        found = self.peers.standing(peer_id, local=local)
        if found.reason and local and self.peers.directory.named(peer_id) is None:
            command = f"uci add_list {CONFIG}.{MAIN_NAME}.trusted_peer={peer_id}"
            return (
                f"{peer_id} is not trusted: if you know whose it is, trust it with "
                f"`{command}; uci commit {CONFIG}`"
            )
        return found.reason

    def _own_keys(self) -> set[str]:
        own = {uplink.own_public_key for uplink in self.service.uplinks.config.uplinks}
        return (own | {self.lease_server.public_key}) - {""}

    def _status(self) -> Table:
        problems = [
            *self.problems.values(),
            *self.peers.problems.values(),
            *self.lease_server.problems.values(),
            *self.advertiser.problems.values(),
            *self.lease_client.problems.values(),
        ]
        keys = ("peer_id", "address", "handshake_age_s", "rx_bytes", "tx_bytes", "month_bytes")
        rows = [{key: row[key] for key in keys} for row in self.lease_server.consumer_rows()]
        offering = int(self.lease_server.settings.enabled)
        return {"offering": offering, "consumers": rows, "problems": problems}
