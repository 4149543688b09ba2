"""SecuBox's older names: what its page sends and reads, and the import of its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from docs.schemas import check_reply
from rpcd_wireguard_uplink.api.methods import METHODS, parse_arguments
from rpcd_wireguard_uplink.api.provider import ProviderMethods
from rpcd_wireguard_uplink.api.replies import Done
from rpcd_wireguard_uplink.api.secubox import OlderMethods, import_once, peer_id_of, wanted_weight
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.store import ConfigStore
from rpcd_wireguard_uplink.daemon import Daemon
from rpcd_wireguard_uplink.errors import Status, UplinkError
from rpcd_wireguard_uplink.events import Events
from rpcd_wireguard_uplink.schema.record import Record
from rpcd_wireguard_uplink.tasks import TaskSet
from rpcd_wireguard_uplink.warnings import Warnings
from tests.unit.fakes import Commands, Machine, key_of
from tests.unit.router import daemon_of, offer

CONFIG = """\
config wireguard-uplink 'uplink'
	list trusted_peer 'sb-0011aabbccdd'
	list trusted_peer 'nodeb'
"""
KEY, KEY_B = key_of("a"), key_of("b")
PEER = "sb-0011aabbccdd"

# What uplinks.js reads of each reply, through api.js; `success` false brings `error`.
READS = {
    "uplink_status": "enabled offering auto_failover uplink_count peer_offers",
    "peer_offers": "node_id bandwidth latency public_key endpoint",
    "uplinks": "interface peer_pubkey endpoint priority weight status",
    "add_uplink": "success message",
    "remove_uplink": "success message",
    "test_uplink": "reachable latency_ms error",
    "set_uplink_priority": "success",
    "set_uplink_failover": "success",
    "offer_uplink": "success message",
    "withdraw_uplink": "success message",
}
# What SecuBox's own plugin replies besides, under the same names.
PLUGIN_REPLIES = {
    "uplink_status": "available active_count",
    "peer_offers": "bandwidth_mbps latency_ms",
    "uplinks": "enabled state connectivity",
    "add_uplink": "interface",
    "test_uplink": "success result interface",
}


class Page:
    """Calls as the page does, and checks replies against the method table and what it reads."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.offered: list[dict[str, Any]] = []
        provider = cast(ProviderMethods, self)
        self.older = OlderMethods(
            daemon.store, daemon.monitor, daemon.offers, daemon.uplink_methods, provider
        )

    async def uplink_offer(self, **given: Any) -> Done:
        """The provider's part of the service, which is tested elsewhere."""
        self.offered.append(given)
        return Done(message="offered")

    async def uplink_withdraw(self) -> Done:
        self.offered.clear()
        return Done(message="withdrawn")

    async def call(self, name: str, **sent: Any) -> dict[str, Any]:
        method = METHODS[name]
        arguments = parse_arguments(method, {"ubus_rpc_session": "0" * 32, **sent})
        parts = (self.older, *self.daemon.methods)
        owner = next(part for part in parts if hasattr(part, name))
        result = getattr(owner, name)(**arguments)
        found: Record = result if isinstance(result, Record) else await result
        reply = found.as_table()
        check_reply(method, reply)
        tables = (
            [("uplinks", row) for row in reply["uplinks"]] if name == "uplinks" else [(name, reply)]
        )
        tables += [("peer_offers", row) for row in reply.get("peer_offers", [])]
        for kind, table in tables:
            wanted = {*READS.get(kind, "").split(), *PLUGIN_REPLIES.get(kind, "").split()}
            missing = wanted - table.keys()
            assert not missing, f"{kind} lacks {missing}"
        return reply

    def hear(self, peer_id: str, key: str, **capabilities: Any) -> None:
        endpoint = {"host": "192.0.2.7", "port": 51820, "public_key": key}
        said = offer(peer_id, capabilities={"available": True, **capabilities}, endpoint=endpoint)
        self.daemon.uplink_methods.uplink_gossip(said)


@pytest.fixture
def machine(tmp_path: Path, commands: Commands) -> Machine:
    made = Machine(str(tmp_path))
    Path(made.config_dir, "wireguard-uplink").write_text(CONFIG)
    return made


@pytest.fixture
async def page(machine: Machine, tmp_path: Path) -> AsyncIterator[Page]:
    daemon = daemon_of(machine, tmp_path)
    await daemon.start()
    yield Page(daemon)
    await daemon.stop()


async def test_the_page_from_offer_to_removal(page: Page) -> None:
    page.hear(PEER, KEY, bandwidth_mbps=100, latency_ms=20)
    page.hear("silent", KEY_B)
    page.hear("without", key_of("c"), available=False)
    status = await page.call("uplink_status")
    # The page compares with === 1 and === '1': true would be shown as Disabled.
    assert [type(status[name]) for name in ("enabled", "offering", "auto_failover")] == [int] * 3
    newest, first = status["peer_offers"]
    assert (newest["node_id"], newest["bandwidth"], newest["latency"]) == ("silent", 0, 0)
    assert (first["bandwidth"], first["latency"]) == (100, 20)

    sent = {"local_pubkey": "", "priority": "10", "weight": "1", "node_id": first["node_id"]}
    added = await page.call(
        "add_uplink", peer_pubkey=first["public_key"], endpoint=first["endpoint"], **sent
    )
    assert (await page.call("uplink_status"))["uplink_count"] == 1
    (row,) = (await page.call("uplinks"))["uplinks"]
    assert row["interface"] == added["interface"]
    assert (row["peer_pubkey"], row["endpoint"]) == (KEY, "192.0.2.7:51820")
    assert (row["priority"], row["weight"], row["status"]) == (10, 91, "testing")

    interface = row["interface"]
    await page.call("set_uplink_priority", interface=interface, priority="100", weight="50")
    assert (await page.call("uplinks"))["uplinks"][0]["priority"] == 100
    tested = await page.call("test_uplink", interface=interface, target="8.8.8.8")
    assert tested["reachable"] is False and tested["error"] and tested["result"] == "FAILED"
    await page.call("set_uplink_failover", enabled="0")
    assert (await page.call("uplink_status"))["auto_failover"] == 0
    await page.call("set_uplink_failover", enabled="1")
    assert (await page.call("uplink_status"))["auto_failover"] == 1
    await page.call("remove_uplink", interface=interface)
    assert await page.call("uplinks") == {"uplinks": []}


async def test_an_uplink_is_found_by_its_key(page: Page) -> None:
    page.hear(PEER, KEY)
    added = await page.call("add_uplink", peer_pubkey=KEY, endpoint="", node_id="")
    assert added["peer_id"] == PEER
    await page.call("add_uplink", peer_pubkey=KEY, priority="1")
    (row,) = (await page.call("uplinks"))["uplinks"]
    assert (row["node_id"], row["weight"]) == (PEER, 100)


@pytest.mark.parametrize(
    ("name", "sent", "status", "words"),
    [
        ("remove_uplink", {"interface": "wgup0"}, Status.NOT_FOUND, "wgup0"),
        ("set_uplink_priority", {"interface": "a"}, Status.INVALID_ARGUMENT, "priority is missing"),
        ("add_uplink", {"peer_pubkey": KEY}, Status.INVALID_ARGUMENT, "endpoint is missing"),
        (
            *("add_uplink", {"peer_pubkey": KEY_B, "endpoint": "192.0.2.8"}),
            *(Status.PERMISSION_DENIED, peer_id_of(KEY_B)),
        ),
    ],
)
async def test_errors_have_statuses_and_sentences(
    page: Page, name: str, sent: dict[str, str], status: Status, words: str
) -> None:
    with pytest.raises(UplinkError, match=words) as caught:
        await page.call(name, **sent)
    assert caught.value.status is status


async def test_offering(page: Page) -> None:
    await page.call("offer_uplink", bandwidth="100", latency="10")
    assert page.offered == [{"bandwidth_mbps": 100, "latency_ms": 10}]
    await page.call("offer_uplink", bandwidth="", latency="")
    assert page.offered[1:] == [{}]
    await page.call("withdraw_uplink")
    assert page.offered == []


async def test_the_status_shows_a_bounded_number_of_offers(page: Page) -> None:
    for number in range(150):
        page.hear(f"n{number}", key_of(str(number)))
    shown = (await page.call("uplink_status"))["peer_offers"]
    assert [row["node_id"] for row in shown] == [f"n{n}" for n in range(149, 49, -1)]


@pytest.mark.parametrize(
    ("priority", "weight", "wanted"),
    [("1", None, 100), ("100", "5", 1), (10, "5", 91), (None, 5.0, 5), (None, None, None)],
)
def test_a_priority_is_a_weight_upside_down(priority: Any, weight: Any, wanted: Any) -> None:
    assert wanted_weight(priority, weight) == wanted


SECUBOX = f"""\
config settings 'main'
	option enabled '1'

config provider 'local'
	option private_key 'SECRET'

config uplink 'wgup0'
	option interface 'wgup0'
	option peer_pubkey '{KEY}'
	option endpoint '192.0.2.9:51821'
	option enabled '1'
	option priority '10'
	option weight '1'
	option node_id 'sb-far'

config uplink 'wgup1'
	option peer_pubkey '{KEY_B}'
	option endpoint '[2001:db8::1]:51821'
	option enabled '0'

config uplink 'wgup2'
	option peer_pubkey 'nonsense'
	option endpoint '192.0.2.9:51821'

config uplink 'wgup3'
	option peer_pubkey '{KEY}'
	option endpoint '127.0.0.1:51821'
"""


async def taken_over(machine: Machine) -> list[str]:
    """What a start takes over."""
    warnings = Warnings()

    async def has_made() -> bool:
        return False

    store = ConfigStore(machine, has_made, Events(TaskSet(warnings)), warnings)
    await store.reload()
    return await import_once(machine, store)


async def test_the_file_is_taken_over_once_and_never_written(machine: Machine) -> None:
    theirs = Path(machine.config_dir, "wireguard_uplink")
    theirs.write_text(SECUBOX)
    left_out = await taken_over(machine)
    of = [sentence.split()[0] for sentence in left_out]
    assert of == ["wireguard_uplink.wgup2", "wireguard_uplink.wgup3"]
    config = parse_config((await machine.read("wireguard-uplink")).sections)
    found = {
        u.peer_id: (str(u.endpoint), u.public_key, u.weight, u.enabled) for u in config.uplinks
    }
    assert found == {
        "sb-far": ("192.0.2.9:51821", KEY, 91, True),
        peer_id_of(KEY_B): ("[2001:db8::1]:51821", KEY_B, 10, False),
    }
    assert config.settings.trusted_peers == {PEER, "nodeb", "sb-far", peer_id_of(KEY_B)}
    assert config.warnings == ()
    assert theirs.read_text() == SECUBOX

    await machine.edit("wireguard-uplink", lambda draft: draft.remove_section("wgup_sbfar"))
    after = Path(machine.config_dir, "wireguard-uplink").read_text()
    assert await taken_over(machine) == []
    assert Path(machine.config_dir, "wireguard-uplink").read_text() == after


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, ""),
        ("config settings 'main'\n", ""),
        ("config uplink 'a\n", "wireguard_uplink was not taken over: "),
    ],
    ids=["no file", "no uplink", "no UCI"],
)
async def test_what_holds_no_uplink_of_theirs_has_nothing_written(
    machine: Machine, text: str | None, told: str
) -> None:
    if text is not None:
        Path(machine.config_dir, "wireguard_uplink").write_text(text)
    left_out = await taken_over(machine)
    assert len(left_out) == bool(told) and all(each.startswith(told) for each in left_out)
    assert machine.steps == []
