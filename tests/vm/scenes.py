"""What Debian's kernel has and a test machine's may lack: WireGuard, VRFs, flow tables, PPPoE.

Each scene takes the router as it was built and gives rows of (what, result, seconds). Waits are
long, since an emulated processor has a twentieth of the speed.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import IO

from tests.lab import network as addresses
from tests.lab.meter import Flows, longest, lost
from tests.lab.network import ECHO4, ECHO6
from tests.lab.node import Child, Node, join
from tests.lab.reach import Typing, until
from tests.lab.router import Router
from tests.lab.wan import Wan

Rows = Iterator[tuple[str, str, float]]
LONG_S = 180.0
PACE = {"rate_hz": 10.0, "deadline_s": 2.0, "patience_s": LONG_S}


def over_and_back(router: Router, flows: Flows, wan: Wan) -> Rows:
    """The WAN falls silent and comes back; both families' packets are watched."""
    died = wan.drop()
    moved = flows.by(router.network.by_uplink, since=died, timeout_s=LONG_S)
    router.wait_failed_over(timeout_s=LONG_S)
    router.until_told("failover")  # the history comes after the switch
    verdicts = [event["detection_ms"] / 1000 for event in router.events("failover")[-2:]]
    told = f"{gap(flows, died)}, silence of {max(verdicts):.1f} s"
    yield "silent WAN: both families by the uplink", told, moved - died
    mended = wan.restore()
    back = flows.by(wan.addresses, since=mended, timeout_s=LONG_S)
    yield "WAN back: both families by it", gap(flows, mended), back - mended
    router.wait_primary(LONG_S)


def gap(flows: Flows, since: float) -> str:
    return f"longest gap {flows.longest_s(since):.1f} s"


def kernel_wireguard(router: Router) -> Rows:
    """A failover and a failback of both families through the kernel's own WireGuard."""
    network = router.network
    for node, device in ((network.consumer, "wgup_nodea"), (network.providers[0], "wgup_srv")):
        link = node.run(["ip", "-d", "link", "show", "dev", device]).stdout
        kind = expect("wireguard" in link, "wireguard")
        yield f"kind of {device} at {node.name}", kind, 0.0
    with Flows(network.host, **PACE) as flows:
        flows.by(network.by_wan, timeout_s=LONG_S)
        yield from over_and_back(router, flows, network.wan)


def beside_a_vrf(router: Router) -> Rows:
    """A VRF of the owner's with a LAN and a WAN of its own, which an outage must not touch."""
    network = router.network
    consumer, guest = network.consumer, network.lab.node("guest")
    line = addresses._wan(consumer, "bluewan", network.isp2, 2, 5, metric=20)
    line.remove_routes()
    join(consumer, "bluelan", guest, "eth0")
    consumer.sh(
        "ip link add blue type vrf table 77\nip link set blue up\n"
        "ip link set bluewan master blue\nip link set bluelan master blue\n"
        "ip addr add 192.168.77.1/24 dev bluelan\nip addr add fd00:77::1/64 dev bluelan nodad\n"
        f"ip route add default via {line.gateway4} dev bluewan table 77\n"
        f"ip -6 route add default via {line.gateway6} dev bluewan table 77\n"
        "nft add rule inet wan_nat postrouting oifname bluewan masquerade"
    )
    guest.sh(
        "ip addr add 192.168.77.2/24 dev eth0\nip addr add fd00:77::2/64 dev eth0 nodad\n"
        "ip route add default via 192.168.77.1\nip route add default via fd00:77::1"
    )

    def pings() -> str:
        asked = [ping(guest, place) for place in ("192.168.77.1", "fd00:77::1")]
        asked += [ping(consumer, place, "-I", "blue") for place in (ECHO4, ECHO6)]
        asked += [ping(network.host, place) for place in ("192.168.1.1", "fd00:1::1")]
        return expect(all(asked), f"{sum(asked)} of {len(asked)} answered")

    with Flows(network.host, **PACE) as flows, Flows(guest, **PACE) as blue:
        for order in ("local first", "local behind the VRFs' rule"):
            if order != "local first":  # as the kernel's page on VRFs has it
                for ip in ("ip -4", "ip -6"):
                    consumer.sh(f"{ip} rule add pref 32765 lookup local\n{ip} rule del pref 0")
            flows.by(network.by_wan, timeout_s=LONG_S)
            began = blue.by(line.addresses, since=time.monotonic(), timeout_s=LONG_S)
            for what, result, seconds in over_and_back(router, flows, network.wan):
                yield f"{order}: {what}", result, seconds
                yield f"{order}: pings in and into the VRF, and to the router", pings(), 0.0
            for meter, own in zip(blue, line.addresses, strict=True):
                seen = meter.samples(began, time.monotonic() - PACE["deadline_s"])
                foreign = {s.source for s in seen if s.source} - {own}
                worst = longest(seen).seconds
                told = f"{lost(seen)} of {len(seen)} lost, longest gap {worst:.1f} s"
                untouched = expect(not foreign and worst < flows.longest_s(began) / 2, told)
                yield f"{order}: a VRF's flow by its own WAN", untouched, 0.0


def flow_offload(router: Router) -> Rows:
    """The owner's forward chain puts flows past the firewall: they must move, or be reset."""
    network = router.network
    network.consumer.nft(
        "table inet owner {\n"
        "flowtable fast { hook ingress priority filter; devices = { lan, wan }; }\n"
        "chain forward { type filter hook forward priority filter;\n"
        "meta l4proto { tcp, udp } flow offload @fast\n}\n}"
    )
    with ExitStack() as stack:
        typing = [
            stack.enter_context(Typing(network.host, a, patience_s=LONG_S)) for a in (ECHO4, ECHO6)
        ]
        flows = stack.enter_context(Flows(network.host, **PACE))
        flows.by(network.by_wan, timeout_s=LONG_S)
        time.sleep(2.0)
        listed = network.consumer.sh("conntrack -L 2>&1; conntrack -L -f ipv6 2>&1")
        fast = listed.count("[OFFLOAD]")
        yield "flows in the owner's flow table", expect(fast >= 4, str(fast)), 0.0
        died = time.monotonic()
        for row in over_and_back(router, flows, network.wan):
            yield row
            for stream in typing:
                ended = stream.ended(LONG_S)
                reset = expect(ended == "ConnectionResetError", ended)
                yield f"TCP by {stream.source}", reset, time.monotonic() - died
            typing = []
    network.consumer.nft("delete table inet owner")


NEAR4, FAR4 = "198.51.100.66", "198.51.100.65"
NEAR6, FAR6 = "2001:db8:1000:41::66", "2001:db8:1000:41::65"
OPTIONS = "noauth\nnodefaultroute\n+ipv6\nlcp-echo-interval 20\nlcp-echo-failure 3\n"


def pppoe_wan(router: Router) -> Rows:
    """The WAN is a PPPoE session over the same cable, with pppd at both ends: it falls silent, and
    then it is hung up and dialled again.
    """
    network, lab = router.network, router.network.lab
    consumer, isp, cable = network.consumer, network.isp1, network.wan
    subprocess.run(["modprobe", "-a", "pppoe"], check=True)  # a node may not
    options = lab.path("ppp", "options")
    with open(options, "w", encoding="ascii") as file:
        file.write(OPTIONS)
    server = [*("pppoe-server", "-F", "-I", cable.isp_device, "-O", options)]
    log = open(lab.path("ppp", "log"), "w", encoding="utf-8")  # noqa: SIM115
    lab.at_close(isp.popen([*server, "-L", FAR4, "-R", NEAR4], stdout=log, stderr=log))
    translated = "nft add rule inet wan_nat postrouting oifname pppoe-wan masquerade"
    consumer.sh(translated, timeout_s=LONG_S)
    router.service.stop()  # it would look out for the return of the WAN that there was
    cable.remove_routes()
    session = Wan(consumer, "pppoe-wan", isp, cable.isp_device, NEAR4, FAR4, NEAR6, FAR6, metric=10)
    session, dialled, took_s = dial(session, log)
    try:
        kind = shows(consumer, "-d link show dev pppoe-wan")
        yield "a session: both families' addresses", expect("ppp" in kind, "ppp"), took_s
        router.service.start(timeout_s=LONG_S)
        with Flows(network.host, **PACE) as flows:
            flows.by(session.addresses, timeout_s=LONG_S)
            router.wait_primary(LONG_S)
            yield from over_and_back(router, flows, session)
            hung_up = time.monotonic()
            consumer.run(["busybox", "killall", "pppd"])  # it tells the other end
            moved = flows.by(network.by_uplink, since=hung_up, timeout_s=LONG_S)
            yield "hung up: both families by the uplink", gap(flows, hung_up), moved - hung_up
            again = time.monotonic()
            session, dialled, _ = dial(session, log)
            back = flows.by(session.addresses, since=again, timeout_s=LONG_S)
            yield "dialled again: both families by it", gap(flows, again), back - again
    finally:
        dialled.kill()
        cable.add_routes()


def dial(session: Wan, log: IO[str]) -> tuple[Wan, Child, float]:
    """Begin a session as netifd does: the WAN with the address that it got, pppd, and the seconds
    until its device has addresses and routes.
    """
    began, router, isp = time.monotonic(), session.router, session.isp
    words = ["pppd", "nodetach", "plugin", "rp-pppoe.so", "nic-wan", "ifname", session.device]
    child = router.popen([*words, *OPTIONS.split(), "noipdefault"], stdout=log, stderr=log)
    own = f"-4 addr show dev {session.device}"
    near = until(lambda: re.search(r"inet (\S+) peer", shows(router, own)), bool, LONG_S)
    assert near is not None
    by_far = rf"^{re.escape(near[1])} dev (ppp\d+)"
    far = until(lambda: re.search(by_far, shows(isp, "route"), re.MULTILINE), bool, LONG_S)
    assert far is not None
    router.sh(
        f"ip addr add {session.address6}/64 dev {session.device} nodad\n"
        f"ip route replace default dev {session.device} metric {session.metric}\n"
        f"ip -6 route replace default dev {session.device} metric {1024 + session.metric}",
        timeout_s=LONG_S,
    )
    isp.sh(f"ip -6 route replace {session.address6}/128 dev {far[1]}", timeout_s=LONG_S)
    return replace(session, address4=near[1]), child, time.monotonic() - began


def shows(node: Node, what: str) -> str:
    return node.run(["ip", *what.split()], check=False, timeout_s=LONG_S).stdout


def expect(so: object, told: str) -> str:
    """`told`, marked as a fault where it is not so."""
    return told if so else f"FAILS: {told}"


def ping(node: Node, place: str, *options: str) -> bool:
    """Whether each of three pings is answered."""
    words = ["busybox", "ping", *options, "-c", "3", "-W", "3", place]
    return node.run(words, check=False, timeout_s=LONG_S).returncode == 0
