"""The platform of a router: uplinks as netifd's interfaces, over a double of netifd on a real bus.

The double is held to what netifd said (tests/data/netifd.json).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.daemon import make_platform
from rpcd_wireguard_uplink.errors import CommandFailed, ConfigError
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.model import Endpoint, Family, Link, PathKind, Uplink, mark_alias
from rpcd_wireguard_uplink.platform import netifd
from rpcd_wireguard_uplink.platform.openwrt import OpenWrt
from rpcd_wireguard_uplink.platform.provider_network import INIT
from rpcd_wireguard_uplink.platform.tunnels import NetworkStyle, plan_sections, wanted_sections
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.uci import Section, parse
from rpcd_wireguard_uplink.uplinks import adding, lifecycle
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import key_of
from tests.unit.netifd_double import Devices, Kernel, Netifd, shape
from tests.unit.router import daemon_of

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "netifd.json").read_text())
NETWORK = """\
config interface 'wan'   # the owner's own
	option proto 'pppoe'

config interface 'wgup_mine'
	option proto 'none'
"""
FIREWALL = """\
config zone
	option name 'lan'
	list network 'lan'

config zone
	option name 'outside'
	list network 'wan'
	list network 'wan6'
"""
V4, V6 = Family.IPV4, Family.IPV6
CONFIG = "config wireguard-uplink 'uplink'\n\tlist trusted_peer 'node-a'\n"
UPLINK = Uplink("node-a", "", Endpoint("192.0.2.7", 51821), key_of("a"), ("10.7.0.2/32",))


class Router:
    """A router: its files, its kernel, its netifd, and our uplinks on it."""

    def __init__(self, directory: Path, bus: Client, netifd_bus: Client) -> None:
        self.config = directory / "config"
        self.config.mkdir()
        self.keys = directory / "keys"
        texts = {"network": NETWORK, "firewall": FIREWALL, "wireguard-uplink": CONFIG}
        for name, text in texts.items():
            (self.config / name).write_text(text)
        self.kernel = Kernel()
        self.bus = bus
        self.netifd = Netifd(netifd_bus, self.kernel, str(self.config))
        self.restart()

    def restart(self) -> None:
        """Our service begins anew, with no memory."""
        self.platform = OpenWrt(str(self.config), str(self.keys), self.bus, Warnings())
        self.platform.kernel = self.kernel.routing
        self.daemon = daemon_of(self.platform, self.keys.parent)
        self.uplinks = self.daemon.uplinks
        self._watch = self.daemon.watch.follow
        self.daemon.watch.follow = self._ignore  # type: ignore[method-assign]

    async def begin(self) -> None:
        """Our service begins anew, and has done its first round."""
        self.restart()
        await self.read()
        await self.uplinks.apply()

    async def again(self, interface: str, *methods: str) -> None:
        """Somebody has netifd take an interface down, or bring it up."""
        for method in methods:
            await self.bus.call("network.interface", method, {"interface": interface})

    def files(self) -> tuple[str, str]:
        return self.text("network"), self.text("wireguard-uplink")

    async def _ignore(self) -> None:
        """Nothing is watched."""

    def watch(self) -> None:
        """Look at the kernel whenever netifd changes something there."""
        self.daemon.watch.follow = self._watch  # type: ignore[method-assign]
        self.netifd.seen = self.daemon.monitor.reread

    def text(self, config: str) -> str:
        return (self.config / config).read_text()

    def section(self, name: str) -> Section:
        found = parse(self.text("network"), file="network").get(name)
        assert found is not None
        return found

    async def read(self) -> None:
        """Read the configuration."""
        await self.daemon.wans.look_at_mwan3()
        await self.daemon.store.reload()

    async def create(self, uplink: Uplink = UPLINK) -> Uplink:
        await self.read()
        self.daemon.peers.rebuild()
        return await self.uplinks.create(uplink)

    def provider_files(self) -> tuple[str, str]:
        return self.text("network"), self.text("firewall")

    async def stand(self, port: int = 51821) -> None:
        """This router is a provider."""
        gateways = ("10.7.8.1/24", "fd12::1/64")
        await self.platform.install_provider(gateways, port, ("mesh0",), 7333)

    def is_marked(self, uplink: Uplink) -> bool:
        name = uplink.interface
        alias, group = self.kernel.alias.get(name), self.kernel.group.get(name)
        return (alias, group) == (mark_alias(uplink.peer_id), "51")


@pytest.fixture
async def router(tmp_path: Path, mocker: MockerFixture) -> AsyncIterator[Router]:
    path = str(tmp_path / "bus.sock")
    broker, ours, theirs = Broker(path), Client(path), Client(path)
    await broker.start()
    try:
        await ours.connect()
        await theirs.connect()
        made = Router(tmp_path, ours, theirs)
        await made.netifd.publish()
        mocker.patch.object(process, "run", made.kernel.run)
        yield made
    finally:
        await ours.close()
        await theirs.close()
        await broker.close()


def names(router: Router, table: dict[str, str], *, later_s: float = 0.0) -> None:
    """Have these names resolve to these addresses, as of so much later."""

    async def look_up(host: str, timeout_s: float) -> list[str]:
        return [table[host]] if host in table else []

    endpoints = router.platform.endpoints
    now_s = endpoints.clock() + later_s
    endpoints.look_up, endpoints.clock = look_up, lambda: now_s


async def test_a_tunnel_is_a_complete_section_that_netifd_brings_up(router: Router) -> None:
    uplink = await router.create()
    assert uplink.interface == "wgup_nodea"
    interface, peer = router.section("wgup_nodea"), router.section("wgup_nodea_peer")
    wanted = {"zone": "outside", "nohostroute": "1", "fwmark": "0x51"}
    assert wanted.items() <= interface.options.items()
    assert interface.options["private_key"] == await router.platform.read_key("wgup_nodea")
    assert "metric" not in interface.options, "no route, so no metric"
    assert (peer.type, peer.options["endpoint_host"]) == ("wireguard_wgup_nodea", "192.0.2.7")
    assert peer.options["route_allowed_ips"] == "0"
    assert "secubox_endpoint" not in peer.options
    assert router.is_marked(uplink)
    assert "pending" not in router.text("wireguard-uplink")
    assert router.text("network").startswith(NETWORK)
    assert router.text("firewall") == FIREWALL


async def test_what_stands_is_left_alone_by_a_new_start_too(router: Router) -> None:
    await router.create()
    before = (router.netifd.reloads, list(router.kernel.commands), router.text("network"))
    await router.uplinks.apply()
    await router.begin()
    guarded = [*before[1], "nft -f -", "nft -f -"]  # whatever is in place is replaced whole
    assert (router.netifd.reloads, router.kernel.commands) == (before[0], guarded)
    assert router.text("network") == before[2]
    assert router.daemon.warnings == {}


@pytest.mark.parametrize("handler", ["uc", "sh"])
@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": Endpoint("192.0.2.8", 5555)},
        {"public_key": key_of("another")},
        {"addresses": ("10.7.0.9/32", "fd00:7::9/128")},
    ],
    ids=["endpoint", "key", "address"],
)
async def test_a_change_is_in_force_whether_netifd_notices_it_or_not(
    router: Router, handler: str, change: dict[str, object]
) -> None:
    router.netifd.handler = handler
    uplink = await router.create()
    wanted = replace(uplink, **change)
    await router.uplinks.change(uplink, wanted)
    assert router.kernel.peers["wgup_nodea"] == wanted.public_key
    assert router.kernel.endpoints["wgup_nodea"] == str(wanted.endpoint)
    row = await router.bus.call("network.interface", "status", {"interface": "wgup_nodea"})
    shown = [f"{a['address']}/{a['mask']}" for a in row["ipv4-address"] + row["ipv6-address"]]
    assert shown == list(wanted.addresses)
    assert router.is_marked(wanted)
    made = router.kernel.made
    assert made == (1 if handler == "sh" and "addresses" not in change else 2)
    await router.uplinks.apply()
    assert (router.kernel.made, router.daemon.warnings) == (made, {})


async def test_a_tunnel_that_netifd_refuses_is_undone_with_its_reason(
    router: Router, mocker: MockerFixture
) -> None:
    mocker.patch.object(netifd, "UP_S", 0.05)
    router.netifd.stuck.add("wgup_nodea")
    with pytest.raises(CommandFailed, match="NO_DEVICE"):
        await router.create()
    assert router.files() == (NETWORK, CONFIG)
    assert os.listdir(router.keys) == ["wgup_nodea.key.removed"], "for a day"
    assert router.netifd.reloads == 2, "told of it, and told that it is gone"


async def test_a_slow_interface_is_awaited_until_netifd_says_so(
    router: Router, mocker: MockerFixture
) -> None:
    mocker.patch.object(netifd, "UP_S", 60.0)
    mocker.patch.object(netifd, "POLL_S", 60.0)
    router.netifd.stuck.add("wgup_nodea")
    making = asyncio.create_task(router.create())
    async with asyncio.timeout(20):
        while not router.netifd.reloads:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not making.done()
        router.netifd.stuck.clear()
        await router.again("wgup_nodea", "up")
        assert router.is_marked(await making)


async def test_a_start_after_a_crash_tells_netifd_what_was_written_before(router: Router) -> None:
    uplink = await router.create()
    for name in ("network", "wireguard-uplink"):
        text = router.text(name).replace(uplink.addresses[0], "10.7.0.9/32")
        (router.config / name).write_text(text)
    await router.begin()
    row = await router.bus.call("network.interface", "status", {"interface": "wgup_nodea"})
    assert row["ipv4-address"] == [{"address": "10.7.0.9", "mask": 32}]
    assert router.netifd.reloads == 2


async def test_one_that_goes_down_later_is_reported_but_not_waited_for(
    router: Router, mocker: MockerFixture
) -> None:
    mocker.patch.object(netifd, "UP_S", 60.0)
    uplink = await router.create()
    router.netifd.stuck.add("wgup_nodea")
    await router.again("wgup_nodea", "down")
    await router.uplinks.apply()
    assert "ifup wgup_nodea" in router.daemon.warnings["tunnel wgup_nodea"]
    assert router.netifd.calls.count("up") == 0, "somebody wanted it down"
    router.netifd.stuck.clear()
    await router.again("wgup_nodea", "up")
    assert not router.is_marked(uplink)
    await router.uplinks.apply()
    assert router.is_marked(uplink) and router.daemon.warnings == {}
    assert router.netifd.reloads == 1


async def test_a_device_that_was_deleted_by_hand_comes_back(router: Router) -> None:
    uplink = await router.create()
    router.kernel.delete("wgup_nodea")
    await router.uplinks.apply()
    assert router.is_marked(uplink) and router.daemon.warnings == {}


async def test_what_netifd_has_and_its_file_lacks_is_gone_after_a_start(router: Router) -> None:
    """A power cut kept the removal from our file and not from netifd's, which made it at the boot:
    unmarked, and netifd was never told of what this run takes out.
    """
    uplink = await router.create()
    router.kernel.alias[uplink.interface] = router.kernel.group[uplink.interface] = ""
    (router.config / "wireguard-uplink").write_text(CONFIG)
    await router.begin()
    assert router.text("network") == NETWORK
    assert uplink.interface not in router.kernel.alias


async def test_a_device_that_netifd_leaves_behind_is_deleted(router: Router) -> None:
    router.kernel.make("wgup_old", key_of("old"), "")
    router.kernel.alias["wgup_old"] = mark_alias("old")
    router.kernel.make("wgup_others", key_of("theirs"), "")
    await router.read()
    await router.uplinks.apply()
    assert set(router.kernel.alias) == {"wgup_others"}


async def test_a_change_that_takes_the_router_s_line_away_is_undone(
    router: Router, mocker: MockerFixture
) -> None:
    mocker.patch.object(lifecycle, "ROUTE_PAUSES_S", (0.0, 0.01))

    async def lose(name: str, group: tuple[Section, ...]) -> None:
        await type(router.netifd)._up(router.netifd, name, group)
        router.kernel.routes.clear()

    mocker.patch.object(router.netifd, "_up", lose)
    with pytest.raises(CommandFailed, match="default route by pppoe-wan was gone"):
        await router.create()
    assert router.files() == (NETWORK, CONFIG)
    assert router.kernel.alias == {}


async def test_without_netifd_the_reason_is_told_and_nothing_is_left(router: Router) -> None:
    await router.bus.close()
    with pytest.raises(CommandFailed, match="the tunnel can't be made"):
        await router.create()
    assert router.files() == (NETWORK, CONFIG)


async def test_netifd_gets_addresses_only_and_names_move_at_run_time(
    router: Router, mocker: MockerFixture
) -> None:
    names(router, {"a.example": "198.51.100.1"})
    uplink = await router.create(replace(UPLINK, endpoint=Endpoint("a.example", 7)))
    written = router.text("network")
    peer = router.section("wgup_nodea_peer").options
    assert (peer["endpoint_host"], peer["secubox_endpoint"]) == ("198.51.100.1", "a.example")
    assert router.platform.endpoints.current("wgup_nodea") == "198.51.100.1"
    names(router, {"a.example": "198.51.100.2"}, later_s=20.0)
    await router.platform.follow_names(["wgup_nodea"])
    await router.uplinks.apply()
    assert router.kernel.endpoints["wgup_nodea"] == "198.51.100.2:7"
    await router.again("wgup_nodea", "down", "up")  # netifd makes it anew, from the section
    assert router.kernel.endpoints["wgup_nodea"] == "198.51.100.1:7"
    await router.uplinks.apply()
    assert router.kernel.endpoints["wgup_nodea"] == "198.51.100.2:7"
    assert router.text("network") == written, "no write to flash for it"
    assert router.is_marked(uplink)


async def test_a_name_without_dns_leaves_the_endpoint_out(
    router: Router, mocker: MockerFixture
) -> None:
    names(router, {})
    await router.create(replace(UPLINK, endpoint=Endpoint("a.example", 7)))
    assert "endpoint_host" not in router.section("wgup_nodea_peer").options
    names(router, {"a.example": "198.51.100.2"}, later_s=20.0)
    await router.platform.follow_names(["wgup_nodea"])
    assert router.kernel.endpoints["wgup_nodea"] == "198.51.100.2:7"
    await router.uplinks.apply()
    assert router.netifd.reloads == 1


async def test_a_tunnel_brings_dnsmasq_its_last_resolver_and_leaves_nothing(router: Router) -> None:
    for addresses, resolvers in (
        (("10.7.0.2/32", "fd07::2/128"), ("192.0.0.8", "100::8")),
        (("10.7.0.2/32",), ("192.0.0.8",)),
    ):
        made = await router.create(replace(UPLINK, addresses=addresses))
        options = router.section(made.interface).options
        assert options["dns"] == resolvers
        assert int(str(options["dns_metric"])) > 1024, "an owner's are small"
        await router.uplinks.remove(made)
        assert router.files() == (NETWORK, CONFIG)
        assert "wgup_nodea" not in router.kernel.alias
        assert os.listdir(router.keys) == ["wgup_nodea.key.removed"], "for a day"


async def test_the_mtu_is_what_its_underlay_has_room_for_when_it_is_written(
    router: Router, mocker: MockerFixture
) -> None:
    links = [Link("pppoe-wan", 9, 0, mtu=1492)]
    mocker.patch.object(Devices, "device_towards", return_value="pppoe-wan")
    mocker.patch.object(Devices, "devices", return_value=links)
    [interface, *_] = await router.platform.wanted_sections([(UPLINK, "SECRET")], [])
    assert interface.options["mtu"] == "1412"
    links[0] = replace(links[0], mtu=1500)
    [again, *_] = await router.platform.wanted_sections([(UPLINK, "SECRET")], [interface])
    assert again.options["mtu"] == "1412", "later ones are set at run time only"
    lower = replace(UPLINK, mtu=1380)
    [interface, *_] = await router.platform.wanted_sections([(lower, "SECRET")], [])
    assert interface.options["mtu"] == "1380"


async def test_the_zone_stays_when_the_line_is_down(router: Router) -> None:
    await router.create()
    router.kernel.routes.clear()
    (router.config / "firewall").write_text("config zone\n\toption name 'other'\n")
    await router.begin()
    assert router.section("wgup_nodea").options["zone"] == "outside"
    assert router.netifd.reloads == 1


async def test_lines_have_the_owner_s_names(router: Router) -> None:
    assert router.platform.logical_name("pppoe-wan") == "pppoe-wan", "netifd wasn't asked yet"
    await router.read()
    await router.uplinks.apply()
    assert router.platform.logical_name("pppoe-wan") == "wan"
    assert router.platform.logical_name("eth9") == "eth9"
    await router.daemon.monitor.network.read(())
    wans = router.daemon.status.uplink_status().wans
    assert [(wan.path, wan.device) for wan in wans] == [("wan", "pppoe-wan")]
    await router.netifd.also("WAN6", "pppoe-wan")
    async with asyncio.timeout(10):
        while router.platform.logical_name("eth9") == "eth9":
            await router.netifd.also("dsl", "eth9")
            await asyncio.sleep(0.01)
    assert router.platform.logical_name("pppoe-wan") == "wan", "the shorter of two"


async def test_a_line_may_be_named_as_netifd_does(router: Router) -> None:
    router.daemon.store.current = Config(Settings(lines=("wan", "eth99")))
    assert await router.daemon.wans.find_devices()
    assert router.daemon.wans.named == ("pppoe-wan", "eth99")
    told = router.daemon.warnings["wan"]
    assert told.startswith('list wan names "eth99", which this router does not have (there are wan')
    await router.bus.close()
    assert (await router.platform.read_interfaces())["wan"] == "pppoe-wan", "what it told before"


BOTH = replace(UPLINK, addresses=("10.7.0.2/32", "fd07::2/128"))


@pytest.fixture
def mwan3_router(router: Router) -> Router:
    """A router that uses mwan3, and looks at the kernel whenever netifd changes something there."""
    (router.config / "mwan3").write_text("config globals 'globals'\n")
    started = router.config.parent / "rc.d" / "S19mwan3"
    started.parent.mkdir()
    started.symlink_to("../init.d/mwan3")
    router.watch()
    return router


async def test_adds_beside_a_netifd_that_is_faster_than_our_mark(mwan3_router: Router) -> None:
    """Its default route is there before its group is set and before the uplink is known."""
    monitor = mwan3_router.daemon.monitor
    for _ in range(2):
        uplink = await mwan3_router.create(BOTH)
        await monitor.reread()
        devices = {family: set(monitor.network.state.wans[family].known) for family in Family}
        assert devices == {V4: {"pppoe-wan"}, V6: set()}
        kinds = {path.kind for path in monitor.paths.values() if path.device != "pppoe-wan"}
        assert kinds == {PathKind.UPLINK}
        await mwan3_router.uplinks.remove(uplink)


async def test_default_routes_of_tunnels_stand_behind_every_wan_s(mwan3_router: Router) -> None:
    kernel = mwan3_router.kernel
    kernel.routes6["pppoe-wan"] = 1024  # the kernel's own choice where there is none
    kernel.metrics["pppoe-wan"] = 100_000
    first = await mwan3_router.create(BOTH)
    second = await mwan3_router.create(replace(BOTH, peer_id="node-b", public_key=key_of("b")))
    metrics = [kernel.metrics[uplink.interface] for uplink in (first, second)]
    assert len({*metrics}) == 2
    assert all(1 << 30 < metric < (1 << 31) - 1 for metric in metrics), "netifd takes 31 bits"
    assert not [p for p in mwan3_router.daemon.warnings if p.startswith("order")]


async def test_only_an_mwan3_that_is_used_gets_default_routes_of_tunnels(
    mwan3_router: Router,
) -> None:
    """Without it they would carry traffic by themselves as soon as the WANs' are gone."""
    router = mwan3_router
    service = router.daemon
    made = await router.create(BOTH)
    assert made.interface in router.kernel.metrics and "wgup6" in router.text("network")
    await service.uplinks.set_failover(enabled=False)
    assert made.interface not in {*router.kernel.metrics, *router.kernel.routes6}
    assert "wgup6" not in router.text("network") and router.is_marked(made)
    await service.uplinks.set_failover(enabled=True)
    assert made.interface in router.kernel.metrics
    (router.config.parent / "rc.d" / "S19mwan3").unlink()
    assert not service.uplinks.changed_outside, "nobody looked yet"
    await router.daemon.wans.follow_mwan3()
    assert service.uplinks.changed_outside
    await service.uplinks.reload()
    assert made.interface not in router.kernel.metrics and not service.uplinks.changed_outside
    assert "wgup" not in router.text("mwan3")


@pytest.mark.parametrize("handler", ["uc", "sh"])
async def test_a_metric_of_an_earlier_version_is_replaced_once(
    mwan3_router: Router, handler: str
) -> None:
    router = mwan3_router
    router.netifd.handler = handler
    made = await router.create(BOTH)
    new = router.kernel.metrics[made.interface]
    text = router.text("network").replace(f"'{new}'", "'1001'")
    (router.config / "network").write_text(text)
    await router.bus.call("network", "reload", {})
    assert router.kernel.metrics[made.interface] == 1001
    await router.begin()
    assert router.kernel.metrics[made.interface] == router.kernel.routes6[made.interface] == new
    assert router.is_marked(made)
    written, reloads = router.text("network"), router.netifd.reloads
    assert f"option metric '{new}'" in written
    await router.begin()
    assert (router.text("network"), router.netifd.reloads) == (written, reloads)


async def test_a_route_that_netifd_left_in_its_old_place_is_made_anew(mwan3_router: Router) -> None:
    router = mwan3_router
    made = await router.create(BOTH)
    new = router.kernel.metrics[made.interface]
    row = router.netifd.row(made.interface)
    row["route"] = [route | {"metric": 1001} for route in row["route"]]
    await router.begin()
    assert {route["metric"] for route in router.netifd.row(made.interface)["route"]} == {new}


async def test_a_wan_that_stands_behind_a_tunnel_is_told(mwan3_router: Router) -> None:
    router = mwan3_router
    before = router.files()
    router.kernel.metrics["pppoe-wan"] = (1 << 32) - 1
    with pytest.raises(CommandFailed, match="while pppoe-wan is well"):
        await router.create(BOTH)
    assert router.files() == before
    router.kernel.metrics["pppoe-wan"] = 10
    made = await router.create(BOTH)
    assert await router.daemon.wans.follow_mwan3() in (True, False)
    assert f"order {made.interface}" not in router.daemon.warnings
    router.kernel.routes6["pppoe-wan"] = (1 << 32) - 1
    assert await router.daemon.wans.follow_mwan3(), "status changed"
    assert "IPv6 may leave by the tunnel" in router.daemon.warnings[f"order {made.interface}"]
    del router.kernel.routes6["pppoe-wan"]
    await router.daemon.wans.follow_mwan3()
    assert f"order {made.interface}" not in router.daemon.warnings


async def test_a_device_that_netifd_made_anew_is_marked_again(router: Router) -> None:
    uplink = await router.create()
    await router.again(uplink.interface, "down", "up")
    assert not router.is_marked(uplink)
    await router.daemon.monitor.network.read(())  # as after each of the kernel's link events
    await router.uplinks.restore_tunnels()
    assert router.is_marked(uplink)


@pytest.mark.parametrize(("handshake", "told"), [(1700000000, "has shaken"), (0, "not shaken")])
async def test_the_reply_says_whether_the_tunnel_shakes_hands(
    router: Router, mocker: MockerFixture, handshake: int, told: str
) -> None:
    mocker.patch.object(adding, "HANDSHAKE_S", 0.01)
    router.kernel.handshake = handshake
    await router.read()
    router.daemon.peers.rebuild()
    reply = await router.daemon.uplink_methods.uplink_add(
        "node-a", endpoint="192.0.2.7", public_key=key_of("a")
    )
    assert told in reply.message and reply.success is True


def test_a_style_says_what_netifd_needs_besides() -> None:
    uplink = replace(UPLINK, interface="wgup_nodea")
    plain, plain_peer = wanted_sections(uplink, key_of("own"))
    style = NetworkStyle(metric=1001, routed=True, dns=("10.7.0.1",), dns_metric=1001)
    styled, peer = wanted_sections(uplink, key_of("own"), style)
    besides = {"metric": "1001", "dns": ("10.7.0.1",), "dns_metric": "1001"}
    assert styled.options == {**plain.options, **besides}
    assert peer.options == {**plain_peer.options, "route_allowed_ips": "1"}
    assert plain_peer.options["route_allowed_ips"] == "0"
    assert not plan_sections((styled, peer), (styled, peer))


class Fw4:
    """fw4's commands over the router's files, as the real one answers them."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.running = True
        self.refuses = False
        self.breaks = False
        self.reloads = 0
        self.chain = ""

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout_s: float = 5.0,
        check: bool = True,
    ) -> process.Completed:
        """In the place of process.run, before the kernel's."""
        match list(argv):
            case ["fw4", "check"]:
                return process.Completed(1 if self.refuses else 0, "", "")
            case [path, "reload"] if path == INIT:
                if self.breaks or not self.running:
                    return process.Completed(1, "", "")
                self.reloads += 1
                # The chain of a zone that is gone stays, empty.
                known = "option name 'wgup'" in self.router.text("firewall")
                self.chain = "jump reject_from_wgup" if known else self.chain and "{ }"
                return process.Completed(0, "", "")
            case ["nft", "list", "chain", "inet", "fw4", chain]:
                text = self.chain if chain == "input_wgup" else "chain input"
                shown = text if self.running else ""
                return process.Completed(0 if shown else 1, shown, "")
        return await self.router.kernel.run(argv, stdin=stdin, timeout_s=timeout_s, check=check)


@pytest.fixture
def fw4(router: Router, mocker: MockerFixture) -> Fw4:
    made = Fw4(router)
    mocker.patch.object(process, "run", made.run)
    return made


async def test_a_provider_stands_in_netifd_and_fw4_and_goes_without_a_trace(
    router: Router, fw4: Fw4
) -> None:
    await router.stand()
    options = router.section("wgup_srv").options
    assert (options["device"], options["ipaddr"]) == ("wgup_srv", ("10.7.8.1/24",))
    assert "option dest 'outside'" in router.text("firewall")
    assert router.text("firewall").startswith(FIREWALL)
    assert (fw4.reloads, router.netifd.reloads) == (1, 1)
    files = router.provider_files()
    router.restart()
    await router.stand()
    assert (fw4.reloads, router.netifd.reloads) == (1, 1), "a new start tells nobody anything"
    assert router.provider_files() == files
    await router.stand(port=5555)
    assert "5555" in router.text("firewall") and "51821" not in router.text("firewall")
    assert (fw4.reloads, router.netifd.reloads) == (2, 1)
    for _ in range(2):
        await router.platform.remove_provider()
        assert router.provider_files() == (NETWORK, FIREWALL)
        assert (fw4.reloads, router.netifd.reloads) == (3, 2)


async def test_uplinks_come_and_go_beside_a_provider(router: Router, fw4: Fw4) -> None:
    await router.stand()
    section = router.section("wgup_srv")
    uplink = await router.create()
    assert router.section("wgup_srv") == section
    await router.platform.remove_provider()
    assert router.is_marked(uplink) and router.section(uplink.interface)
    await router.stand()
    await router.uplinks.remove(uplink)
    assert router.section("wgup_srv") == section
    assert "wgup_nodea" not in router.text("network")


@pytest.mark.parametrize("trouble", ["refuses", "breaks", "netifd"])
async def test_a_provider_that_can_not_stand_leaves_all_as_it_was(
    router: Router, fw4: Fw4, mocker: MockerFixture, trouble: str
) -> None:
    await router.stand()
    await router.platform.remove_provider()
    if trouble == "netifd":
        mocker.patch.object(netifd.Netifd, "call", side_effect=CommandFailed("gone"))
    else:
        setattr(fw4, trouble, True)
    with pytest.raises(CommandFailed, match=r"fw4|reload|gone"):
        await router.stand()
    assert router.provider_files() == (NETWORK, FIREWALL)


async def test_a_change_that_fails_leaves_what_stood(router: Router, fw4: Fw4) -> None:
    await router.stand()
    before = router.provider_files()
    fw4.refuses = True
    with pytest.raises(CommandFailed):
        await router.stand(port=5555)
    assert router.provider_files() == before


async def test_a_firewall_is_no_hindrance_where_it_does_not_run_or_is_not_there(
    router: Router, fw4: Fw4
) -> None:
    fw4.running = False
    await router.stand()
    assert "wgup_srv" in router.text("firewall"), "for when it starts"
    await router.platform.remove_provider()
    (router.config / "firewall").unlink()
    await router.stand()
    assert router.section("wgup_srv")
    assert not (router.config / "firewall").exists()
    assert fw4.reloads == 0


async def test_what_netifd_or_fw4_lost_is_told_again(router: Router, fw4: Fw4) -> None:
    await router.stand()
    fw4.chain = "{ }"
    await router.stand()
    assert (fw4.reloads, router.netifd.reloads) == (2, 1)
    router.netifd.forget("wgup_srv")
    await router.stand()
    assert (fw4.reloads, router.netifd.reloads) == (2, 2)


async def test_tunnels_and_the_mesh_are_no_ways_out(router: Router, fw4: Fw4) -> None:
    zones = "".join(f"config zone\n\toption name {n}\n\tlist network {n}\n" for n in ("a", "b"))
    (router.config / "firewall").write_text(FIREWALL + zones)
    for name, device in (("a", "mesh0"), ("b", "wgup_nodea")):
        await router.netifd.also(name, device)
        router.kernel.routes.append(device)
    await router.stand()
    assert router.text("firewall").count("config forwarding") == 1
    assert "option dest 'outside'" in router.text("firewall")


async def test_a_firewall_without_a_way_out_is_told(router: Router, fw4: Fw4) -> None:
    (router.config / "firewall").write_text("config zone\n\toption name 'lan'\n")
    with pytest.raises(ConfigError, match="add the WAN's interface"):
        await router.stand()
    assert router.text("network") == NETWORK


@pytest.mark.parametrize(
    ("asked", "has_netifd", "made"),
    [
        ("auto", True, "openwrt"),
        ("auto", False, "standalone"),
        ("openwrt", False, "openwrt"),
        ("standalone", True, "standalone"),
    ],
)
def test_the_platform_is_found(
    mocker: MockerFixture, asked: str, has_netifd: bool, made: str
) -> None:
    mocker.patch("os.path.exists", lambda path: has_netifd and path == "/sbin/netifd")
    assert make_platform(asked, "/etc/config", "/keys", Client("/nowhere"), Warnings()).name == made


async def test_the_double_speaks_as_netifd_does(router: Router) -> None:
    """Same tables, same notifications in the same order, for what the platform reads."""
    recorded = {entry.get("note", entry["method"]): entry for entry in RECORDED}
    methods = recorded["signatures of the objects; numbers are blobmsg types"]["reply"]
    for info in await router.bus.lookup("network*"):
        real = methods[info.path]
        assert info.methods.keys() <= {*real, "status"} and info.methods
    uplink = await router.create()
    real_row = next(
        row
        for row in recorded["dump"]["reply"]["interface"]
        if row["interface"] == uplink.interface
    )
    dump = await router.bus.call("network.interface", "dump")
    ours = next(row for row in dump["interface"] if row["interface"] == uplink.interface)
    assert shape(ours).items() <= shape(real_row).items()
    assert shape(ours["ipv4-address"][0]) == shape(real_row["ipv4-address"][0])
    router.netifd.told.clear()
    changed = replace(uplink, addresses=("10.7.0.9/32",))
    await router.uplinks.change(uplink, changed)
    real = recorded["unknown option on wireguard interface changed + network reload"]["received"]
    assert [event for event, _ in router.netifd.told] == [
        one["name"] for one in real if one["kind"] == "notification"
    ]
    down = next(one["data"] for one in real if one["name"] == "interface.down")
    assert shape(router.netifd.told[0][1]) == shape(down)


# --- a file that was lost says nothing


@pytest.mark.parametrize("text", ["", None, "config globals 'globals'\n"])
async def test_a_network_without_the_routers_interfaces_is_left_alone(
    router: Router, text: str | None
) -> None:
    """A file with nothing but our tunnels would take the router off its own LAN."""
    uplink = await router.create()
    before, path = router.text("network"), router.config / "network"
    reloads = router.netifd.reloads
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    await router.uplinks.apply()
    assert "network is lost or cut off" in router.daemon.warnings["apply"]
    with pytest.raises(ConfigError, match="lost or cut off"):
        await router.create(replace(UPLINK, peer_id="another"))
    with pytest.raises(ConfigError, match="lost or cut off"):
        await router.stand()
    assert not path.exists() if text is None else path.read_text() == text
    assert router.netifd.reloads == reloads and router.is_marked(uplink)
    path.write_text(before)
    await router.uplinks.apply()
    assert "apply" not in router.daemon.warnings
    assert router.text("network") == before
