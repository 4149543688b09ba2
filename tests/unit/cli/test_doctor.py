"""The preflight: its judgement as a table, its readers against files and a bus, its command."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT
from rpcd_wireguard_uplink.carrying.forwarding import Blockage
from rpcd_wireguard_uplink.cli import doctor, main
from rpcd_wireguard_uplink.cli.check import CheckMethod
from rpcd_wireguard_uplink.cli.doctor import CHECKS, Facts, Level, Places, examine, reading
from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.extras.standalone.broker import Broker
from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.ubus import BusObject, Call, Reply
from rpcd_wireguard_uplink.ubus.client import Client
from rpcd_wireguard_uplink.uci import Section, parse
from tests.unit.fakes import key_of, replace_commands

MWAN3 = """
config globals 'globals'
config interface 'wan'
	option enabled '1'
config interface 'wan6'
	option enabled '1'
	option family 'ipv6'
config interface 'lte'
	option enabled '1'
config interface 'unused'
"""
NETWORK = """
config interface 'lan'
config interface 'wan'
	option metric '10'
config interface 'wan6'
	option metric '10'
config interface 'lte'
	option metric '20'
config interface 'unused'
"""
FIREWALL = """
config defaults
	option flow_offloading '1'
config zone
	option name 'home'
	list network 'lan'
config zone
	option name 'wan'
	option masq '1'
	list network 'wan'
	option device 'wwan0 usb0'
config forwarding
	option src 'lan'
	option dest 'wan'
config forwarding
	option src 'lan'
	option dest 'guest'
	option enabled '0'
config zone
	option name 'guest'
	option network 'lte visitors'
"""


def sections(text: str) -> tuple[Section, ...]:
    return tuple(parse(text, file="test").sections)


def healthy(**changed: Any) -> Facts:
    """A router where all is well; `changed` replaces facts, texts in `configs` single files."""
    texts: Mapping[str, str] = {"mwan3": MWAN3, "network": NETWORK, "firewall": FIREWALL}
    texts = {**texts, "wireguard-uplink": "", **changed.pop("configs", {})}
    facts = Facts(
        openwrt=True,
        installer="opkg install",
        now_s=2e9,
        built_s=1e9,
        configs={name: sections(text) for name, text in texts.items()},
        wans={"wan": "eth1", "mobile": "wwan0"},
        routes=(DefaultRoute(Family.IPV4, "eth1"),),
    )
    return replace(facts, **changed)


def uplink_section(*lines: str) -> dict[str, str]:
    return {"wireguard-uplink": "\n\t".join(("config wireguard-uplink 'uplink'", *lines)) + "\n"}


BAD_UPLINK = uplink_section("option check_interval 'often'")
UNKNOWN = uplink_section("option colour 'blue'")
NO_SUCH_WAN = uplink_section("list wan 'eth99'", "list wan 'eth1'")
HARDWARE = {"firewall": FIREWALL.replace("flow_offloading", "flow_offloading_hw")}
NO_METRIC = NETWORK.replace("\toption metric '20'\n", "")
SAME_METRIC = NETWORK.replace("'20'", "'10'")
NO_GLOBALS = MWAN3.replace("config globals 'globals'\n", "")
NO_ZONE = FIREWALL.replace("list network 'wan'", "list network 'other'")
NO_WAN_ZONE = NO_ZONE.replace("'wan'\n", "'out'\n").replace("\toption masq '1'\n", "")
NO_FORWARDING = FIREWALL.replace("\toption dest 'wan'\n", "\toption dest 'vpn'\n")

ALLOW = "ufw route allow in on lan out on wgup_a"
BLOCKED = Blockage(
    tuple(Family), ("lan",), ("wgup_a",), "ufw drops it", ALLOW, True, ("ip", "filter")
)

CASES = [
    # what is changed, check, level, words of the sentence, words of the command
    ({"missing": frozenset({"nft"})}, "programs", "wrong", "nft is", "install nftables-json"),
    ({"missing": frozenset({"wg"})}, "programs", "wrong", "wg is", "install wireguard-tools"),
    ({"missing": frozenset({"conntrack"})}, "programs", "wrong", "conntrack", "install conntrack"),
    ({"wireguard": ""}, "kernel", "wrong", "no WireGuard", "install kmod-wireguard"),
    ({"wireguard": "wireguard-go"}, "kernel", "note", "slower", ""),
    ({"table_error": "No such file"}, "kernel", "wrong", "No such file", "kmod-nft-fib"),
    ({"raw_sockets": False}, "kernel", "wrong", "raw sockets", ""),
    ({"now_s": 1e8}, "clock", "wrong", "clock", "ntpd"),
    ({"strict_filter": True}, "rp_filter", "wrong", "rp_filter is 1", "=0 >>/etc/sysctl.conf"),
    ({"strict_filter": True, "openwrt": False}, "rp_filter", "wrong", "is 1", ".d/90-router.conf"),
    ({"holder": "other"}, "name", "wrong", "another program", "restart"),
    ({"holder": "nobody"}, "name", "note", "Nothing was sent over the WANs", "restart"),
    ({"holder": "no bus"}, "name", "note", "no bus", ""),
    ({"holder": "no bus", "openwrt": False}, "name", "note", "service is not running", "restart"),
    ({"read_only": {"/etc/config": "/etc"}}, "files", "wrong", "/etc/config is", "remount,rw /etc"),
    ({"dead_wans": ("eth1",)}, "lines", "wrong", "WAN eth1", ""),
    ({"problems": ("the table is gone",)}, "service", "wrong", "the table is gone", ""),
    ({"notes": ("a: travels over wan",)}, "service", "note", "over wan", ""),
    ({"unreadable": {"network": "x is no UCI"}}, "configuration", "wrong", "no UCI", "vi "),
    ({"configs": BAD_UPLINK}, "configuration", "wrong", "often", "set check_interval"),
    ({"configs": UNKNOWN}, "configuration", "note", "colour", "reload"),
    ({"exposed": ("/k/a.key",)}, "keys", "wrong", "/k/a.key", "chmod go= /k/a.key"),
    ({"configs": {"mwan3": NO_GLOBALS}}, "mwan3", "wrong", "globals", "mwan3.globals=globals"),
    ({"configs": {"network": NO_METRIC}}, "mwan3", "wrong", "network.lte", "network.lte.metric=40"),
    ({"configs": {"network": SAME_METRIC}}, "mwan3", "wrong", "same metric", "lte.metric=40"),
    ({"configs": {"firewall": NO_ZONE}}, "firewall", "wrong", "wan (eth1)", "@zone[1].network=wan"),
    ({"configs": {"firewall": NO_WAN_ZONE}}, "firewall", "wrong", "wan (eth1)", ""),
    ({"configs": {"firewall": NO_FORWARDING}}, "firewall", "wrong", "zone wan", ".src=home"),
    ({"wans": {"lte": "ppp0"}}, "firewall", "wrong", "zone guest", ".dest=guest"),
    ({"configs": HARDWARE}, "offloading", "note", "Hardware", "flow_offloading_hw=0"),
    ({"blockages": (BLOCKED,)}, "forwarding", "wrong", "ufw drops", "ufw route allow"),
    ({"routes": ()}, "lines", "note", "default route", ""),
]


@pytest.mark.parametrize(
    ("changed", "check", "level", "words", "mend"), CASES, ids=[f"{c[1]}-{c[3]}" for c in CASES]
)
def test_each_fault_is_found(
    changed: dict[str, Any], check: str, level: str, words: str, mend: str
) -> None:
    found = examine(healthy(**changed))
    assert {finding.check for finding in found} == {check}
    assert {finding.level for finding in found} == {Level(level)}
    assert any(words in finding.what for finding in found)
    assert any(mend in finding.mend and bool(mend) == bool(finding.mend) for finding in found)
    for finding in found:
        assert finding.what.endswith(".") or check == "service"
        shlex.split(finding.mend)


def test_every_check_has_a_case() -> None:
    heard = {f"check_{case[1]}" for case in CASES}
    # These two say what they look at, their findings have older ids.
    renamed = {"check_reverse_path": "check_rp_filter", "check_wans": "check_lines"}
    named = {renamed.get(check.__name__, check.__name__) for check in CHECKS}
    assert named == heard | {"check_provider"}


def test_a_wan_that_is_not_there_is_told_where_no_service_does() -> None:
    facts = healthy(configs=NO_SUCH_WAN, devices=("eth1",))
    assert examine(facts) == []
    found = [f for f in examine(replace(facts, holder="nobody")) if f.check == "configuration"]
    assert [finding.level for finding in found] == [Level.WRONG]
    assert found[0].what == (
        'list wan names "eth99", which this router does not have (there are eth1): the others are '
        "watched."
    )


def test_names_of_zones_are_no_commands() -> None:
    """Who may name a zone in LuCI may not have root run what he likes."""
    zones = "config zone\n\toption name 'a;reboot'\n\tlist network 'lan'\n"
    zones += "config zone\n\toption name '$(reboot)'\n\tlist network 'wan'\n"
    found = examine(healthy(configs={"firewall": zones}, wans={"wan": "eth1"}))
    [mend] = [f.mend for f in found if f.check == "firewall"]
    set_to = [word.partition("=")[2] for word in shlex.split(mend) if "=" in word]
    assert set_to == ["a;reboot", "$(reboot)"]


def test_a_provider_that_forwards_nothing_is_told() -> None:
    provider = {"wireguard-uplink": "config provider 'local'\n\toption enabled '1'\n"}
    told = {"unforwarded": ("it forwards nothing", "sysctl -w x=1"), "holder": "nobody"}
    assert not [f for f in examine(healthy(**told)) if f.check == "provider"]
    [found] = [f for f in examine(healthy(configs=provider, **told)) if f.check == "provider"]
    assert (found.what, found.mend) == ("It forwards nothing.", "sysctl -w x=1")


def test_a_router_with_a_lan_that_forwards_nothing_is_told_once() -> None:
    told = healthy(unforwarded=("it forwards nothing", "sysctl -w x=1"))
    assert examine(told) == []
    told = replace(told, problems=("it forwards nothing: `sysctl -w x=1`, and keep it",))
    [found] = examine(replace(told, lans=("lan",)))
    assert (found.level, found.mend) == (Level.WRONG, "sysctl -w x=1")


# As they are after an add beside mwan3: netifd has two names for the tunnel.
OURS = "".join(f"config interface '{n}'\n\toption enabled '1'\n" for n in ("wgup_a", "wgup6a"))
OUR_DEVICES = {"wan": "eth1", "wgup_a": "wgup_a", "wgup6a": "wgup_a"}
UNTRACKED = MWAN3.replace("enabled '1'", "enabled '0'").replace("config globals", "config x") + OURS
ETH0 = (DefaultRoute(Family.IPV4, "eth0"),)
NO_NFT = frozenset({"nft"})
TELLS_OF_NFT = ("can't run nft: No such file or directory; is it installed?", "can't run tc: x")
WHOLE: dict[str, tuple[Facts, list[tuple[str, str]]]] = {
    "all is well": (healthy(), []),
    "elsewhere all is well": (Facts(routes=ETH0), []),
    "our own interfaces are no WANs of the owner": (
        healthy(configs={"mwan3": MWAN3 + OURS, "network": NETWORK + OURS}, wans=OUR_DEVICES),
        [],
    ),
    "mwan3 tracks none of the owner's": (healthy(configs={"mwan3": UNTRACKED}), []),
    "without mwan3": (healthy(configs={"mwan3": "", "network": NO_METRIC}), []),
    "without a known package manager no command is given": (
        Facts(installer="", missing=NO_NFT, routes=ETH0),
        [("programs", "")],
    ),
    "elsewhere the packages have other names": (
        Facts(missing=frozenset({"ip", "nft"}), routes=ETH0),
        [("programs", "apt-get install iproute2"), ("programs", "apt-get install nftables")],
    ),
    "a missing program is told once": (
        healthy(missing=NO_NFT, problems=TELLS_OF_NFT),
        [("programs", "opkg install nftables-json"), ("service", "")],
    ),
    "what the service tells of the firewall keeps its command": (
        healthy(blockages=(BLOCKED,), problems=(BLOCKED.sentence,)),
        [("forwarding", ALLOW)],
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_all_that_is_told(name: str) -> None:
    facts, found = WHOLE[name]
    assert [(finding.check, finding.mend) for finding in examine(facts)] == found


def test_the_same_is_not_said_twice() -> None:
    [told] = examine(healthy(configs=BAD_UPLINK))
    assert len(examine(healthy(configs=BAD_UPLINK, problems=(told.what.rstrip("."),)))) == 1


def test_without_a_firewall_nothing_is_said_of_it() -> None:
    configs = {name: healthy().configs[name] for name in ("network", "wireguard-uplink")}
    assert examine(replace(healthy(), configs=configs)) == []


# --- readers


async def test_the_holder_of_the_name(tmp_path: Path) -> None:
    socket = str(tmp_path / "ubus.sock")
    assert (await reading.read_bus(socket))[0] == "no bus"
    broker = Broker(socket)
    await broker.start()
    client = Client(socket)
    try:
        assert (await reading.read_bus(socket))[0] == "nobody"
        await client.connect()
        await client.publish(BusObject(OBJECT, {"uplink_status": {}}, lambda call: Reply({})))
        assert (await reading.read_bus(socket))[0] == "other"
        await client.withdraw(OBJECT)

        def answer(call: Call) -> Reply:
            uplinks = [{"peer_id": "a", "note": "over wan"}, {"peer_id": "b", "note": ""}]
            peers = [
                {"peer_id": "", "mesh_key": "abcdefghij", "reason": "no handshake"},
                {"peer_id": "c", "mesh_key": "k", "reason": "c is not trusted"},
                {"peer_id": "d", "mesh_key": "k", "reason": ""},
                {"peer_id": "e", "mesh_key": "k", "reason": "is it on?"},
            ]
            wans = [{"device": "eth1", "state": "down"}, {"device": "eth2", "state": "up"}]
            return Reply({"problems": ["p"], "uplinks": uplinks, "peers": peers, "wans": wans})

        await client.publish(BusObject(OBJECT, {name: {} for name in METHODS}, answer))
        rows = [{"interface": "wan", "l3_device": "eth1"}, {"interface": "down"}]
        netifd = BusObject("network.interface", {"dump": {}}, lambda _: Reply({"interface": rows}))
        await client.publish(netifd)
        holder, problems, notes, dump, dead = await reading.read_bus(socket)
        assert (holder, problems, dead) == ("service", ("p",), ("eth1",))
        told = ("Mesh peer abcdefgh: no handshake.", "c is not trusted.", "e: is it on?")
        assert notes == ("a: over wan", *told)
        assert [each["interface"] for each in dump["interface"]] == ["wan", "down"]
    finally:
        await client.close()
        await broker.close()


async def test_mesh_peers_without_a_service(mocker: MockerFixture) -> None:
    commands = replace_commands(mocker)
    key = key_of("a")
    commands.answers["wg show all dump"] = (
        f"wg0\t{key}\t{key}\t1\toff\nwg0\t{key}\t(none)\t(none)\t10.9.0.0/24\t0\t0\t0\toff\n"
    )
    [told] = await reading.read_peers(())
    assert told.startswith(f"Peer {key[:8]} of wg0 has only networks")
    commands.answers["wg show all dump"] = CommandFailed("wg is missing")
    assert await reading.read_peers(()) == ()


def test_configurations(tmp_path: Path) -> None:
    (tmp_path / "network").write_text(NETWORK)
    (tmp_path / "firewall").write_text("config 'unclosed\n")
    configs, unreadable = reading.read_configs(str(tmp_path))
    assert set(configs) == {"network"} and set(unreadable) == {"firewall"}
    assert configs["network"][1].name == "wan"


def test_folders_that_are_read_only(tmp_path: Path, mocker: MockerFixture) -> None:
    keys = tmp_path / "etc" / "keys"
    assert reading.read_read_only(str(tmp_path), str(keys)) == {}
    mocker.patch.object(os, "statvfs", return_value=mocker.Mock(f_flag=os.ST_RDONLY))
    mounts = f"a / ext4 rw\na {tmp_path} ext4 ro\na {tmp_path}/etc2 ext4 ro\n"
    mocker.patch.object(reading, "read_lenient", return_value=mounts)
    (tmp_path / "etc").mkdir()
    found = reading.read_read_only(str(keys), str(tmp_path))
    assert found == {str(tmp_path / "etc"): str(tmp_path)}


def test_exposed_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert list(reading.read_exposed(str(keys))) == []
    keys.mkdir(mode=0o700)
    for name, mode in (("a.key", 0o600), ("b.key", 0o640)):
        (keys / name).touch()
        (keys / name).chmod(mode)
    assert list(reading.read_exposed(str(keys))) == [str(keys / "b.key")]
    keys.chmod(0o750)
    assert str(keys) in list(reading.read_exposed(str(keys)))


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("lib/modules/6.6/wireguard.ko", "", "kernel"),
        ("lib/modules/6.6/kernel/drivers/net/wireguard/wireguard.ko.xz", "", "kernel"),
        ("lib/modules/6.6/modules.builtin", "kernel/net/wireguard/wireguard.ko\n", "kernel"),
        ("sys/module/wireguard/version", "", "kernel"),
        ("lib/modules/6.5/wireguard.ko", "", ""),
        ("wireguard-go", "#!/bin/sh\n", "wireguard-go"),
    ],
)
def test_where_wireguard_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, found: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    assert reading.find_wireguard("6.6", str(tmp_path)) == found


# --- the command


@pytest.mark.needs("ip", "nft")
async def test_it_runs_here_without_a_service(tmp_path: Path) -> None:
    (tmp_path / "wireguard-uplink").write_text(BAD_UPLINK["wireguard-uplink"])
    places = Places(str(tmp_path), str(tmp_path / "keys"), str(tmp_path / "no.sock"))
    facts = await reading.read_facts(places)
    assert facts.holder == "no bus"
    assert facts.now_s > facts.built_s > 0
    assert facts.raw_sockets == (os.geteuid() == 0)
    if os.geteuid() == 0:
        assert facts.table_error == ""
    assert "often" in " ".join(finding.what for finding in examine(facts))


async def test_many_who_ask_the_service_at_once_share_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    async def read(places: Places) -> Facts:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return healthy()

    monkeypatch.setattr(doctor, "read_facts", read)
    check = CheckMethod("", "", "")
    await asyncio.gather(*(check.uplink_check() for _ in range(100)))
    assert looks == 2


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Facts]:
    """What the readers find; `places` is where they were told to look."""
    holder: dict[str, Any] = {}

    async def read(places: Places) -> Facts:
        holder["places"] = places
        return holder["facts"]

    monkeypatch.setattr(doctor, "read_facts", read)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return holder


@pytest.mark.parametrize(
    ("changed", "status", "first"),
    [
        ({}, 0, f"Nothing is wrong: {len(CHECKS)} checks."),
        ({"holder": "nobody"}, 0, "note: The service is not running."),
        ({"holder": "nobody", "now_s": 1.0}, 1, "wrong: The clock is older"),
    ],
)
def test_wgctl_uplink_doctor(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str], changed: Any, status: int, first: str
) -> None:
    found["facts"] = healthy(**changed)
    assert main.main(["uplink", "doctor", "--socket", "/x.sock"]) == status
    assert found["places"] == Places(socket="/x.sock")
    assert capsys.readouterr().out.startswith(first)
    assert main.main(["uplink", "doctor", "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["success"] is (status == 0)
    names = {"check", "level", "what", "what_code", "what_args", "mend"}
    assert [set(row) for row in told["findings"]] == [names] * len(examine(found["facts"]))


def test_whoever_is_not_root_is_told_that_alone(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main.main(["uplink", "doctor"]) == 1 and not found
    told = "wrong: Only root can look at all of it.\n    sudo wgctl uplink doctor\n"
    assert capsys.readouterr().out == told


def test_what_others_wrote_can_not_move_the_cursor(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["facts"] = healthy(problems=("\x1b[2Jevil",))
    assert main.main(["uplink", "doctor"]) == 1
    assert "\x1b" not in capsys.readouterr().out
