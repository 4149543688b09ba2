"""Steering under trouble, with real packets in both families: the dead-man switch, reverse path
filtering, nothing left to go by, draining across failovers, tables that follow main.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.lab.altered_service import RestingService
from tests.lab.guest import SUBNET4, SUBNET6, TABLE, guest_network
from tests.lab.lab import Lab
from tests.lab.meter import Flows, Meter, longest, settled, sources
from tests.lab.network import ECHO4, ECHO6, ConsumerNetwork, consumer_network
from tests.lab.node import LabError, Node
from tests.lab.pool import added
from tests.lab.provider import make_provider, make_providers
from tests.lab.reach import answered, asking, reached, until
from tests.lab.router import Router, settings
from tests.lab.troubles import count, counted
from tests.namespace.conftest import lent

pytestmark = pytest.mark.needs("conntrack")

ENDS_S = 5.0  # the longest that a diversion outlives its service
FILTERS = ("all", "default", "wan", "lan")


# What the dead-man switch has in force.


def diverting(node: Node) -> int:
    """How many rules of diversions are there."""
    return node.sh("ip -4 rule; ip -6 rule").count("proto 152")


def leftovers(node: Node) -> list[str]:
    """Rules and routes of ours, whichever."""
    shown = node.sh("for f in -4 -6; do ip $f rule; ip $f route show table all; done")
    tables = {str(number) for number in range(5179, 5264)}
    return [
        line
        for line in shown.splitlines()
        if "proto 151" in line
        or "proto 152" in line
        or tables & set(line.partition(" table ")[2].split()[:1])
    ]


def filters(node: Node) -> str:
    """The reverse path filters of the devices that matter."""
    return node.sh("\n".join(f"cat /proc/sys/net/ipv4/conf/{n}/rp_filter" for n in FILTERS))


def watchdogs(node: Node) -> list[int]:
    """The pids, as this machine sees them, of the watchdogs that live in the node."""
    home = os.readlink(f"/proc/{node.pid}/ns/pid")
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/ns/pid") != home:
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if b"watchdog.sh" in file.read():
                    found.append(int(entry))
    return found


def with_strict_filter(lab: Lab) -> Router:
    """A router with one uplink that filters reverse paths strictly."""
    network = consumer_network(lab)
    network.consumer.sysctl("net/ipv4/conf/wan/rp_filter", 1)
    router = Router.build(network, make_providers(network), settings())
    router.start()
    return router


router = lent(with_strict_filter)


@pytest.fixture
def flows(router: Router) -> Iterator[Flows]:
    with Flows(router.network.host) as made:
        yield made


def divert(router: Router, flows: Flows) -> None:
    """Have the WAN die; returns when traffic uses the uplink, and a watchdog watches over it."""
    cut = router.network.wan.drop()
    flows.by(router.network.by_uplink, since=cut)
    router.wait_failed_over()
    until(lambda: watchdogs(router.network.consumer), lambda found: len(found) == 1, 3.0)
    time.sleep(1.5)
    assert len(watchdogs(router.network.consumer)) == 1


def ended(router: Router, flows: Flows, since: float) -> None:
    """The diversion has ended in time after the service fell silent, and nothing is left of it."""
    node = router.network.consumer
    router.network.wan.restore()
    assert flows.by(router.network.by_wan, since=since) - since < ENDS_S
    until(lambda: leftovers(node), lambda found: not found, 1.0)
    until(lambda: watchdogs(node), lambda found: not found, 1.0)


# 1. The dead-man switch.


def test_killed_service_leaves_nothing_of_a_diversion(router: Router, flows: Flows) -> None:
    node = router.network.consumer
    before = filters(node)
    divert(router, flows)
    assert filters(node) != before, "probes by the dead WAN need a loose filter"
    killed = time.monotonic()
    router.service.kill()
    ended(router, flows, killed)
    assert filters(node) == before
    time.sleep(1.0)
    assert not leftovers(node)
    router.service.start()
    router.wait_primary()
    assert filters(node) == before


def test_hung_service_diverts_again_when_it_goes_on(router: Router, flows: Flows) -> None:
    node = router.network.consumer
    before = filters(node)
    divert(router, flows)
    with router.service.hung() as begun:
        until(lambda: diverting(node), lambda rules: rules == 0, ENDS_S)
        assert time.monotonic() - begun < ENDS_S
        until(lambda: filters(node), lambda found: found == before, 1.0)
        time.sleep(max(0.0, begun + 15.0 - time.monotonic()))
        went_on = time.monotonic()
    assert flows.by(router.network.by_uplink, since=went_on) - went_on < 2.0
    time.sleep(2.0)
    assert len(watchdogs(node)) == 1
    assert flows.longest_s(went_on + 2.0) < 0.3
    restored = router.network.wan.restore()
    router.wait_primary()
    flows.by(router.network.by_wan, since=restored)
    assert filters(node) == before


def test_whole_process_group_is_killed(router: Router, flows: Flows) -> None:
    divert(router, flows)
    killed = time.monotonic()
    os.killpg(os.getpgid(router.service.pid), signal.SIGKILL)
    ended(router, flows, killed)


CGROUPS = """
mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd
mkdir /sys/fs/cgroup/systemd/{name}
"""


def killed_in(procs: str) -> list[str]:
    """Kill every process of the control group; those that there were."""
    with open(procs, encoding="ascii") as file:
        pids = file.read().split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return pids


def test_whole_control_group_is_killed(network: ConsumerNetwork) -> None:
    """As systemd does by default (KillMode=control-group)."""
    node = network.consumer
    group = f"wgup-test-{os.getpid()}"
    try:
        node.sh(CGROUPS.format(name=group))
    except LabError as error:
        pytest.skip(f"control groups can't be made here: {error}")
    procs = f"/sys/fs/cgroup/systemd/{group}/cgroup.procs"
    made = Router.build(network, [make_provider(network.lab, network.providers[0])], settings())
    made.service.start(wait=False)
    try:
        with open(f"/proc/{node.pid}/root{procs}", "w", encoding="ascii") as file:
            file.write(str(made.service.pid))
        made.wait_primary()
        with Flows(network.host) as flows:
            divert(made, flows)
            killed = time.monotonic()
            until(lambda: killed_in(f"/proc/{node.pid}/root{procs}"), lambda pids: not pids, 1.0)
            ended(made, flows, killed)
    finally:
        made.service.kill()
        node.sh(f"rmdir /sys/fs/cgroup/systemd/{group}")


def test_restart_in_time_has_no_gap(router: Router, flows: Flows) -> None:
    divert(router, flows)
    killed = time.monotonic()
    router.service.kill()
    time.sleep(1.5)
    router.service.start()
    router.wait_failed_over()
    time.sleep(ENDS_S + 1.0)
    assert flows.longest_s(killed) < 0.3
    assert len(watchdogs(router.network.consumer)) == 1
    restored = router.network.wan.restore()
    router.wait_primary()
    flows.by(router.network.by_wan, since=restored)


def test_restart_that_comes_late_diverts_anew(router: Router, flows: Flows) -> None:
    node = router.network.consumer
    before = filters(node)
    divert(router, flows)
    router.service.kill()
    time.sleep(8.0)
    assert not leftovers(node) and not watchdogs(node)
    assert filters(node) == before
    router.service.start()
    router.wait_failed_over()
    flows.by(router.network.by_uplink, since=time.monotonic())
    restored = router.network.wan.restore()
    router.wait_primary()
    flows.by(router.network.by_wan, since=restored)
    until(lambda: filters(node), lambda found: found == before, 2.0)


def test_killed_watchdog_is_replaced(router: Router, flows: Flows) -> None:
    node = router.network.consumer
    divert(router, flows)
    begun = time.monotonic()
    for _ in range(2):
        (pid,) = watchdogs(node)
        os.kill(pid, signal.SIGKILL)
        until(lambda: watchdogs(node), lambda found, old=pid: found and old not in found, 2.0)
    time.sleep(ENDS_S)
    assert len(watchdogs(node)) == 1
    assert flows.longest_s(begun) < 0.3
    killed = time.monotonic()
    router.service.kill()
    ended(router, flows, killed)


def test_failback_ends_the_watchdog(router: Router, flows: Flows) -> None:
    """A service that dies later, while nothing is diverted, leaves no process behind."""
    node = router.network.consumer
    divert(router, flows)
    router.network.wan.restore()
    router.wait_primary()
    until(lambda: watchdogs(node), lambda found: not found, 2.5)
    until(lambda: children(router.service.pid), lambda found: "Z" not in found, 2.5)


def children(pid: int) -> list[str]:
    """The states of a process's children: Z is one that nobody has waited for."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="ascii") as file:
            words = file.read().rpartition(")")[2].split()
            found += [words[0]] if words[1] == str(pid) else []
    return found


def with_only(network: ConsumerNetwork, *hidden: str) -> Router:
    """A consumer where these programs aren't there."""
    node = network.consumer
    for path in hidden:
        node.sh(
            f"echo >/run/none; for p in /bin/{path} /usr/bin/{path}; do "
            "[ -e $p ] && mount --bind /run/none $p; done; true"
        )
    made = Router.build(network, [make_provider(network.lab, network.providers[0])], settings())
    made.start()
    return made


@pytest.mark.needs("busybox")
def test_busybox_is_shell_enough(network: ConsumerNetwork) -> None:
    made = with_only(network, "bash")
    with Flows(network.host) as flows:
        divert(made, flows)
        (pid,) = watchdogs(network.consumer)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert b"busybox\0ash" in file.read()
        killed = time.monotonic()
        made.service.kill()
        ended(made, flows, killed)


def test_shell_without_a_time_limit_is_told(network: ConsumerNetwork) -> None:
    made = with_only(network, "bash", "busybox")
    network.wan.drop()
    made.wait_failed_over()
    made.wait(lambda s: any("read -t" in text for text in s["problems"]), 3.0)
    assert not watchdogs(network.consumer)
    network.wan.restore()
    made.wait_primary()
    made.wait(lambda s: not any("read -t" in text for text in s["problems"]), 3.0)


# 2. Reverse path filters.


def with_two_wans(lab: Lab) -> Router:
    """Two WANs; traffic goes back to the first, which alone is ours, at once."""
    main = settings(hold_time=0) + "\tlist wan 'wan'\n"
    return Router.started(lab, main, second_wan=True, wan_metric=10, service=RestingService)


two_wans = lent(with_two_wans)


@pytest.mark.parametrize("everywhere", [0, 1, 2])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_reverse_path_filters_are_as_they_were(two_wans: Router, everywhere: int, own: int) -> None:
    """Under a strict one the answers to probes of the dead WAN would be dropped for ever."""
    node, wan = two_wans.network.consumer, two_wans.network.wan
    node.sysctl("net/ipv4/conf/all/rp_filter", everywhere)
    node.sysctl("net/ipv4/conf/wan/rp_filter", own)
    before = filters(node)
    with Flows(two_wans.network.host) as flows:
        cut = wan.drop()
        flows.by(two_wans.network.by_uplink, since=cut)
        two_wans.wait_failed_over()
        mended = wan.restore()
        flows.by(two_wans.network.by_wan, since=mended)
        two_wans.wait_primary()
    until(lambda: filters(node), lambda found: found == before, 2.0)


# 8. Marks of other programs beside ours.


QUICK = """
table ip quick {
	chain premangle {
		type filter hook prerouting priority mangle; policy accept;
		meta l4proto udp meta mark set ct mark
	}
	chain postmangle {
		type filter hook postrouting priority mangle; policy accept;
		meta l4proto udp meta mark 0xca6c ct mark set meta mark
	}
}
"""
"""As wg-quick has it for each family: every UDP packet takes the mark of its connection."""

OWNERS_MARK = """
table inet owner {
	chain marks {
		type filter hook prerouting priority mangle; policy accept;
		iifname "guest" ct mark set 0x10
		meta mark set ct mark
	}
}
"""
"""As owners save and restore marks: whole, without a mask."""


def test_wg_quicks_restored_marks_do_no_harm(two_wans: Router) -> None:
    """Answers that carry our bits of their connection's mark would never find the LAN."""
    node, wan = two_wans.network.consumer, two_wans.network.wan
    for family in ("ip", "ip6"):
        node.nft(QUICK.replace("table ip ", f"table {family} "))
    try:
        with Flows(two_wans.network.host) as flows:
            for _ in range(2):
                cut = wan.drop()
                moved = flows.by(two_wans.network.by_uplink, since=cut)
                two_wans.wait_failed_over()
                time.sleep(1.0)
                assert flows.longest_s(moved + 0.2) < 0.3
                mended = wan.restore()
                moved = flows.by(two_wans.network.by_wan, since=mended)
                two_wans.wait_primary()
                time.sleep(0.5)
                assert flows.longest_s(moved + 0.2) < 0.3
    finally:
        for family in ("ip", "ip6"):
            node.sh(f"nft delete table {family} quick")


def test_owners_exact_mark_is_restored_exactly(two_wans: Router) -> None:
    """His rule says `fwmark 0x10`, and leads the guests to the second WAN whatever is diverted."""
    network = two_wans.network
    node, wan, wan2 = network.consumer, network.wan, network.wan2
    assert wan2 is not None
    guest = guest_network(network)
    node.nft(OWNERS_MARK)
    routes = [
        f"ip route add default via {wan2.gateway4} dev wan2 table {TABLE}",
        f"ip -6 route add default via {wan2.gateway6} dev wan2 table {TABLE}",
        f"ip route add {SUBNET4} dev guest table {TABLE}",
        f"ip -6 route add {SUBNET6} dev guest table {TABLE}",
        "ip route add 192.168.1.0/24 dev lan table 257",
    ]
    ways = {ECHO4: wan2.address4, ECHO6: wan2.address6}
    with added(node, *routes, *guest.rule("fwmark 0x10")), contextlib.ExitStack() as stack:
        meters = {a: stack.enter_context(Meter(guest.node, a, rate_hz=50)) for a in ways}
        for address, way in ways.items():
            meters[address].wait_for_source(way)
        begun = time.monotonic()
        with Flows(network.host) as flows:
            cut = wan.drop()
            flows.by(network.by_uplink, since=cut)
            two_wans.wait_failed_over()
            time.sleep(1.0)
            mended = wan.restore()
            flows.by(network.by_wan, since=mended)
            two_wans.wait_primary()
        for address, way in ways.items():
            samples = meters[address].samples(begun)
            assert len(samples) > 50
            assert sources(samples) == [way]
            assert longest(samples).seconds < 0.3
    node.sh("nft delete table inet owner; ip link del guest")


# 3. Nothing left to go by.


def test_nothing_left_is_refused_until_a_second_uplink_or_the_wan_is_back(lab: Lab) -> None:
    """With `fail_closed` nothing leaves, and probes of every path go on."""
    network = consumer_network(lab, providers=2)
    providers = [
        make_provider(lab, node, peer_id=name, place=place)
        for place, (node, name) in enumerate(
            zip(network.providers, ("nodea", "nodeb"), strict=True)
        )
    ]
    main = settings(("nodea", "nodeb"), fail_closed=1, hold_time=0)
    made = Router.build(network, providers, main)
    made.uplinks = made.uplinks.replace("weight '10'", "weight '20'", 1)
    made.configure(main)
    made.start()
    host, wan, lines = network.host, network.wan, network.provider_wans
    for provider_wan in lines:
        provider_wan.drop()
    wan.drop()
    made.wait(lambda s: {f["state"] for f in s["families"].values()} == {"stranded"})
    time.sleep(0.5)
    words = "meta l4proto { tcp, udp } th dport 7 oifname wan"
    count(
        network.consumer, "postrouting", f"meta nfproto ipv4 {words}", f"meta nfproto ipv6 {words}"
    )
    for address in (ECHO4, ECHO6):
        begun = time.monotonic()
        assert answered(host, address, seconds=0.5) == set()
        with Meter(host, address, kind="tcp", rate_hz=20) as meter:
            until(
                lambda m=meter: {s.error for s in m.so_far()}, lambda e: e == {"ECONNREFUSED"}, 2.0
            )
        assert time.monotonic() - begun < 5.0
    assert counted(network.consumer) == 0
    lines[1].restore()
    made.wait_failed_over("wgup_nodeb")
    reached(host, {ECHO4: lines[1].address4, ECHO6: lines[1].address6})
    lines[1].drop()
    made.wait(lambda s: {f["state"] for f in s["families"].values()} == {"stranded"})
    wan.restore()
    made.wait(lambda s: {f["active_path"] for f in s["families"].values()} == {"wan"})
    reached(host, {ECHO4: wan.address4, ECHO6: wan.address6})


# 5. Draining, with another failover meanwhile.


def test_drained_connections_stay_whole_across_a_second_failover(network: ConsumerNetwork) -> None:
    seconds = 12
    provider = make_provider(network.lab, network.providers[0])
    main = settings(sticky_failback=1, sticky_time=seconds, hold_time=0)
    made = Router.build(network, [provider], main)
    made.start()
    wan, provider_wan = network.wan, network.provider_wans[0]
    wan.drop()
    made.wait_failed_over()
    with Flows(network.host) as old:
        since = time.monotonic()
        old.by(network.by_uplink, since=since)
        wan.restore()
        made.wait_primary()
        made.until_told("failback")
        with Flows(network.host) as new:
            home = time.monotonic()
            new.by(network.by_wan, since=home)
            wan.drop()
            made.wait_failed_over()
            new.by(network.by_uplink, since=home)
            second = time.monotonic()
            time.sleep(1.0)
            wan.restore()
            made.wait_primary()
            reached(network.host, {ECHO4: wan.address4, ECHO6: wan.address6})
            failed_back = time.monotonic()
            time.sleep(1.0)
            for meter, way in zip((*old, *new), provider_wan.addresses * 2, strict=True):
                assert sources(meter.samples(second)) == [way], "both finish on the uplink"
            assert old.longest_s(since) < 0.3
            left_s = failed_back + seconds + 4.0 - time.monotonic()
            old.by(network.by_wan, since=second, timeout_s=left_s)
            new.by(network.by_wan, since=second, timeout_s=left_s)


# 6. Look-ups, where owners' rules lead elsewhere.


def test_look_ups_where_a_rule_answers_by_the_wans_own_table(lab: Lab) -> None:
    """`from <WAN's address>` asks a table of the WAN's; a guest network has a WAN of its own."""
    network = consumer_network(lab, second_wan=True, wan_metric=10)
    wan, wan2 = network.wan, network.wan2
    assert wan2 is not None
    guest = guest_network(network)
    network.consumer.resolvers(*wan.gateways)
    made = Router.build(network, [make_provider(lab, network.providers[0])], settings())
    made.configure(settings(hold_time=0) + "\tlist wan 'wan'\n")
    commands = [
        f"ip route add default via {wan.gateway4} dev wan table 100",
        f"ip -6 route add default via {wan.gateway6} dev wan table 100",
        f"ip rule add pref 1000 from {wan.address4} lookup 100",
        f"ip -6 rule add pref 1000 from {wan.address6} lookup 100",
        f"ip route add default via {wan2.gateway4} dev wan2 table {TABLE}",
        f"ip -6 route add default via {wan2.gateway6} dev wan2 table {TABLE}",
        *guest.rule("iif guest"),
    ]
    resolvers = wan.gateways
    with added(network.consumer, *commands), contextlib.ExitStack() as stack:
        made.start()
        of_guest = stack.enter_context(asking(guest.node, *resolvers, kind="dns"))
        settled(*of_guest.values())
        before = {a: sources(m.so_far()) for a, m in of_guest.items()}
        asked = [
            stack.enter_context(asking(node, *resolvers, kind="dns"))
            for node in (network.consumer, network.host)
        ]
        for meters in asked:
            settled(*meters.values())
        begun = time.monotonic()
        wan.drop()
        made.wait_failed_over()
        moved = time.monotonic() + 0.3
        for meters in asked:
            for meter in meters.values():
                meter.wait_for(lambda _: True, since=moved, timeout_s=3.0)
        time.sleep(1.0)
        for address, meter in of_guest.items():
            samples = meter.samples(begun)
            assert sources(samples) == before[address]
            assert longest(samples).seconds < 0.5, "the guests' look-ups are nobody's business"
        wan.restore()
        made.wait_primary()
        back = time.monotonic()
        for meters in asked:
            for meter in meters.values():
                meter.wait_for(lambda _: True, since=back)


# 7. Large tables.


LARGE = 1000


def large(node: Node) -> None:
    """A thousand routes of each family by a LAN host, as a routing daemon learns them."""
    for option, stem in (("-4", "10.{}.{}.0/24 via 192.168.1.100"), ("-6", "")):
        lines = []
        for number in range(LARGE):
            high, low = divmod(number, 250)
            six = f"fd0a:{high:x}:{low:x}::/48 via fd00:1::100"
            lines.append(f"route add {stem.format(60 + high, low) if stem else six} dev lan")
        node.run(["ip", option, "-batch", "-"], input="\n".join(lines))


def followed(node: Node, path: str, count: int) -> list[float]:
    """Seconds from each change of main until table 5180 had it, as the kernel told them."""
    monitor = node.popen(["sh", "-c", f"exec ip -ts -o monitor route >{path}"])
    time.sleep(0.5)
    for number in range(count):
        node.sh(f"ip route add 10.90.{number}.0/24 via 192.168.1.100 dev lan")
        time.sleep(0.2)
        node.sh(f"ip -6 route add fd0b:{number:x}::/32 via fd00:1::100 dev lan")
        time.sleep(0.2)
    time.sleep(0.5)
    monitor.kill()
    seen: dict[tuple[str, bool], float] = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            stamp, words = line[1:].split("]", 1)
            place = words.split()[0]
            if place.startswith(("10.90.", "fd0b:")):
                at = datetime.datetime.fromisoformat(stamp).timestamp()
                seen.setdefault((place, "table 5180" in words), at)
    places = {place for place, _ in seen}
    assert len(places) == 2 * count
    for number in range(count):
        node.sh(f"ip route del 10.90.{number}.0/24\nip -6 route del fd0b:{number:x}::/32")
    return [seen[place, True] - seen[place, False] for place in places]


CHANGES = """
for round in 1 2 3 4 5; do
  for number in 1 2 3 4 5 6 7 8; do
    ip route change 10.60.$number.0/24 via 192.168.1.10$round dev lan
    ip -6 route replace fd0a:0:$number::/48 via fd00:1::10$round dev lan
    ip route del 10.61.$number.0/24; ip route add 10.61.$number.0/24 via 192.168.1.100 dev lan
  done
done
"""


def test_copy_of_a_large_table_follows_main_without_a_gap(two_wans: Router) -> None:
    node, lab = two_wans.network.consumer, two_wans.network.lab
    large(node)
    try:
        time.sleep(1.0)
        calm = followed(node, lab.path("consumer", "calm"), 10)
        two_wans.network.wan.drop()
        two_wans.wait_failed_over()
        outage = followed(node, lab.path("consumer", "outage"), 10)
        for delays in (calm, outage):
            quick, _, _ = statistics.quantiles(delays, n=4)  # others use this machine too
            assert quick < 0.05 and max(delays) < 1.0, sorted(delays)
        changing = node.popen(["sh", "-c", CHANGES])
        question = "route get 10.60.4.1\nroute get 10.60.200.1\n" * 50
        question6 = "route get fd0a:0:4::1\nroute get fd0a:0:c8::1\n" * 50
        asked = 0
        while changing.returncode is None or asked < 5:
            for option, text in (("-4", question), ("-6", question6)):
                told = node.run(["ip", "-o", option, "-batch", "-"], input=text).stdout
                assert told.count("dev lan") == 100, told
            asked += 1
        shown = node.run(["ip", "route", "show", "table", "5180"]).stdout
        assert shown.count("dev lan") >= LARGE
    finally:
        for option in ("-4", "-6"):
            node.sh(f"ip {option} route flush proto boot dev lan scope global")
