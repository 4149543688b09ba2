"""The running service: its parts, built by constructor and joined by events; start and stop.

The only place that subscribes to events, so that this file shows what follows from what. Each part
is given what it asks questions of; nothing is assigned to it later.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import Any

from . import events as e
from .api.bus import BusService
from .api.explain import ExplainMethods
from .api.provider import ProviderMethods, TrustMethods
from .api.secubox import OlderMethods, import_once
from .api.series import SeriesMethods
from .api.status import StatusMethods
from .api.uplinks import UplinkMethods
from .carrying.watch import CarryingWatch, in_use
from .config.store import ConfigChanged, ConfigStore
from .errors import NotSupported
from .failover.machine import Moved
from .failover.monitor import Monitor
from .history.changes import History
from .history.series import Series
from .mesh.advertiser import Advertiser, BrokerTransport
from .mesh.agent import MeshAgent
from .mesh.offer_validation import OfferValidator
from .mesh.offers import Numbering, OfferBook
from .mesh.peer_api import PeerApi
from .mesh.registry.peers import Peers
from .mesh.upstream_identity import Upstream
from .platform import inbound
from .platform.linux import Platform
from .platform.network_reader import NetworkReader
from .provider.lease_api import LeaseApi
from .provider.lease_server import LeaseServer
from .provider.offer import OfferAnnounced, OwnOffer
from .provider.site import Site
from .provider.unkept_leases import UnkeptLeases
from .steering.controller import PlanApplied
from .steering.coordinator import SteeringCoordinator
from .storage.state_file import StateFile, now_text, read_state, run_dir_of, write_state
from .storage.usage_file import UsageFile
from .system.files import UnusableFile, read_table
from .system.nft import OthersChanged, TableDeleted
from .tasks import TaskSet, rest
from .ubus.client import Client
from .uplinks.adding import Adding
from .uplinks.automatic import AutomaticUplinks
from .uplinks.lease_client import LeaseClient
from .uplinks.lifecycle import Uplinks, has_made
from .uplinks.underlays import Underlays
from .uplinks.wans import Wans
from .uplinks.watch import WatchList
from .warnings import Warnings

log = logging.getLogger("wireguard-uplink")

NAMES_S = 2.0
UPKEEP_S = 30.0
MOST_SERIES_BYTES = 1 << 20  # of 64 paths they are half of it


def make_platform(
    name: str, config_dir: str, keys_dir: str, bus: Client, warnings: Warnings
) -> Platform:
    """The platform of that name; `auto` finds out. netifd is reached over the bus."""
    is_openwrt = os.path.exists("/sbin/netifd")
    if name == "openwrt" or (name == "auto" and is_openwrt):
        from .platform.openwrt import OpenWrt

        return OpenWrt(config_dir, keys_dir, bus, warnings)
    return Platform(config_dir, keys_dir, warnings)


class Daemon:
    def __init__(
        self,
        platform: Platform,
        bus: BusService,
        *,
        keys_dir: str,
        state_file: str,
        warnings: Warnings,
        tasks: TaskSet,
        events: e.Events,
    ) -> None:
        folder = os.path.dirname(keys_dir.rstrip("/"))
        self.platform, self.bus = platform, bus
        self.warnings, self.tasks, self.events = warnings, tasks, events
        self.remembered = read_state(state_file)
        self.store = ConfigStore(
            platform,
            lambda: has_made(platform),
            events,
            warnings,
            os.path.join(folder, "last-good"),
        )
        self.history = History(events, self.store)
        self.usage = UsageFile(os.path.join(folder, "uplink-usage.json"), warnings)

        # Who is on the mesh, and what the router looks like.
        self.offers = OfferBook()
        self.peers = Peers(
            self.store,
            self.offers,
            warnings,
            platform.kernel,
            bus.call,
            identities={**self.remembered.identities},
        )
        self.wans = Wans(platform, self.store, warnings)
        self.network = NetworkReader(platform)
        self.steering = SteeringCoordinator(self.network, run_dir_of(state_file), warnings, events)
        self.monitor = Monitor(
            platform,
            self.network,
            self.steering,
            self.wans.mwan3.who_refuses,
            self.usage.ledger,
            warnings,
            events,
        )
        self.carrying = CarryingWatch(
            platform.kernel, lambda: in_use(self.monitor), warnings, events
        )

        # Using others.
        self.upstream = Upstream(platform.kernel)
        self.watch = WatchList(
            platform,
            self.store,
            self.wans,
            self.monitor,
            self.peers.distrust_reason,
            warnings,
            events,
        )
        self.underlays = Underlays(platform, self.store, self.monitor, warnings)
        self.uplinks = Uplinks(platform, self.store, self.wans, self.watch, warnings, events)
        self.lease_client = LeaseClient(
            platform, self.store, self.uplinks, self.monitor, self.peers, warnings, tasks, events
        )
        self.adding = Adding(
            platform, self.store, self.uplinks, self.lease_client, self.offers, self.peers, events
        )
        self.automatic = AutomaticUplinks(
            self.store,
            self.uplinks,
            self.adding,
            self.lease_client,
            self.monitor,
            self.offers,
            self.peers,
            self.upstream,
            warnings,
        )

        # Serving others.
        self.lease_server = LeaseServer(
            Site(platform, self.store, self.network, self.peers, warnings),
            self.store,
            self.peers,
            UsageFile(os.path.join(folder, "usage.json"), warnings),
            UnkeptLeases(f"{run_dir_of(state_file)}/leases.json", warnings),
            warnings,
            tasks,
            events,
        )
        self.numbering = Numbering()
        self.own_offer = OwnOffer(
            self.store, self.lease_server, self.monitor, self.upstream, self.numbering, events
        )

        # Talking with the mesh.
        self.validator = OfferValidator(self.offers, self.peers, self._own_keys, events)
        self.agent = MeshAgent(
            self.store, self.peers, self.offers, self.validator, self.network, warnings, events
        )
        self.advertiser = Advertiser(
            self.store,
            self.peers,
            self.validator,
            self.agent.transport,
            self.numbering,
            self.own_offer.message,
            lambda *given: _open_broker(*given, folder),
            os.path.join(keys_dir, "identity.seed"),
            warnings,
            tasks,
        )
        self.peer_api = PeerApi(
            self.store, self.peers, self.validator, self.advertiser, self.agent.transport, warnings
        )
        LeaseApi(
            self.peer_api,
            self.peers,
            self.validator,
            self.advertiser,
            self.own_offer,
            self.lease_server,
        )

        # Answering on the bus.
        self.status = StatusMethods(
            platform,
            self.store,
            self.monitor,
            self.carrying,
            self.wans,
            self.offers,
            self.peers,
            self.lease_server,
            self.history,
            warnings,
        )
        self._series, self._series_file = Series(), f"{run_dir_of(state_file)}/series.json"
        self.series_methods = SeriesMethods(self.status, self._series)
        self.uplink_methods = UplinkMethods(
            platform,
            self.store,
            self.monitor,
            self.carrying,
            self.validator,
            self.uplinks,
            self.adding,
        )
        self.provider_methods = ProviderMethods(
            self.store, self.peers, self.validator, self.lease_server, self.own_offer
        )
        self.trust_methods = TrustMethods(self.store, self.offers, self.peers, self.agent, events)
        self.state_file = StateFile(state_file, self._state, warnings)
        self._subscribe()

    def _subscribe(self) -> None:
        """What follows from what, in this order."""
        on = self.events.subscribe

        on(e.ReloadAsked, lambda event: self.uplinks.reload())
        on(ConfigChanged, self.agent.follow_config)
        on(ConfigChanged, lambda event: self._follow_config(event))

        on(e.MeshChanged, lambda event: self.lease_server.follow_mesh())
        on(e.MeshChanged, lambda event: self.advertiser.identify())
        on(e.MeshChanged, lambda event: self.peer_api.listen())

        on(e.TrustChanged, lambda event: self.automatic.forget_rejected())
        on(e.TrustChanged, lambda event: self.watch.follow_trust())
        on(e.TrustChanged, lambda event: self.agent.report_trust())
        on(e.TrustChanged, lambda event: self.lease_server.revoke())
        on(e.TrustChanged, lambda event: self.automatic.drop_untrusted())

        on(PlanApplied, self.steering.note_applied)
        on(e.HotplugReported, lambda event: self.monitor.reread_soon())
        on(e.HotplugReported, lambda event: self.watch.follow_wans(afresh=True))
        on(e.HotplugReported, lambda event: self._follow_mwan3())
        on(TableDeleted, self._mend_filter)
        on(OthersChanged, lambda event: self.carrying.look_at_rules())
        on(e.PeerAnswered, self.lease_client.hasten)
        on(OfferAnnounced, lambda event: self.advertiser.publish(event.message))
        on(e.PathsChanged, lambda event: self.underlays.notice())
        on(e.PathsChanged, lambda event: self._notice_paths())
        on(e.PathsChanged, lambda event: self.own_offer.watch())

        on(Moved, self.history.record_move)
        on(e.UplinkChanged, self.history.record_uplink)
        on(e.CarryingChanged, self.history.record_carrying)
        on(e.DoubtEnded, self.history.record_doubt)
        on(e.PeerNews, self.history.record_peer)
        on(e.Recorded, lambda event: self._send(event.name, event.entry.as_table()))
        on(e.OfferReceived, lambda event: self._send_offer("offer", event))
        on(e.OfferWithdrawn, lambda event: self._send_offer("withdrawn", event))

        on(e.PathsChanged, lambda event: self.bus.forget_replies())
        on(e.NumbersChanged, lambda event: self.bus.forget_replies())
        for kind in (e.StatusChanged, e.Recorded):
            on(kind, lambda event: self.bus.forget_replies())
            on(kind, lambda event: self.state_file.write())

    # --- life

    async def start(self) -> None:
        """Begin the work. Nothing is decided before trust and terms are known again."""
        await self.platform.sweep()
        self.history.restore(self.remembered.history)
        with suppress(UnusableFile):  # numbers of the past: without them all goes on
            self._series.restore(read_table(self._series_file, MOST_SERIES_BYTES) or {})
        remembered = self.remembered
        self.offers.restore(remembered.offers, remembered.sequences, time.monotonic())
        await self.store.reload()
        for sentence in await import_once(self.platform, self.store):
            log.warning("%s", sentence)
        self.peers.rebuild()
        self.automatic.judge_terms()
        await self.uplinks.start()
        await self.underlays.follow()
        self.state_file.write()
        await self.agent.start()
        supervise = self.tasks.supervise
        supervise("the mesh", self.agent.run)
        supervise("asking peers", self.agent.transport.run)
        supervise("leases", self.lease_client.run)
        supervise("consumers", self.lease_server.run)
        supervise("the offer", self.own_offer.run)
        supervise("automatic uplinks", self.automatic.run)
        supervise("watching for answers", self.carrying.follow)
        supervise("following the configuration", self.uplinks.follow_files)
        supervise("sampling paths", self.series_methods.follow)
        supervise("following names", self._follow_names)

    def start_extras(self, hooks_dir: str) -> tuple[object, ...]:
        """Begin what is optional; the parts that answer `uplink_drill` and `uplink_notify`."""
        from .extras.captive import CaptiveWatch
        from .extras.drill import Drills
        from .extras.hooks import Hooks, Notice

        hooks = Hooks(hooks_dir, self.warnings, lambda: self.peers.node_id)
        self.events.subscribe(
            e.Recorded, lambda event: hooks.add(Notice(event.name, self.peers.node_id, event.entry))
        )
        portals = CaptiveWatch(self.monitor, lambda: self.store.current.settings.captive_check)
        self.tasks.supervise("running hooks", hooks.run)
        self.tasks.supervise("looking for captive portals", portals.follow)
        drills = Drills(
            self.store,
            self.monitor,
            self.steering,
            self.uplinks,
            self.offers,
            self.peers,
            self.events,
        )
        return drills, hooks

    @property
    def methods(self) -> tuple[object, ...]:
        older = OlderMethods(
            self.store, self.monitor, self.offers, self.uplink_methods, self.provider_methods
        )
        explain = ExplainMethods(self.store, self.monitor, self.carrying, self.offers, self.peers)
        return (
            *(older, explain, self.status, self.uplink_methods, self.series_methods),
            *(self.provider_methods, self.trust_methods),
        )

    async def stop(self) -> None:
        """Withdraw what is offered and end; tunnels and consumers stay, and a diversion ends unless
        a new run takes it over.
        """
        try:
            self.own_offer.shut_down()
        except Exception as error:  # whatever is wrong with the offer, the rest must end well
            self.tasks.report("withdrawing the offer", error)
        await self.advertiser.stop()
        await self.tasks.close()
        await self.peer_api.close()
        await self.lease_server.stop()
        await self.usage.save()
        await self.bus.close()
        await self.monitor.stop()
        self.state_file.write()
        with suppress(OSError):
            write_state(self._series_file, self._series.as_table())

    # --- following

    async def _follow_names(self) -> None:
        """Names and others' programs say nothing when they change: look now and then."""
        while True:
            await self._follow_mwan3()
            for _ in range(round(UPKEEP_S / NAMES_S)):
                await rest(NAMES_S)
                await self.watch.follow_endpoints()
                await self.underlays.follow()
                await self.watch.follow_wans()
                if "state" in self.warnings:  # what failed is tried again soon
                    self.state_file.write()
                if "keys" in self.warnings:
                    await self.uplinks.keep_keys()
            await self.uplinks.guard_tunnels()
            await self.uplinks.keep_keys()
            await self.usage.save_if_due()

    async def _follow_mwan3(self) -> None:
        if await self.wans.follow_mwan3():
            self.events.publish(e.NumbersChanged())

    async def _follow_config(self, event: ConfigChanged) -> None:
        """Have mesh and provider follow; uplinks and leases are followed by whoever edits them."""
        if event.touches("settings", "provider", "peering", "pins", "mqtt"):
            await self.watch.follow_trust()
            await self.advertiser.follow()
            await self.lease_server.follow()
            self.own_offer.watch()
            self.peer_api.listen()

    async def _mend_filter(self, event: TableDeleted) -> None:
        """Somebody may have deleted the filter of what comes in by tunnels: it comes back."""
        if event.name in ("", inbound.TABLE):
            await self.uplinks.guard_tunnels()

    def _notice_paths(self) -> None:
        monitor = self.monitor
        used = [(state.phase, state.active) for state in monitor.states.values()]
        self.carrying.notice(used, (id(monitor.watch), len(monitor.network.state.links)))

    # --- reading

    def _own_keys(self) -> set[str]:
        own = {uplink.own_public_key for uplink in self.store.current.uplinks}
        return (own | {self.lease_server.site.public_key}) - {""}

    def _send(self, name: str, table: dict[str, Any]) -> None:
        self.bus.send_event(f"wireguard-uplink.{name}", table)

    def _send_offer(self, kind: str, event: e.OfferReceived | e.OfferWithdrawn) -> None:
        table = {"peer_id": event.peer_id, "kind": kind, "cause": event.cause}
        self._send("offer", {**table, "at": now_text()})
        self.bus.forget_replies()
        self.state_file.write_soon()

    def _state(self) -> dict[str, Any]:
        return {
            "offers": self.status.uplink_list().as_table()["offers"],
            **self.status.uplink_status().as_table(),
            "offer_book": self.offers.rows(time.monotonic()),
            "sequences": dict(self.offers.sequences),
            "identities": dict(self.peers.identities),
            "history": [entry.as_table() for entry in self.history.oldest_first()],
        }


def _open_broker(*given: Any) -> BrokerTransport:
    """Connect to an MQTT broker; the library is loaded where one is configured."""
    try:
        from .extras.mqtt.transport import MqttTransport
    except ImportError as error:  # a package of its own on OpenWrt
        raise NotSupported(
            "MQTT needs its own package: install rpcd-wireguard-uplink-mqtt"
        ) from error
    return MqttTransport(*given)
