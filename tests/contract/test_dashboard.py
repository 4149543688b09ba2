"""Beside the dashboard, with real ubusd, rpcd and uhttpd: its name taken, its methods served by the
same rules as before, everything given back; and the object over JSON-RPC as LuCI calls it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.contract.router import LIBRARY, OBJECT, PLUGIN, PROJECT, SOCKET, WGCTL, Router
from tests.lab.lab import Lab
from tests.lab.node import Child, refused
from tests.lab.overlay import inside
from tests.unit.router import offer

pytestmark = [
    pytest.mark.needs("ubusd", "ubus", "rpcd", "uhttpd"),
    pytest.mark.xdist_group("router"),
]
KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
ENDPOINT = {"host": "192.0.2.7", "port": 51820, "public_key": KEY}
FOREIGN = ("status", "echo", "words", "nothing", "failing", "number", "two", "cut", "unknown")


@pytest.fixture(scope="module")
def possible() -> None:
    if os.geteuid() != 0 or refused():
        pytest.skip(f"no overlay here: {refused() or 'it needs root'}")


@pytest.fixture
def router(possible: None) -> Iterator[Router]:
    with Lab() as lab:
        made = Router(lab)
        made.start_ubusd()
        yield made


def serve(router: Router) -> Child:
    """Start the service, which has the name then."""
    service = router.start_service()
    router.until(lambda: router.owner() == "ours", "the name is taken over")
    return service


def give_back(router: Router) -> None:
    """Stop the service; rpcd has the plugin again."""
    assert router.service is not None and router.service.stop(15.0) == 0
    router.until(lambda: router.owner() == "plugin", "the name is given back")


def hosted(router: Router) -> Child:
    """Boot with the dashboard, then with the service."""
    router.install_dashboard()
    router.start_rpcd()
    router.until(lambda: router.owner() == "plugin", "rpcd publishes the plugin")
    return serve(router)


@pytest.fixture
def web(router: Router) -> Router:
    """A router without the dashboard, and with uhttpd."""
    router.start_rpcd()
    serve(router)
    router.start_uhttpd()
    return router


def test_the_name_is_taken_and_given_back(router: Router) -> None:
    router.install_dashboard()
    router.start_rpcd()
    arguments = {"text": "a", "ubus_rpc_session": "0123", "n": 5}
    before = {name: router.call(name, **arguments) for name in FOREIGN}
    assert before["status"][0] == 0 and before["words"][0] == 2 and before["nothing"][0] == 5
    assert router.call("uplinks") == (0, {"uplinks": "of the plugin"})

    serve(router)
    assert router.mode(PLUGIN) == 0o1755
    assert {name: router.call(name, **arguments) for name in FOREIGN} == before
    assert router.call("uplinks") == (0, {"uplinks": []})
    listed = router.signature()
    assert '"echo":{"text":"String","small":"(unknown)","flag":"Boolean","rows":"Array"}' in listed
    assert '"uplink_list":{}' in listed

    give_back(router)
    assert router.mode(PLUGIN) == 0o755
    assert router.call("uplinks") == (0, {"uplinks": "of the plugin"})
    assert router.read("/run/reloads") == "reload\nreload\n"


def test_a_slow_foreign_call_delays_nothing(router: Router) -> None:
    hosted(router)
    slow = router.node.popen(inside("ubus", "-s", SOCKET, "call", OBJECT, "slow"), stdout=None)
    router.until(lambda: router.call("status")[0] == 0, "another foreign call")
    assert router.call("uplink_status")[0] == 0
    assert slow.returncode is None
    assert slow.wait(20) == 0


def test_it_survives_rpcd_a_reinstall_and_the_bus(router: Router) -> None:
    hosted(router)
    router.run("/etc/init.d/rpcd", "reload")
    router.until(lambda: "session" in router.objects(), "rpcd is back")
    assert router.owner() == "ours"

    router.install_dashboard()  # its run bit is back
    router.run("/etc/init.d/rpcd", "reload")
    router.until(lambda: "session" in router.objects(), "rpcd is back")
    assert router.owner() == "ours"
    assert router.call("status")[1]["name"] == "plugin"
    give_back(router)  # a reinstalled plugin is published again


def test_a_crash_leaves_the_name_takeable_and_the_mark_is_found_again(router: Router) -> None:
    hosted(router).kill()
    router.until(lambda: router.owner() == "", "the bus has noticed")
    assert router.mode(PLUGIN) == 0o1755
    serve(router)
    assert router.call("status")[1]["name"] == "plugin"
    give_back(router)


def test_a_service_that_cannot_start_gives_the_name_back(router: Router) -> None:
    hosted(router).kill()
    os.mkdir(router.outside("/run/lacking"))
    router.write("/run/lacking/sitecustomize.py", "import sys; sys.modules['jsonschema'] = None\n")
    lacking = f"/run/lacking:{PROJECT}"
    assert router.start_service(lacking).wait(20) != 0
    router.until(lambda: router.owner() == "plugin", "the name is given back")
    assert router.mode(PLUGIN) == 0o755
    reloads = router.read("/run/reloads")
    assert router.start_service(lacking).wait(20) != 0
    assert router.read("/run/reloads") == reloads, "the next run leaves rpcd alone"
    assert router.owner() == "plugin"


def test_calls_meanwhile_leave_no_fork_that_hangs(router: Router) -> None:
    """Each is answered, by the plugin or by us; rpcd stays one process, and lets go of the name.

    One at a time: several at once crash rpcd by itself.
    """
    router.install_dashboard()
    router.start_rpcd()
    caller = f"""
while :; do
  ubus -s {SOCKET} -t 5 call {OBJECT} status >/dev/null 2>&1; echo $?
done
"""
    with open(router.lab.path("answers"), "w", encoding="ascii") as file:
        child = router.node.popen(inside("sh", "-c", caller), stdout=file)
        serve(router)
        give_back(router)
        child.kill()
    with open(router.lab.path("answers"), encoding="ascii") as file:
        statuses = file.read().split()
    assert statuses.count("0") > 5
    assert {*statuses} <= {"0", "4", "7"}, "4: nobody has the name for a moment"
    assert statuses.count("7") <= 2, "each reload of rpcd loses what is under way"
    router.until(lambda: len(router.run("pidof", "rpcd", check=False).split()) == 1, "one rpcd")


def test_without_the_dashboard_none_of_this_happens(router: Router) -> None:
    router.start_rpcd()
    service = serve(router)
    assert router.call("status")[0] == 3
    assert service.stop(15.0) == 0
    assert not os.path.exists(router.outside("/run/reloads"))


def test_a_bus_that_restarts_while_the_plugin_can_run(router: Router) -> None:
    router.install_dashboard()
    router.start_rpcd()
    service = serve(router)
    router.install_dashboard()
    service.signal(signal.SIGSTOP)
    try:
        router.bus.stop()
        router.rpcd.kill()
        router.start_ubusd()
        router.start_rpcd()
        router.until(lambda: router.owner() == "plugin", "rpcd was faster")
    finally:
        service.entered.send_signal(signal.SIGCONT)  # nsenter stops with its child
        service.signal(signal.SIGCONT)
    router.until(lambda: router.owner() == "ours", "the name is ours again")


def test_json_rpc_as_luci_sends_it(web: Router) -> None:
    session = web.login("root")
    adding = {"peer_id": "nodeA", "endpoint": "192.0.2.7:51820", "public_key": KEY, "weight": "50"}
    batch = [
        web.web_call(session, "uplink_list", {}),
        web.web_call(session, "uplink_status", {}),
        web.web_call(session, "uplink_add", adding),
        web.web_call(session, "uplinks", {}),
    ]
    listed, status, added, older = (reply["result"] for reply in web.post(batch))
    assert listed == [0, {"offers": [], "uplinks": []}]
    assert status[0] == 0 and status[1]["enabled"] == 1
    assert added[0] == 0 and added[1]["success"] is True and added[1]["weight"] == 50
    row = older[1]["uplinks"][0]
    assert (row["peer_pubkey"], row["priority"]) == (KEY, 51)

    wrong = web.post(web.web_call(session, "uplink_add", {"peer_id": "no body"}))
    assert wrong["result"][0] == 2
    assert wrong["result"][1]["code"] == "invalid_argument"
    assert "peer_id must be" in wrong["result"][1]["error"]
    stranger = web.post(web.web_call(session, "uplink_remove", {"peer_id": "nodeZ"}))
    assert stranger["result"][0] == 4 and "nodeZ" in stranger["result"][1]["error"]
    local = web.post(web.web_call(session, "uplink_gossip", {"message": {}}))
    assert local["error"]["code"] == -32002


@pytest.mark.parametrize("end", ["confirm", "rollback"])
def test_changes_while_a_rollback_is_pending_are_refused(web: Router, end: str) -> None:
    """They would be undone without a word; behind it they are made, and stay."""
    session = web.login("root")

    def uci(method: str, **arguments: object) -> int:
        table = json.dumps({**arguments, "ubus_rpc_session": session})
        return web.ubus("call", "uci", method, table)[0]

    values = {"config": "wireguard-uplink", "section": "uplink", "values": {"hold_time": "20"}}
    assert uci("set", **values) == 0
    assert uci("apply", rollback=True, timeout=60) == 0
    refused = web.post(web.web_call(session, "uplink_set_failover", {"enabled": 0}))
    assert refused["result"][0] == 6
    assert refused["result"][1]["code"] == "rollback_pending"
    assert uci(end) == 0
    changed = web.post(web.web_call(session, "uplink_set_failover", {"enabled": 0}))
    assert changed["result"][0] == 0, changed
    text = web.read("/etc/config/wireguard-uplink")
    assert "auto_failover '0'" in text
    assert ("hold_time '20'" in text) is (end == "confirm")


def test_an_unprivileged_session_is_refused(web: Router) -> None:
    guest = web.login("guest")
    for method in ("uplink_list", "uplink_add", "uplinks", "set_uplink_failover"):
        reply = web.post(web.web_call(guest, method, {}))
        assert reply["error"] == {"code": -32002, "message": "Access denied"}


def test_the_commands_of_both_packages(router: Router) -> None:
    hosted(router)
    aside = router.outside(f"{WGCTL}.dashboard")
    router.until(lambda: os.path.exists(aside) and router.run(WGCTL, "help"), "the links")
    assert router.run(WGCTL, "show", "wg0") == "the dashboard was asked: show wg0\n"
    listed = json.loads(router.run(WGCTL, "--json", "-s", SOCKET, "uplink", "list"))
    assert listed == {"offers": [], "uplinks": []}
    assert json.loads(router.run(WGCTL, "uplink", "list", "--json", "-s", SOCKET))
    router.run("sh", "/usr/libexec/wireguard-uplink/dashboard", "unlink")
    assert router.run(WGCTL, "uplink") == "the dashboard was asked: uplink\n"


def test_the_library_that_scripts_source(router: Router) -> None:
    if shutil.which("jsonfilter") is None:
        pytest.skip("jsonfilter is not on PATH")
    hosted(router)

    def sourced(line: str) -> tuple[str, str, int]:
        bus = f'ubus() {{ command ubus -s {SOCKET} "$@"; }}'
        words = inside("sh", "-u", "-c", f"{bus}; . {LIBRARY}; {line}")
        done = router.node.run(words, timeout_s=40, check=False)
        return done.stdout.strip(), done.stderr.strip(), done.returncode

    router.until(lambda: sourced("p2p_available")[2] == 0, "the links")
    assert sourced("get_peer_uplink_offers")[0] == "[ ]"
    assert sourced("get_peer_uplink_offer nodeA")[2] != 0
    router.call("uplink_gossip", message=offer("nodeA", endpoint=ENDPOINT))
    (listed,) = json.loads(sourced("get_peer_uplink_offers")[0])
    assert (listed["node_id"], listed["wg_pubkey"]) == ("nodeA", KEY)
    assert json.loads(sourced("get_peer_uplink_offer nodeA")[0]) == listed

    assert sourced("create_uplink_interface '' ''")[2] == 1
    told = "peer_pubkey holds a character that it can't have"
    assert sourced("create_uplink_interface 'a\"b' h")[1:] == (told, 1)
    name, told, status = sourced(f"create_uplink_interface {KEY} 192.0.2.7:51820 0.0.0.0/0")
    assert (name, told, status) == ("wgup_nodea", "", 0)
    assert sourced("get_active_uplinks")[0] == name
    stats = json.loads(sourced("get_uplink_stats")[0])
    assert (stats["total"], stats["active"], stats["offering"]) == (1, 1, False)
    assert stats["peer_offers"] == [listed]
    assert sourced("get_local_node_id")[2] == 0 and sourced("get_local_node_id")[0]
    assert sourced("get_next_wg_interface")[0] == "wgup0"
    assert sourced("allocate_uplink_ip wgup0")[0] == "172.31.0.1/24"
    assert sourced(f"test_uplink_connectivity {name}")[::2] == ("FAIL", 1)
    assert sourced(f"measure_uplink_latency {name}")[0].startswith("-1")
    assert sourced(f"remove_uplink_interface {name}; get_active_uplinks")[0] == ""
    assert "no uplink has the interface" in sourced("remove_uplink_interface gone")[1]
    printed, told, status = sourced("advertise_uplink_offer 100 10")
    assert (printed, status) == ("", 1) and "an offer would help nobody" in told
    assert sourced("add_to_mwan3 x 1 1; remove_from_mwan3 x; init_uplink")[1:] == ("", 0)
