"""The use cases over a machine of files: what each method replies, refuses, and tells.

What real tunnels and real packets do is shown by the namespace tests.
"""

from __future__ import annotations

import json

import pytest

from rpcd_wireguard_uplink.errors import Status
from rpcd_wireguard_uplink.failover.machine import Change, Move, Moved
from rpcd_wireguard_uplink.model import Family, Health, PeerCounters
from tests.unit.fakes import key_of, set_network
from tests.unit.house import CONFIG, LINE, NETWORK, House, offer

KEY_A, KEY_B = key_of("provider a"), key_of("provider b")


async def test_a_start_writes_nothing(house: House) -> None:
    assert house.files() == {"wireguard-uplink": CONFIG, "network": NETWORK}
    assert house.events == []
    assert json.loads(house.state_file.read_text())["uplinks"] == []


async def test_an_uplink_from_an_offer(house: House) -> None:
    assert (await house.call("uplink_gossip", message=offer("nodea")))["accepted"]
    reply = await house.call("uplink_add", peer_id="nodea")
    assert reply["created"] is True
    assert reply["interface"] == "wgup_nodea"
    assert reply["endpoint"] == "192.0.2.7:51820"
    assert reply["weight"] == 10
    assert reply["address"].startswith("10.")
    assert reply["address6"].startswith("fd")
    tunnel = house.machine.tunnels["wgup_nodea"]
    assert tunnel.public_key == key_of("key nodea")
    assert tunnel.addresses == (reply["address"], reply["address6"])
    assert reply["public_key"] == key_of(f"public of {tunnel.private_key}")
    house.assert_consistent()
    assert house.text("wireguard-uplink").startswith(CONFIG)
    assert [name for name, _ in house.events] == [
        "wireguard-uplink.offer",
        "wireguard-uplink.uplink",
    ]
    history = await house.call("uplink_history")
    assert [(e["kind"], e["peer_id"]) for e in history["events"]] == [("uplink_added", "nodea")]


async def test_the_state_file_tells_how_each_uplink_does(house: House) -> None:
    await house.call("uplink_add", peer_id="nodea", endpoint="192.0.2.7:1", public_key=KEY_A)
    found = json.loads(house.state_file.read_text())
    assert {"usable", "latency_ms", "handshake_age_s"} <= found["uplinks"][0].keys()
    assert found["offers"] == []


async def test_an_uplink_from_given_values_needs_no_offer(house: House) -> None:
    reply = await house.call(
        "uplink_add",
        peer_id="nodea",
        endpoint="gw.example:1234",
        public_key=KEY_A,
        address="10.9.8.7",
        weight=77,
    )
    assert (reply["endpoint"], reply["weight"]) == ("gw.example:1234", 77)
    assert (reply["address"], reply["address6"]) == ("10.9.8.7/32", "")
    house.assert_consistent()


async def test_adding_what_exists_changes_what_was_given(house: House) -> None:
    await house.call("uplink_gossip", message=offer("nodea"))
    first = await house.call("uplink_add", peer_id="nodea", weight=20)
    again = await house.call("uplink_add", peer_id="nodea")
    assert again == {**first, "created": False, "message": again["message"]}
    before = house.files()
    changed = await house.call("uplink_add", peer_id="nodea", endpoint="198.51.100.1:999")
    assert changed["public_key"] == first["public_key"]
    assert (changed["weight"], changed["endpoint"]) == (20, "198.51.100.1:999")
    assert house.machine.tunnels["wgup_nodea"].endpoint is not None
    assert house.machine.tunnels["wgup_nodea"].endpoint.port == 999
    assert house.files() != before
    house.assert_consistent()
    assert [e["kind"] for e in (await house.call("uplink_history"))["events"]] == [
        "uplink_changed",
        "uplink_added",
    ]


async def test_names_never_clash(house: House) -> None:
    """`wgup_mine` is the owner's, and two peers may have the same first letters."""
    house.write(
        "wireguard-uplink", CONFIG + "\tlist trusted_peer 'mine'\n\tlist trusted_peer 'mi.ne'\n"
    )
    for peer in ("mine", "mi.ne"):
        await house.call("uplink_gossip", message=offer(peer))
    names = {(await house.call("uplink_add", peer_id=p))["interface"] for p in ("mine", "mi.ne")}
    assert len(names) == 2
    assert "wgup_mine" not in names
    house.assert_consistent()


async def test_removing_leaves_everything_as_it_was(house: House) -> None:
    before = house.files()
    await house.call("uplink_gossip", message=offer("nodea"))
    await house.call("uplink_add", peer_id="nodea")
    told = await house.call("uplink_remove", peer_id="nodea")
    assert told["message"].endswith("back, `wgctl uplink add nodea` does.")
    assert "\tlist declined 'nodea'\n" in house.text("wireguard-uplink"), "as min_uplinks must know"
    text = house.text("wireguard-uplink").replace("\tlist declined 'nodea'\n", "")
    assert {**house.files(), "wireguard-uplink": text} == before
    assert house.machine.tunnels == {}
    assert await house.refusal("uplink_remove", peer_id="nodea") == (Status.NOT_FOUND, "no_uplink")
    assert house.events[-1][1]["kind"] == "uplink_removed"


async def test_the_other_uplink_is_not_touched(house: House) -> None:
    for peer in ("nodea", "nodeb"):
        await house.call("uplink_gossip", message=offer(peer))
        await house.call("uplink_add", peer_id=peer)
    before = house.machine.tunnels["wgup_nodeb"]
    await house.call("uplink_remove", peer_id="nodea")
    assert house.machine.tunnels == {"wgup_nodeb": before}
    house.assert_consistent()


async def test_priority(house: House) -> None:
    for peer in ("nodea", "nodeb"):
        await house.call("uplink_gossip", message=offer(peer))
        await house.call("uplink_add", peer_id=peer)
    listed = (await house.call("uplink_list"))["uplinks"]
    assert [u["peer_id"] for u in listed] == ["nodea", "nodeb"]
    assert (await house.call("uplink_set_priority", peer_id="nodeb", weight=90))["weight"] == 90
    listed = (await house.call("uplink_list"))["uplinks"]
    assert [(u["peer_id"], u["weight"]) for u in listed] == [("nodeb", 90), ("nodea", 10)]
    refused = await house.refusal("uplink_set_priority", peer_id="nodec", weight=1)
    assert refused == (Status.NOT_FOUND, "no_uplink")


async def test_failover_on_and_off(house: House) -> None:
    assert (await house.call("uplink_set_failover", enabled=False))["auto_failover"] == 0
    assert (await house.call("uplink_status"))["auto_failover"] == 0
    assert "option auto_failover '0'" in house.text("wireguard-uplink")
    assert (await house.call("uplink_set_failover", enabled=True))["auto_failover"] == 1
    assert (await house.call("uplink_status"))["auto_failover"] == 1


async def test_failover_without_a_configuration_file(house: House) -> None:
    (house.directory / "config" / "wireguard-uplink").unlink()
    await house.call("uplink_set_failover", enabled=False)
    assert "config wireguard-uplink 'uplink'" in house.text("wireguard-uplink")


async def test_list_tells_why_an_offer_cannot_be_used(house: House) -> None:
    await house.call("uplink_gossip", message=offer("nodea"))
    await house.call("uplink_gossip", message=offer("stranger"))
    gone = offer("nodeb", capabilities={"available": False})
    await house.call("uplink_gossip", message=json.dumps(gone))
    await house.call("uplink_add", peer_id="nodea")
    offers = {o["peer_id"]: o for o in (await house.call("uplink_list"))["offers"]}
    assert offers["nodea"]["usable"]
    assert offers["nodea"]["configured"]
    assert not offers["nodeb"]["usable"]
    assert "not available" in offers["nodeb"]["reason"]
    assert (offers["stranger"]["trusted"], offers["stranger"]["usable"]) == (False, False)
    assert "stranger is not trusted" in offers["stranger"]["reason"]


async def test_gossip_keeps_the_order_and_takes_offers_back(house: House) -> None:
    assert (await house.call("uplink_gossip", message=offer("nodea", sequence=7)))["accepted"]
    told = len(house.events)
    assert not (await house.call("uplink_gossip", message=offer("nodea", sequence=6)))["accepted"]
    assert len(house.events) == told, "what changes nothing is not told"
    withdraw = {"type": "uplink_withdraw", "peer_id": "nodea"}
    assert (await house.call("uplink_gossip", message=withdraw))["accepted"]
    assert not (await house.call("uplink_gossip", message=withdraw))["accepted"]
    assert (await house.call("uplink_list"))["offers"] == []
    assert (await house.refusal("uplink_gossip", message={"type": "x"}))[0] == (
        Status.INVALID_ARGUMENT
    )


async def test_statuses_come_in_their_order(house: House) -> None:
    """Arguments 2, existence 4, trust 6, ability 8: a caller learns of the first only."""
    missing = await house.refusal("uplink_add", peer_id="stranger")
    assert missing == (Status.NOT_FOUND, "no_offer")
    bad = await house.refusal("uplink_add", peer_id="x", endpoint="h:0", public_key=KEY_A)
    assert bad[0] is Status.INVALID_ARGUMENT
    await house.call("uplink_gossip", message=offer("stranger"))
    untrusted = await house.refusal("uplink_add", peer_id="stranger")
    assert untrusted == (Status.PERMISSION_DENIED, "not_trusted")
    given = await house.refusal(
        "uplink_add", peer_id="nobody", endpoint="192.0.2.1", public_key=KEY_A
    )
    assert given[0] is Status.PERMISSION_DENIED
    gone = {"available": False}
    await house.call("uplink_gossip", message=offer("stranger", capabilities=gone))
    both = await house.refusal("uplink_add", peer_id="stranger")
    assert both[0] is Status.PERMISSION_DENIED, "trust goes before ability"
    await house.call("uplink_gossip", message=offer("nodea", capabilities=gone))
    unable = await house.refusal("uplink_add", peer_id="nodea")
    assert unable == (Status.NOT_SUPPORTED, "not_available")
    assert house.files() == {"wireguard-uplink": CONFIG, "network": NETWORK}


async def test_status_of_a_watched_uplink(house: House) -> None:
    house.machine.towards["192.0.2.7"] = LINE
    house.machine.counters["wgup_nodea"] = PeerCounters(KEY_A, "192.0.2.7:51820", 12.0, 5, 6)
    await house.call("uplink_gossip", message=offer("nodea"))
    reply = await house.call("uplink_add", peer_id="nodea")
    assert LINE in reply["note"]
    await house.running[-1].reload()
    status = await house.call("uplink_status")
    assert status["uplink_count"] == 1
    assert status["detection_bound_ms"] > 0
    assert [line["device"] for line in status["wans"]] == [LINE]
    [uplink] = status["uplinks"]
    assert uplink["shared_fate"] is True
    assert uplink["underlay"] == LINE
    assert uplink["usable"] is False
    assert uplink["reason"]
    assert uplink["note"] in status["problems"]
    assert [e["kind"] for e in status["events"]][-1] == "uplink_added"


async def test_a_change_of_path_is_history_and_an_event(house: House) -> None:
    await house.call("uplink_gossip", message=offer("nodea"))
    await house.call("uplink_add", peer_id="nodea")
    service = house.running[-1]
    over = Change("failover", "wan", "wgup_nodea", "dead", 9.5)
    back = Change("failback", "wgup_nodea", "wan", "alive", 60.0)
    service.events.publish(Moved(Move(over, Family.IPV4, 300), 20))
    service.events.publish(Moved(Move(back, Family.IPV4, -1), 21))
    assert [name for name, _ in house.events[-2:]] == [
        "wireguard-uplink.failover",
        "wireguard-uplink.failback",
    ]
    home, away = (await house.call("uplink_history", limit=2))["events"]
    assert (away["peer_id"], away["detection_ms"], away["switch_ms"]) == ("nodea", 300, 20)
    assert (home["peer_id"], home["duration_s"]) == ("nodea", 60.0)
    assert away["kind"] in house.state_file.read_text()


async def test_offers_and_history_outlive_a_restart(house: House) -> None:
    await house.call("uplink_gossip", message=offer("nodea", sequence=3))
    await house.call("uplink_add", peer_id="nodea")
    before = house.files()
    await house.restart()
    assert house.files() == before
    assert [o["peer_id"] for o in (await house.call("uplink_list"))["offers"]] == ["nodea"]
    assert [e["kind"] for e in (await house.call("uplink_history"))["events"]] == ["uplink_added"]
    assert not (await house.call("uplink_gossip", message=offer("nodea", sequence=2)))["accepted"]
    house.assert_consistent()


async def test_disabled_means_no_tunnel_but_nothing_is_lost(house: House) -> None:
    await house.call("uplink_gossip", message=offer("nodea"))
    await house.call("uplink_add", peer_id="nodea")
    keys, tunnels = house.machine.keys(), house.machine.tunnels
    text = house.text("wireguard-uplink")
    house.write("wireguard-uplink", text.replace("enabled '1'", "enabled '0'"))
    assert house.running[-1].config_changed()
    await house.running[-1].reload()
    assert not house.running[-1].config_changed()
    assert house.machine.tunnels == {}
    assert house.text("network").rstrip() == NETWORK.rstrip()
    assert (await house.call("uplink_status"))["enabled"] == 0
    house.write("wireguard-uplink", text)
    await house.running[-1].reload()
    assert (house.machine.keys(), house.machine.tunnels) == (keys, tunnels)


async def test_an_uplink_written_by_hand_is_completed(house: House) -> None:
    house.write(
        "wireguard-uplink",
        CONFIG
        + f"\nconfig uplink 'wgup_hand'\n\toption peer_id 'nodeb'\n\toption public_key '{KEY_B}'\n"
        "\toption endpoint_host '192.0.2.9'\n",
    )
    await house.running[-1].reload()
    house.assert_consistent()
    [uplink] = (await house.call("uplink_list"))["uplinks"]
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
    house: House, age_s: float | None, silent_s: float, health: Health, is_silent: bool
) -> None:
    """By what is heard, and sooner where no probe is answered; never by a clock."""
    await house.call("uplink_add", peer_id="nodea", endpoint="192.0.2.7:1", public_key=KEY_A)
    service = house.running[-1]
    counted = PeerCounters(KEY_A, "192.0.2.7:1", age_s, 5, 6, silent_s)
    set_network(service.monitor.network, counters={"wgup_nodea": counted})
    found = [p for p in service.monitor.paths.values() if p.device == "wgup_nodea"]
    assert found
    for path in found:
        path.health.state = health
    await service.follow_names()
    assert house.machine.stalled == [["wgup_nodea"] if is_silent else []]


async def test_a_wan_that_is_not_there_is_told_and_the_others_are_watched(house: House) -> None:
    """A typo never makes a healthy line a dead one."""
    service = house.running[-1]
    house.write("wireguard-uplink", CONFIG + "\tlist wan 'eth99'\n")
    await service.reload()
    status = await house.call("uplink_status")
    assert [line["device"] for line in status["wans"]] == [LINE]
    assert any('"eth99"' in told and LINE in told for told in status["problems"])
    house.write("wireguard-uplink", CONFIG + f"\tlist wan 'eth99'\n\tlist wan '{LINE}'\n")
    await service.reload()
    assert service.monitor.watch.settings.lines == ("eth99", LINE)
    house.write("wireguard-uplink", CONFIG)
    await service.reload()
    assert not [t for t in (await house.call("uplink_status"))["problems"] if "list wan" in t]


async def test_the_owners_name_of_a_wan_is_understood(house: House) -> None:
    service = house.running[-1]
    house.machine.interfaces = {"wan_fiber": ""}
    house.write("wireguard-uplink", CONFIG + "\tlist wan 'wan_fiber'\n")
    await service.reload()
    assert service.monitor.watch.settings.lines == ("wan_fiber",), "it is down, and known"
    house.machine.interfaces = {"wan_fiber": LINE}
    await service.follow_wans(afresh=True)
    assert service.monitor.watch.settings.lines == (LINE,)
    status = await house.call("uplink_status")
    assert [line["device"] for line in status["wans"]] == [LINE]
    assert not [told for told in status["problems"] if "list wan" in told]


async def test_an_id_that_nobody_can_have_is_told(house: House) -> None:
    house.write("wireguard-uplink", CONFIG + "\tlist trusted_peer 'no such!'\n")
    await house.running[-1].reload()
    problems = (await house.call("uplink_status"))["problems"]
    [told] = [problem for problem in problems if "trusted_peer" in problem]
    assert "trusted_peer is 'no such!': it must be 1 to 64 letters" in told
