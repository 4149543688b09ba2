"""Networks of a consumer, its providers, two ISPs and a pretend internet.

    host -- consumer ==wan== isp1 -- internet -- isp2 ==wan== provider(s)
                \\----------------- mesh -------------------/

All addresses are of documentation or private ranges, but for four public resolvers that the
pretend internet plays. The consumer has no tunnel when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass

from .lab import Lab, ready
from .node import Node, join
from .wan import Wan

ECHO4, ECHO6 = "192.0.2.200", "2001:db8:ffff::200"
RESOLVERS4 = ("1.1.1.1", "8.8.8.8")
RESOLVERS6 = ("2606:4700:4700::1111", "2001:4860:4860::8888")
PROBED4, PROBED6 = ("9.9.9.9", "149.112.112.112"), ("2620:fe::fe", "2620:fe::9")
"""They answer pings and nothing else: for probes that are to be told from all other packets."""
THIRD_PLACE = 4
"""Of a third WAN at the first ISP, which has one other only."""
HOST4, HOST6 = "192.168.1.100", "fd00:1::100"
PROVIDER4 = "203.0.113.2"  # of the first provider, at its WAN
ECHO_PORT = 7

ROUTER = """\
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A link between consumer and a provider that has no internet of its own."""

    consumer_device: str
    consumer4: str
    consumer6: str
    provider_device: str
    provider4: str
    provider6: str


@dataclass(frozen=True, slots=True)
class ConsumerNetwork:
    """A consumer with its LAN host, and `providers` with a line of their own each.

    `neighbours` has one link for each provider, or none where the only underlay is the WAN.
    """

    lab: Lab
    internet: Node
    isp1: Node
    isp2: Node
    consumer: Node
    host: Node
    providers: tuple[Node, ...]
    wan: Wan
    wan2: Wan | None
    provider_wans: tuple[Wan, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def by_wan(self) -> tuple[str, str]:
        """The addresses that servers see of traffic by the consumer's WAN, IPv4 and IPv6."""
        return self.wan.addresses

    @property
    def by_uplink(self) -> tuple[str, str]:
        """And those of traffic by the uplink to the first provider."""
        return self.provider_wans[0].addresses


def consumer_network(
    lab: Lab,
    *,
    neighbour: bool = True,
    second_wan: bool = False,
    providers: int = 1,
    wan_metric: int = 0,
) -> ConsumerNetwork:
    """Build it; everything answers when this returns. `second_wan` has the metric 20."""
    internet, isp1, isp2 = lab.node("internet"), lab.node("isp1"), lab.node("isp2")
    consumer, host = lab.node("consumer"), lab.node("host")
    others = tuple(lab.node(f"provider{number}") for number in range(providers))
    for node in (internet, isp1, isp2, consumer, *others):
        node.sh(ROUTER)
    _build_core(internet, (isp1, isp2))
    wan = _wan(consumer, "wan", isp1, 1, 0, metric=wan_metric)
    wan2 = _wan(consumer, "wan2", isp2, 2, providers, metric=20) if second_wan else None
    lines = tuple(_wan(node, "wan", isp2, 2, n) for n, node in enumerate(others))
    wans = ["wan", "wan2"] if second_wan else ["wan"]
    masquerade(consumer, wans)
    for node in others:
        masquerade(node, ["wan"])
    _build_lan(consumer, host)
    links = tuple(_link(consumer, node, n) for n, node in enumerate(others)) if neighbour else ()
    _serve(lab, internet, (isp1, isp2), [line for line in (wan, wan2, *lines) if line])
    return ConsumerNetwork(
        lab, internet, isp1, isp2, consumer, host, others, wan, wan2, lines, links
    )


def _build_core(internet: Node, isps: tuple[Node, ...]) -> None:
    """Addresses of the internet's servers, and a link and routes to each ISP."""
    held = [f"{a}/32" for a in (ECHO4, *RESOLVERS4, *PROBED4)]
    held += [f"{a}/128" for a in (ECHO6, *RESOLVERS6, *PROBED6)]
    nodad = {True: " nodad", False: ""}
    internet.ip(*(f"addr add {a} dev lo{nodad[':' in a]}" for a in held))
    for number, isp in enumerate(isps, start=1):
        join(internet, f"isp{number}", isp, "core")
        near4, far4 = f"192.0.2.{number * 4 + 1}", f"192.0.2.{number * 4 + 2}"
        near6, far6 = f"2001:db8:0:{number}::1", f"2001:db8:0:{number}::2"
        internet.ip(
            f"addr add {near4}/30 dev isp{number}",
            f"addr add {near6}/64 dev isp{number} nodad",
            f"route add {_range4(number)}.0/24 via {far4}",
            f"route add 2001:db8:{number}000::/36 via {far6}",
        )
        isp.ip(
            f"addr add {far4}/30 dev core",
            f"addr add {far6}/64 dev core nodad",
            f"route add default via {near4}",
            f"route add default via {near6}",
        )


def _range4(isp: int) -> str:
    return {1: "198.51.100", 2: "203.0.113"}[isp]


def _wan(router: Node, device: str, isp: Node, isp_number: int, place: int, metric: int = 0) -> Wan:
    range4, range6 = _range4(isp_number), f"2001:db8:{isp_number}000:{place + 1}:"
    made = Wan(
        router=router,
        device=device,
        isp=isp,
        isp_device=f"line{place}",
        address4=f"{range4}.{place * 8 + 2}",
        gateway4=f"{range4}.{place * 8 + 1}",
        address6=f"{range6}:2",
        gateway6=f"{range6}:1",
        metric=metric,
    )
    made.connect()
    return made


def masquerade(router: Node, wans: list[str]) -> None:
    """Translate what leaves by these WANs, in both families."""
    devices = ", ".join(wans)
    chain = "type nat hook postrouting priority srcnat;"
    rule = f"oifname {{ {devices} }} masquerade"
    ruleset = f"table inet wan_nat {{\nchain postrouting {{\n{chain}\n{rule}\n}}\n}}"
    router.nft(ruleset)


def _build_lan(consumer: Node, host: Node) -> None:
    join(consumer, "lan", host, "eth0")
    consumer.ip("addr add 192.168.1.1/24 dev lan", "addr add fd00:1::1/64 dev lan nodad")
    host.ip(
        f"addr add {HOST4}/24 dev eth0",
        f"addr add {HOST6}/64 dev eth0 nodad",
        "route add default via 192.168.1.1",
        "route add default via fd00:1::1",
    )


def _link(consumer: Node, provider: Node, number: int) -> Neighbour:
    made = Neighbour(
        consumer_device=f"mesh{number}",
        consumer4=f"172.16.{70 + number}.1",
        consumer6=f"fd70:{number + 1}::1",
        provider_device="mesh",
        provider4=f"172.16.{70 + number}.2",
        provider6=f"fd70:{number + 1}::2",
    )
    join(consumer, made.consumer_device, provider, made.provider_device)
    consumer.ip(
        f"addr add {made.consumer4}/24 dev {made.consumer_device}",
        f"addr add {made.consumer6}/64 dev {made.consumer_device} nodad",
    )
    provider.ip(
        f"addr add {made.provider4}/24 dev mesh", f"addr add {made.provider6}/64 dev mesh nodad"
    )
    return made


def _serve(lab: Lab, internet: Node, isps: tuple[Node, ...], lines: list[Wan]) -> None:
    """The internet's servers, and each ISP's own resolver at the gateways of its lines."""
    everywhere = (ECHO4, ECHO6, *RESOLVERS4, *RESOLVERS6)
    answers = (ECHO4, ECHO6)
    started = [
        lab.serve(internet, echo=everywhere, dns=(*RESOLVERS4, *RESOLVERS6), answers=answers)
    ]
    for isp in isps:
        mine = [g for wan in lines if wan.isp is isp for g in (wan.gateway4, wan.gateway6)]
        if mine:
            started.append(lab.serve(isp, dns=mine, answers=answers))
    for server in started:
        ready(server)


def third_wan(network: ConsumerNetwork, metric: int = 30) -> Wan:
    """A third WAN of the consumer's, `wan3`, at the first ISP; its owner masquerades it."""
    made = _wan(network.consumer, "wan3", network.isp1, 1, THIRD_PLACE, metric=metric)
    network.consumer.sh("nft add rule inet wan_nat postrouting oifname wan3 masquerade")
    return made
