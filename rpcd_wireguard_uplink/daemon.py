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
from .errors import CommandFailed, NotSupported
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
from .reasons import because
from .steering.controller import PlanApplied
from .steering.coordinator import SteeringCoordinator
from .storage.state_file import Remembered, StateFile, now_text, read_state, run_dir_of, write_state
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
from .values import dataclass
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


@dataclass(frozen=True, slots=True)
class Known:
    """What most parts ask or tell. Files that last lie in `folder`, the others in `run_dir`."""

    platform: Platform
    store: ConfigStore
    offers: OfferBook
    peers: Peers
    upstream: Upstream
    numbering: Numbering
    warnings: Warnings
    tasks: TaskSet
    events: e.Events
    folder: str
    run_dir: str


class Daemon:
    """The parts of one service, each made of those before it."""

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
        self.platform, self.bus = platform, bus
        self.warnings, self.tasks, self.events = warnings, tasks, events
        self.remembered = read_state(state_file)
        known = know(platform, bus, keys_dir, state_file, self.remembered, warnings, tasks, events)
        self.store, self.offers, self.peers = known.store, known.offers, known.peers
        self.upstream, self.numbering = known.upstream, known.numbering
        self.history = History(events, self.store)
        self.usage = UsageFile(os.path.join(known.folder, "uplink-usage.json"), warnings)
        self.wans, self.steering, self.monitor, self.carrying = watch_paths(known, self.usage)
        self.watch, self.underlays, self.uplinks = keep_tunnels(known, self.wans, self.monitor)
        self.lease_client, self.adding, self.automatic = use_others(
            known, self.uplinks, self.monitor
        )
        self.lease_server, self.own_offer = serve_others(known, self.monitor)
        self.validator = OfferValidator(self.offers, self.peers, self._own_keys, events)
        self.agent, self.advertiser, self.peer_api = join_mesh(
            known, keys_dir, self.monitor, self.validator, self.lease_server, self.own_offer
        )
        self.status = StatusMethods(
            *(platform, self.store, self.monitor, self.carrying, self.wans, self.offers),
            *(self.peers, self.lease_server, self.history, warnings),
        )
        self._series, self._series_file = Series(), f"{known.run_dir}/series.json"
        self.series_methods = SeriesMethods(self.status, self._series)
        self.uplink_methods = UplinkMethods(
            *(platform, self.store, self.monitor, self.carrying, self.validator),
            *(self.uplinks, self.adding),
        )
        self.provider_methods = ProviderMethods(
            self.store, self.peers, self.validator, self.lease_server, self.own_offer
        )
        self.trust_methods = TrustMethods(self.store, self.offers, self.peers, self.agent, events)
        self.methods: tuple[object, ...] = (
            OlderMethods(
                *(self.store, self.monitor, self.offers),
                *(self.uplink_methods, self.provider_methods),
            ),
            ExplainMethods(self.store, self.monitor, self.carrying, self.offers, self.peers),
            *(self.status, self.uplink_methods, self.series_methods),
            *(self.provider_methods, self.trust_methods),
        )
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
        with suppress(CommandFailed):
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
            "offers": (row.as_table() for row in self.status.offer_rows()),
            **self.status.uplink_status().as_table(),
            "offer_book": self.offers.rows(time.monotonic()),
            "sequences": dict(self.offers.sequences),
            "identities": dict(self.peers.identities),
            "history": [entry.as_table() for entry in self.history.oldest_first()],
        }


# --- the parts


def know(
    platform: Platform,
    bus: BusService,
    keys_dir: str,
    state_file: str,
    remembered: Remembered,
    warnings: Warnings,
    tasks: TaskSet,
    events: e.Events,
) -> Known:
    """The configuration, who is on the mesh, and what is offered there."""
    folder = os.path.dirname(keys_dir.rstrip("/"))
    kept_file = os.path.join(folder, "last-good")
    store = ConfigStore(platform, lambda: has_made(platform), events, warnings, kept_file)
    offers, heard = OfferBook(), {**remembered.identities}
    peers = Peers(store, offers, warnings, platform.kernel, bus.call, identities=heard)
    return Known(
        *(platform, store, offers, peers, Upstream(platform.kernel), Numbering()),
        *(warnings, tasks, events, folder, run_dir_of(state_file)),
    )


def watch_paths(
    known: Known, usage: UsageFile
) -> tuple[Wans, SteeringCoordinator, Monitor, CarryingWatch]:
    """The router's WANs, what its paths are worth, where traffic goes and whether it arrives."""
    platform, warnings, events = known.platform, known.warnings, known.events
    wans, network = Wans(platform, known.store, warnings), NetworkReader(platform)
    steering = SteeringCoordinator(network, known.run_dir, warnings, events)
    refuses = wans.mwan3.who_refuses
    monitor = Monitor(platform, network, steering, refuses, usage.ledger, warnings, events)
    carrying = CarryingWatch(platform.kernel, lambda: in_use(monitor), warnings, events)
    return wans, steering, monitor, carrying


def keep_tunnels(
    known: Known, wans: Wans, monitor: Monitor
) -> tuple[WatchList, Underlays, Uplinks]:
    """The uplinks that are configured."""
    platform, store, warnings, events = known.platform, known.store, known.warnings, known.events
    distrust = known.peers.distrust_reason
    watch = WatchList(platform, store, wans, monitor, distrust, warnings, events)
    uplinks = Uplinks(platform, store, wans, watch, warnings, events)
    return watch, Underlays(platform, store, monitor, warnings), uplinks


def use_others(
    known: Known, uplinks: Uplinks, monitor: Monitor
) -> tuple[LeaseClient, Adding, AutomaticUplinks]:
    """Leases of peers, and the uplinks that are made of their offers."""
    platform, store, warnings, events = known.platform, known.store, known.warnings, known.events
    offers, peers = known.offers, known.peers
    client = LeaseClient(platform, store, uplinks, monitor, peers, warnings, known.tasks, events)
    adding = Adding(platform, store, uplinks, client, offers, peers, events)
    automatic = AutomaticUplinks(
        store, uplinks, adding, client, monitor, offers, peers, known.upstream, warnings
    )
    return client, adding, automatic


def serve_others(known: Known, monitor: Monitor) -> tuple[LeaseServer, OwnOffer]:
    """This router as a provider."""
    store, peers, warnings = known.store, known.peers, known.warnings
    site = Site(known.platform, store, monitor.network, peers, warnings)
    usage = UsageFile(os.path.join(known.folder, "usage.json"), warnings)
    unkept = UnkeptLeases(f"{known.run_dir}/leases.json", warnings)
    server = LeaseServer(site, store, peers, usage, unkept, warnings, known.tasks, known.events)
    offer = OwnOffer(store, server, monitor, known.upstream, known.numbering, known.events)
    return server, offer


def join_mesh(
    known: Known,
    keys_dir: str,
    monitor: Monitor,
    validator: OfferValidator,
    server: LeaseServer,
    offer: OwnOffer,
) -> tuple[MeshAgent, Advertiser, PeerApi]:
    """What this router says to the mesh and hears there."""
    store, peers, warnings = known.store, known.peers, known.warnings
    agent = MeshAgent(
        store, peers, known.offers, validator, monitor.network, warnings, known.events
    )
    advertiser = Advertiser(
        *(store, peers, validator, agent.transport, known.numbering, offer.message),
        lambda *given: _open_broker(*given, known.folder),
        *(os.path.join(keys_dir, "identity.seed"), warnings, known.tasks),
    )
    api = PeerApi(store, peers, validator, advertiser, agent.transport, warnings)
    LeaseApi(api, peers, validator, advertiser, offer, server)
    return agent, advertiser, api


def _open_broker(*given: Any) -> BrokerTransport:
    """Connect to an MQTT broker; the library is loaded where one is configured."""
    try:
        from .extras.mqtt.transport import MqttTransport
    except ImportError as error:  # a package of its own on OpenWrt
        raise NotSupported(because("mqtt_package")) from error
    return MqttTransport(*given)
