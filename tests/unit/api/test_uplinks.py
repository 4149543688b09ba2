"""The use cases over a machine of files: what each method replies, refuses, and tells.

What real tunnels and real packets do is shown by the namespace tests.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import Status
from rpcd_wireguard_uplink.failover.machine import Change, Move, Moved
from rpcd_wireguard_uplink.mesh.offers import MOST_OFFERS
from rpcd_wireguard_uplink.model import Family, Health, Link, PeerCounters
from rpcd_wireguard_uplink.ubus.blobmsg import encode_table
from rpcd_wireguard_uplink.ubus.framing import MAX_MESSAGE
from tests.unit.fakes import key_of, set_network
from tests.unit.router import CONFIG, LINE, NETWORK, Router, offer

KEY_A, KEY_B = key_of("provider a"), key_of("provider b")


async def add(router: Router, *peers: str, **arguments: Any) -> dict[str, Any]:
    """These peers offer their internet, and an uplink to each is added; the last reply."""
    reply: dict[str, Any] = {}
    for peer in peers:
        await router.call("uplink_gossip", message=offer(peer))
        reply = await router.call("uplink_add", peer_id=peer, **arguments)
    return reply


async def reload(router: Router, text: str = "") -> None:
    """The owner has added this to the section `uplink`, or to the file, and to nothing else."""
    router.write("wireguard-uplink", CONFIG + text)
    await router.daemon.uplinks.reload()


async def problems_of(router: Router) -> list[str]:
    found: list[str] = (await router.call("uplink_status"))["problems"]
    return found


async def test_a_start_writes_nothing(router: Router) -> None:
    assert router.files() == {"wireguard-uplink": CONFIG, "network": NETWORK}
    assert router.events == []
    assert json.loads(router.state_file.read_text())["uplinks"] == []


async def test_an_uplink_from_an_offer(router: Router) -> None:
    reply = await add(router, "nodea")
    assert (reply["created"], reply["interface"]) == (True, "wgup_nodea")
    assert (reply["endpoint"], reply["weight"]) == ("192.0.2.7:51820", 10)
    assert reply["address"].startswith("10.")
    assert reply["address6"].startswith("fd")
    tunnel = router.machine.tunnels["wgup_nodea"]
    assert tunnel.public_key == key_of("key nodea")
    assert tunnel.addresses == (reply["address"], reply["address6"])
    assert reply["public_key"] == key_of(f"public of {tunnel.private_key}")
    router.assert_consistent()
    assert router.text("wireguard-uplink").startswith(CONFIG)
    told = [name for name, _ in router.events]
    assert told == ["wireguard-uplink.offer", "wireguard-uplink.uplink"]
    history = await router.call("uplink_history")
    assert [(e["kind"], e["peer_id"]) for e in history["events"]] == [("uplink_added", "nodea")]
    [kept] = json.loads(router.state_file.read_text())["uplinks"]
    assert {"usable", "latency_ms", "handshake_age_s"} <= kept.keys()


async def test_an_uplink_from_given_values_needs_no_offer(router: Router) -> None:
    reply = await router.call(
        "uplink_add",
        peer_id="nodea",
        endpoint="gw.example:1234",
        public_key=KEY_A,
        address="10.9.8.7",
        weight=77,
    )
    assert (reply["endpoint"], reply["weight"]) == ("gw.example:1234", 77)
    assert (reply["address"], reply["address6"]) == ("10.9.8.7/32", "")
    router.assert_consistent()


async def test_adding_what_exists_changes_what_was_given(router: Router) -> None:
    first = await add(router, "nodea", weight=20)
    again = await router.call("uplink_add", peer_id="nodea")
    assert again == {**first, "created": False, "message": again["message"]}
    before = router.files()
    changed = await router.call("uplink_add", peer_id="nodea", endpoint="198.51.100.1:999")
    given = {"endpoint": "198.51.100.1:999"}
    assert changed == {**first, **given, "created": False, "message": changed["message"]}
    assert str(router.machine.tunnels["wgup_nodea"].endpoint) == "198.51.100.1:999"
    assert router.files() != before
    router.assert_consistent()
    events = (await router.call("uplink_history"))["events"]
    assert [event["kind"] for event in events] == ["uplink_changed", "uplink_added"]


async def test_names_never_clash(router: Router) -> None:
    """`wgup_mine` is the owner's, and two peers may have the same first letters."""
    await reload(router, "\tlist trusted_peer 'mine'\n\tlist trusted_peer 'mi.ne'\n")
    names = {(await add(router, peer))["interface"] for peer in ("mine", "mi.ne")}
    assert len(names) == 2 and "wgup_mine" not in names
    router.assert_consistent()


async def test_removing_leaves_everything_as_it_was(router: Router) -> None:
    await add(router, "nodeb")
    before, tunnels = router.files(), dict(router.machine.tunnels)
    await add(router, "nodea")
    told = await router.call("uplink_remove", peer_id="nodea")
    assert told["message"].endswith("back, `wgctl uplink add nodea` does.")
    declined, files = "\tlist declined 'nodea'\n", router.files()
    assert declined in files["wireguard-uplink"], "as min_uplinks must know"
    files["wireguard-uplink"] = files["wireguard-uplink"].replace(declined, "")
    assert (files, router.machine.tunnels) == (before, tunnels)
    assert await router.refusal("uplink_remove", peer_id="nodea") == (Status.NOT_FOUND, "no_uplink")
    assert router.events[-1][1]["kind"] == "uplink_removed"


async def test_priority(router: Router) -> None:
    await add(router, "nodea", "nodeb")
    listed = (await router.call("uplink_list"))["uplinks"]
    assert [u["peer_id"] for u in listed] == ["nodea", "nodeb"]
    for _ in range(2):
        weighed = await router.call("uplink_set_priority", peer_id="nodeb", weight=90)
        assert weighed["weight"] == 90
    events = (await router.call("uplink_history"))["events"]
    told = [(e["kind"], e["peer_id"], e["cause"]) for e in events if "weight" in e["cause"]]
    assert told == [("uplink_changed", "nodeb", "its weight is 90 now")], "what changes is told"
    listed = (await router.call("uplink_list"))["uplinks"]
    assert [(u["peer_id"], u["weight"]) for u in listed] == [("nodeb", 90), ("nodea", 10)]
    refused = await router.refusal("uplink_set_priority", peer_id="nodec", weight=1)
    assert refused == (Status.NOT_FOUND, "no_uplink")


async def test_failover_on_and_off(router: Router) -> None:
    assert (await router.call("uplink_set_failover", enabled=False))["auto_failover"] == 0
    assert (await router.call("uplink_status"))["auto_failover"] == 0
    assert "option auto_failover '0'" in router.text("wireguard-uplink")
    assert (await router.call("uplink_set_failover", enabled=True))["auto_failover"] == 1
    assert (await router.call("uplink_status"))["auto_failover"] == 1
    (router.directory / "config" / "wireguard-uplink").unlink()
    await router.call("uplink_set_failover", enabled=False)
    assert "config wireguard-uplink 'uplink'" in router.text("wireguard-uplink")


async def test_list_tells_why_an_offer_cannot_be_used(router: Router) -> None:
    await add(router, "nodea")
    await router.call("uplink_gossip", message=offer("stranger"))
    gone = offer("nodeb", capabilities={"available": False})
    await router.call("uplink_gossip", message=json.dumps(gone))
    offers = {o["peer_id"]: o for o in (await router.call("uplink_list"))["offers"]}
    assert offers["nodea"]["usable"] and offers["nodea"]["configured"]
    assert not offers["nodeb"]["usable"] and "not available" in offers["nodeb"]["reason"]
    assert (offers["stranger"]["trusted"], offers["stranger"]["usable"]) == (False, False)
    assert offers["stranger"]["reason_code"] == "not_trusted"
    assert offers["stranger"]["reason_args"][0] == "stranger"


async def test_a_thousand_strangers_fit_into_a_reply(router: Router) -> None:
    """However many peers are trusted by name, and however long the offers are."""
    names = "".join(f"\tlist trusted_peer 'friend-number-{number:03}'\n" for number in range(20))
    router.write("wireguard-uplink", CONFIG + names)
    await router.restart()
    ends = [
        {"host": f"{'a' * 60}.{'b' * 60}.example", "port": n, "scope": "public"} for n in (1, 2)
    ]
    await router.call("uplink_gossip", message=offer("stranger", endpoints=ends, egress="x" * 200))
    book = router.daemon.offers
    for number in range(MOST_OFFERS):
        book.accept(book.names["stranger"].replaced(peer_id=f"{'x' * 59}-{number:04}", sequence=1))
    [row, *rows] = router.daemon.status.uplink_list().as_table()["offers"]
    assert row["reason"].endswith("`list trusted_peer` in /etc/config/wireguard-uplink")
    size = len(encode_table({"offers": [row, *rows]}))
    assert len(rows) == MOST_OFFERS - 1 and size < 0.95 * MAX_MESSAGE, size


async def test_gossip_keeps_the_order_and_takes_offers_back(router: Router) -> None:
    assert (await router.call("uplink_gossip", message=offer("nodea", sequence=7)))["accepted"]
    told = len(router.events)
    assert not (await router.call("uplink_gossip", message=offer("nodea", sequence=6)))["accepted"]
    assert len(router.events) == told, "what changes nothing is not told"
    withdraw = {"type": "uplink_withdraw", "peer_id": "nodea"}
    assert (await router.call("uplink_gossip", message=withdraw))["accepted"]
    assert not (await router.call("uplink_gossip", message=withdraw))["accepted"]
    assert (await router.call("uplink_list"))["offers"] == []
    assert (await router.refusal("uplink_gossip", message={"type": "x"}))[0] == (
        Status.INVALID_ARGUMENT
    )


GONE = {"capabilities": {"available": False}}
GIVEN = {"endpoint": "192.0.2.1", "public_key": KEY_A}


@pytest.mark.parametrize(
    ("peer", "offered", "given", "status", "code"),
    [
        ("stranger", None, {}, Status.NOT_FOUND, "no_offer"),
        ("x", None, {**GIVEN, "endpoint": "h:0"}, Status.INVALID_ARGUMENT, "invalid_argument"),
        ("x", None, GIVEN, Status.PERMISSION_DENIED, "not_trusted"),
        ("stranger", {}, {}, Status.PERMISSION_DENIED, "not_trusted"),
        ("stranger", GONE, {}, Status.PERMISSION_DENIED, "not_trusted"),
        ("nodea", GONE, {}, Status.NOT_SUPPORTED, "not_available"),
    ],
)
async def test_statuses_come_in_their_order(
    router: Router,
    peer: str,
    offered: dict[str, Any] | None,
    given: dict[str, str],
    status: Status,
    code: str,
) -> None:
    """Arguments 2, existence 4, trust 6, ability 8: a caller learns of the first only."""
    if offered is not None:
        await router.call("uplink_gossip", message=offer(peer, **offered))
    assert await router.refusal("uplink_add", peer_id=peer, **given) == (status, code)
    assert router.files() == {"wireguard-uplink": CONFIG, "network": NETWORK}


async def test_status_of_a_watched_uplink(router: Router) -> None:
    router.machine.towards["192.0.2.7"] = LINE
    router.machine.counters["wgup_nodea"] = PeerCounters(KEY_A, "192.0.2.7:51820", 12.0, 5, 6)
    reply = await add(router, "nodea")
    assert (reply["note_code"], reply["note_args"]) == ("needs_wan", [LINE])
    await router.daemon.uplinks.reload()
    status = await router.call("uplink_status")
    assert status["uplink_count"] == 1
    assert status["detection_bound_ms"] > 0
    assert [line["device"] for line in status["wans"]] == [LINE]
    [uplink] = status["uplinks"]
    assert uplink["shared_fate"] is True
    assert uplink["underlay"] == LINE
    assert uplink["usable"] is False
    assert uplink["reason_code"] == "down/device_gone"
    codes = dict(zip(status["problems"], status["problem_codes"], strict=True))
    assert codes[uplink["note"]] == {"code": "needs_wan", "args": [LINE]}
    added = status["events"][-1]
    assert (added["kind"], added["cause_code"]) == ("uplink_added", "asked_for")


async def test_a_change_of_path_is_history_and_an_event(router: Router) -> None:
    await add(router, "nodea")
    service = router.daemon
    over = Change("failover", "wan", "wgup_nodea", "dead", 9.5)
    back = Change("failback", "wgup_nodea", "wan", "alive", 60.0)
    service.events.publish(Moved(Move(over, Family.IPV4, 300), 20))
    service.events.publish(Moved(Move(back, Family.IPV4, -1), 21))
    told = [name for name, _ in router.events[-2:]]
    assert told == ["wireguard-uplink.failover", "wireguard-uplink.failback"]
    home, away = (await router.call("uplink_history", limit=2))["events"]
    assert (away["peer_id"], away["detection_ms"], away["switch_ms"]) == ("nodea", 300, 20)
    assert (home["peer_id"], home["duration_s"]) == ("nodea", 60.0)
    assert away["kind"] in router.state_file.read_text()


async def test_offers_and_history_outlive_a_restart(router: Router) -> None:
    await router.call("uplink_gossip", message=offer("nodea", sequence=3))
    await router.call("uplink_add", peer_id="nodea")
    before = router.files()
    await router.restart()
    assert router.files() == before
    assert [o["peer_id"] for o in (await router.call("uplink_list"))["offers"]] == ["nodea"]
    assert [e["kind"] for e in (await router.call("uplink_history"))["events"]] == ["uplink_added"]
    assert not (await router.call("uplink_gossip", message=offer("nodea", sequence=2)))["accepted"]
    router.assert_consistent()


async def test_disabled_means_no_tunnel_but_nothing_is_lost(router: Router) -> None:
    await add(router, "nodea")
    keys, tunnels = router.machine.keys(), router.machine.tunnels
    text = router.text("wireguard-uplink")
    router.write("wireguard-uplink", text.replace("enabled '1'", "enabled '0'"))
    assert router.daemon.uplinks.changed_outside
    await router.daemon.uplinks.reload()
    assert not router.daemon.uplinks.changed_outside
    assert router.machine.tunnels == {}
    assert router.text("network").rstrip() == NETWORK.rstrip()
    assert (await router.call("uplink_status"))["enabled"] == 0
    router.write("wireguard-uplink", text)
    await router.daemon.uplinks.reload()
    assert (router.machine.keys(), router.machine.tunnels) == (keys, tunnels)


async def test_an_uplink_written_by_hand_is_completed(router: Router) -> None:
    await reload(
        router,
        f"\nconfig uplink 'wgup_hand'\n\toption peer_id 'nodeb'\n\toption public_key '{KEY_B}'\n"
        "\toption endpoint_host '192.0.2.9'\n",
    )
    router.assert_consistent()
    [uplink] = (await router.call("uplink_list"))["uplinks"]
    assert uplink["interface"] == "wgup_hand"
    assert uplink["address"].startswith("10.")


@pytest.mark.parametrize(
    ("age_s", "silent_s", "health", "is_silent"),
    [
        (None, 0.0, Health.UNKNOWN, True),
        (5.0, 5.0, Health.DOWN, False),
        (90000.0, 5.0, Health.UP, False),
        (300.0, 30.0, Health.SUSPECT, False),
        (30.0, 30.0, Health.DOWN, True),
        (300.0, 200.0, Health.UP, True),
    ],
)
async def test_who_is_silent_tries_other_addresses(
    router: Router, age_s: float | None, silent_s: float, health: Health, is_silent: bool
) -> None:
    """By what is heard, and sooner where no probe is answered; never by a clock."""
    await router.call("uplink_add", peer_id="nodea", endpoint="192.0.2.7:1", public_key=KEY_A)
    service = router.daemon
    counted = PeerCounters(KEY_A, "192.0.2.7:1", age_s, 5, 6, silent_s)
    set_network(service.monitor.network, counters={"wgup_nodea": counted})
    found = [p for p in service.monitor.paths.values() if p.device == "wgup_nodea"]
    assert found
    for path in found:
        path.health.state = health
    await service.watch.follow_endpoints()
    assert router.machine.stalled == [["wgup_nodea"] if is_silent else []]


async def test_a_wan_that_is_not_there_is_told_and_the_others_are_watched(router: Router) -> None:
    """A typo never makes a healthy line a dead one."""
    await reload(router, "\tlist wan 'eth99'\n")
    status = await router.call("uplink_status")
    assert [line["device"] for line in status["wans"]] == [LINE]
    assert any('"eth99"' in told and LINE in told for told in status["problems"])
    await reload(router, f"\tlist wan 'eth99'\n\tlist wan '{LINE}'\n")
    assert router.daemon.monitor.watch.settings.lines == ("eth99", LINE)
    await reload(router)
    assert not [told for told in await problems_of(router) if "list wan" in told]


async def test_what_can_not_be_used_is_told(router: Router) -> None:
    router.machine.links.append(Link('q"q', 77))
    await reload(router, "\tlist trusted_peer 'no such!'\n")
    told = "\n".join(await problems_of(router))
    assert 'nftables can\'t be given the name of device "q"q"' in told
    assert "trusted_peer is 'no such!': it must be 1 to 64 letters" in told


async def test_the_owners_name_of_a_wan_is_understood(router: Router) -> None:
    service = router.daemon
    router.machine.interfaces = {"wan_fiber": ""}
    await reload(router, "\tlist wan 'wan_fiber'\n")
    assert service.monitor.watch.settings.lines == ("wan_fiber",), "it is down, and known"
    router.machine.interfaces = {"wan_fiber": LINE}
    await service.watch.follow_wans(afresh=True)
    assert service.monitor.watch.settings.lines == (LINE,)
    status = await router.call("uplink_status")
    assert [line["device"] for line in status["wans"]] == [LINE]
    assert not [told for told in status["problems"] if "list wan" in told]
