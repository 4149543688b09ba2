"""A provider whose kernel part is the product's own, and two consumers of it.

    consumer a, b == link == provider ==wan== isp1 -- internet
                                \\-- LAN host, a tunnel to another peer, a modem on the WAN

The product's Provider runs in the provider's node and is told what to do over a pipe.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import subprocess
from dataclasses import dataclass, replace
from typing import Any

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.provider.plan import Lease, ProviderPlan

from .lab import Lab, ready
from .network import ECHO4, HOST4, HOST6, ROUTER, ConsumerNetwork, consumer_network
from .node import Child, Node, join, program
from .provider import make_device, new_keys
from .service import PROJECT

PORT = 51821
GATEWAY4, GATEWAY6 = "10.61.7.1", "fd61:7::1"
MODEM = "192.168.8.1"
OTHER4 = "10.61.9.2"
METADATA4, METADATA6 = "169.254.169.254", "fd00:ec2::254"
ECHO = 7


@dataclass
class Consumer:
    """A node with a tunnel to the provider and its default routes in it."""

    node: Node
    private_key: str
    lease: Lease
    host: str
    server_key: str

    @property
    def address4(self) -> str:
        return self.lease.addresses[0].partition("/")[0]

    @property
    def address6(self) -> str:
        return self.lease.addresses[1].partition("/")[0]

    @property
    def addresses(self) -> tuple[str, str]:
        return self.address4, self.address6

    def dial(self) -> None:
        """Make the tunnel, or make it anew."""
        self.node.run(["ip", "link", "delete", "tunnel"], check=False)
        make_device(self.node, "tunnel")
        words = ["wg", "set", "tunnel", "private-key", "/dev/stdin", "peer", self.server_key]
        words += ["endpoint", f"{self.host}:{PORT}", "persistent-keepalive", "25"]
        self.node.run([*words, "allowed-ips", "0.0.0.0/0,::/0"], input=self.private_key)
        self.node.sh(
            f"ip addr add {self.lease.addresses[0]} dev tunnel\n"
            f"ip addr add {self.lease.addresses[1]} dev tunnel nodad\n"
            "ip link set tunnel mtu 1420 up\n"
            "ip route replace default dev tunnel\nip -6 route replace default dev tunnel"
        )

    def greets(self, clock_s: float) -> bool:
        """Take the tunnel down and begin a handshake at that time; whether it was answered.

        Needs PyNaCl.
        """
        from .handshake import initiation

        self.node.run(["ip", "link", "delete", "tunnel"])
        data = base64.b64encode(initiation(self.private_key, self.server_key, clock_s)).decode()
        return self.node.ask("greet", self.host, PORT, data) == "2"

    def probe(self, *wanted: tuple[str, str, int]) -> list[str]:
        """As the function of this name, from the consumer's node."""
        return probe(self.node, *wanted)

    def reaches(self, *addresses: str) -> list[str]:
        return self.probe(*(("tcp", address, ECHO) for address in addresses))


@dataclass
class World:
    network: ConsumerNetwork
    plan: ProviderPlan
    a: Consumer
    b: Consumer
    agent: Child
    ran: list[tuple[list[str], str]]

    @property
    def router(self) -> Node:
        return self.network.consumer

    def do(self, name: str, *arguments: Any) -> Any:
        """Call a method of the Provider in its node; `ran` holds the commands that it ran."""
        stdin, stdout = self.agent.entered.stdin, self.agent.entered.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(base64.b64encode(pickle.dumps((name, arguments))).decode() + "\n")
        stdin.flush()
        result, self.ran = pickle.loads(base64.b64decode(stdout.readline()))
        if isinstance(result, Exception):
            raise result
        return result

    def apply(self, **changes: Any) -> None:
        self.do("apply", replace(self.plan, **changes))

    def kernel(self) -> str:
        """All that the plan is about, as the tools show it."""
        return self.router.sh(
            "nft -t list ruleset; wg show wgup_srv allowed-ips | sort\n"
            "ip -o addr show dev wgup_srv\n"
            "for d in wgup_srv wgup_ifb; do tc class show dev $d; tc filter show dev $d parent 1:\n"
            "tc qdisc show dev $d | sed s/direct_packets_stat.*//; done\n"
            "tc filter show dev wgup_srv parent ffff: | grep -v index"
        )


def consumer(lab: Lab, router: Node, number: int, server_key: str) -> Consumer:
    node = lab.node(f"consumer{number}")
    join(router, f"link{number}", node, "eth0")
    router.sh(f"ip addr add 172.16.8{number}.1/24 dev link{number}")
    node.sh(f"ip addr add 172.16.8{number}.2/24 dev eth0")
    private, public = new_keys(node)
    lease = Lease(f"node{number}", public, (f"10.61.7.{number}/32", f"fd61:7::{number}/128"))
    return Consumer(node, private, lease, f"172.16.8{number}.1", server_key)


def build(lab: Lab) -> World:
    network = consumer_network(lab, neighbour=False, providers=0)
    router, wan = network.consumer, network.wan
    network.internet.sh(
        f"ip addr add {METADATA4}/32 dev lo; ip addr add {METADATA6}/128 dev lo nodad"
    )
    wan.isp.sh(f"ip addr add {MODEM}/24 dev {wan.isp_device}")
    router.sh("ip addr add 192.168.8.2/24 dev wan")
    peer = lab.node("peer")
    join(router, "wgup_oth", peer, "eth0")
    router.sh("ip addr add 10.61.9.1/24 dev wgup_oth")
    peer.sh(f"{ROUTER}ip addr add {OTHER4}/24 dev eth0; ip addr add {ECHO4}/32 dev lo")
    peer.sh("ip route add default via 10.61.9.1")
    private, public = new_keys(router)
    a, b = consumer(lab, router, 2, public), consumer(lab, router, 3, public)
    plan = ProviderPlan(
        private,
        PORT,
        (f"{GATEWAY4}/24", f"{GATEWAY6}/64"),
        (a.lease, b.lease),
        {Family.IPV4: ("wan",), Family.IPV6: ("wan",)},
        resolvers=(wan.gateway4, wan.gateway6),
        renewal_port=ECHO,
    )
    agent = lab.start(router, "provider_agent", packages=True, env={"PYTHONPATH": PROJECT})
    world = World(network, plan, a, b, agent, [])
    world.apply()
    a.dial()
    b.dial()
    own = [GATEWAY4, GATEWAY6, "192.168.1.1", "fd00:1::1", wan.address4, wan.address6]
    for server in (
        lab.serve(router, echo=own, dns=(GATEWAY4, GATEWAY6), answers=("192.0.2.66",)),
        lab.serve(network.host, echo=(HOST4, HOST6)),
        lab.serve(network.internet, echo=(METADATA4, METADATA6)),
        lab.serve(wan.isp, echo=(MODEM, wan.gateway4, wan.gateway6), dns=(MODEM,)),
        lab.serve(peer, echo=(ECHO4, OTHER4)),
        lab.serve(b.node, echo=b.addresses),
    ):
        ready(server)
    return world


def probe(node: Node, *wanted: tuple[str | int, ...]) -> list[str]:
    """For each (kind, address, port and, if wanted, own address and device) what was seen.

    That is the source that the server saw, `silence` or an error's name.
    """
    return [found for found, _ in probe_timed(node, *wanted)]


def probe_timed(node: Node, *wanted: tuple[str | int, ...]) -> list[tuple[str, float]]:
    """The same with the seconds that each took."""
    return [
        (str(found), took_s) for found, took_s in json.loads(node.ask("probe", json.dumps(wanted)))
    ]


def rate_mbps(world: World, each: Consumer, server: str, way: str) -> float:
    """Throughput over 2.5 s between a consumer and a server in the internet."""
    return throughput_mbps(each.node, world.network.internet, server, way)


def throughput_mbps(node: Node, internet: Node, server: str, way: str) -> float:
    """Throughput over 2.5 s between a node and an address of the internet's node."""
    own, theirs = both_ends(node, internet, "throughput", server, way)
    return own if way == "down" else theirs


def both_ends(
    node: Node, internet: Node, name: str, server: str, *arguments: object
) -> tuple[float, float]:
    """Run a program that serves in the internet and asks from a node; what both print."""
    serving = internet.popen(program(name, "serve", server, *arguments), stdout=subprocess.PIPE)
    with serving.entered.stdout or contextlib.nullcontext() as out:
        assert out is not None
        assert out.readline() == "ready\n"
        own = node.ask(name, "ask", server, *arguments)
        theirs = out.readline()
        serving.wait()
    return float(own), float(theirs)
