"""A VPN of the owner's: a server in the internet, and the ways in which clients lead traffic to it.

The client is on the consumer: device `vpn`, real WireGuard, all traffic. By policy, as wg-quick's
and NetBird's rules do; as a default route with a low metric and a host route to the server; by two
half-default routes, as OpenVPN does.
"""

from __future__ import annotations

from dataclasses import dataclass

from .network import ConsumerNetwork
from .node import Node, join
from .provider import make_device, new_keys

DEVICE, PORT = "vpn", 51999
SERVER4, SERVER6 = "192.0.2.98", "2001:db8:0:9::2"
CLIENT4, CLIENT6 = "10.88.0.2", "fd88::2"
HALVES4, HALVES6 = ("0.0.0.0/1", "128.0.0.0/1"), ("::/1", "8000::/1")


@dataclass(frozen=True, slots=True)
class Vpn:
    """The server, and the keys and the router of its one client."""

    network: ConsumerNetwork
    server: Node
    server_key: str
    client_key: str

    @property
    def client(self) -> Node:
        return self.network.consumer

    def host_route(self) -> list[str]:
        """The commands that pin the server's addresses to the WAN, as VPN clients do."""
        wan = self.network.wan
        return [
            f"ip route add {SERVER4}/32 via {wan.gateway4} dev {wan.device}",
            f"ip -6 route add {SERVER6}/128 via {wan.gateway6} dev {wan.device}",
        ]

    def connect(self, server: str = SERVER4, *, fwmark: int = 0) -> None:
        """Make the device, with addresses and the tunnel, but without any route into it."""
        client = self.client
        make_device(client, DEVICE)
        host = f"[{server}]" if ":" in server else server
        words = ["wg", "set", DEVICE, "private-key", "/dev/stdin", "fwmark", str(fwmark)]
        words += ["peer", self.server_key, "endpoint", f"{host}:{PORT}"]
        words += ["persistent-keepalive", "25", "allowed-ips", "0.0.0.0/0,::/0"]
        client.run(words, input=self.client_key)
        client.sh(
            f"ip addr add {CLIENT4}/32 dev {DEVICE}\nip addr add {CLIENT6}/128 dev {DEVICE} nodad\n"
            f"ip link set {DEVICE} mtu 1380 up"
        )

    def routes(self, what: str = "default", metric: int = 5) -> list[str]:
        """The commands that lead all traffic into it: a `default` route, or two `halves`."""
        fours, sixes = (HALVES4, HALVES6) if what == "halves" else (("default",), ("default",))
        return [
            *(f"ip route add {each} dev {DEVICE} metric {metric}" for each in fours),
            *(f"ip -6 route add {each} dev {DEVICE} metric {metric}" for each in sixes),
        ]

    def policy(self, mark: int, table: int) -> list[str]:
        """The commands of a client that leads by rules, as NetBird does with marks of its own."""
        found = []
        for ip in ("ip", "ip -6"):
            found += [
                f"{ip} route add default dev {DEVICE} table {table}",
                f"{ip} rule add pref 105 lookup main suppress_prefixlength 0",
                f"{ip} rule add pref 110 not fwmark {mark:#x} lookup {table}",
            ]
        return found

    def quick_up(self, server: str = SERVER4) -> None:
        """Start it with the real wg-quick."""
        host = f"[{server}]" if ":" in server else server
        lines = (
            f"[Interface]\nPrivateKey = {self.client_key}\n"
            f"Address = {CLIENT4}/32, {CLIENT6}/128\nMTU = 1380\n"
            f"[Peer]\nPublicKey = {self.server_key}\nEndpoint = {host}:{PORT}\n"
            "AllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n"
        )
        self.client.run(
            ["sh", "-e", "-c", f'umask 077; cat >"{self._file}"; wg-quick up "{self._file}"'],
            input=lines,
        )

    def quick_down(self) -> None:
        """Stop it with the real wg-quick."""
        self.client.run(["wg-quick", "down", self._file])

    def disconnect(self) -> None:
        """Delete the device, and with it all routes into it. One that has gone is no error."""
        self.client.run(["ip", "link", "delete", DEVICE], check=False)

    def drop(self) -> None:
        """Have the server fall silent."""
        ruleset = "table netdev dead { chain c { type filter hook ingress device eth0 priority 0;"
        self.server.nft(f"{ruleset} drop; }}; }}\n")

    def restore(self) -> None:
        """Have it answer again. Without drop() this is no error."""
        self.server.run(["nft", "delete", "table", "netdev", "dead"], check=False)

    @property
    def _file(self) -> str:
        return self.network.lab.path(self.client.name, "wg-quick", f"{DEVICE}.conf")


def vpn_server(network: ConsumerNetwork) -> Vpn:
    """A server with public addresses of its own; the consumer's owner masquerades into it."""
    server, internet = network.lab.node("vpn"), network.internet
    join(internet, "vpn", server, "eth0")
    internet.sh("ip addr add 192.0.2.97/30 dev vpn\nip addr add 2001:db8:0:9::1/64 dev vpn nodad")
    server.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward\necho 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"
        f"ip addr add {SERVER4}/30 dev eth0\nip addr add {SERVER6}/64 dev eth0 nodad\n"
        "ip route add default via 192.0.2.97\nip route add default via 2001:db8:0:9::1"
    )
    make_device(server, "wg0")
    server_private, server_key = new_keys(server)
    client_private, client_key = new_keys(network.consumer)
    words = ["wg", "set", "wg0", "listen-port", str(PORT), "private-key", "/dev/stdin"]
    words += ["peer", client_key, "allowed-ips", f"{CLIENT4}/32,{CLIENT6}/128"]
    server.run(words, input=server_private)
    server.sh(
        "ip addr add 10.88.0.1/24 dev wg0\nip addr add fd88::1/64 dev wg0 nodad\n"
        "ip link set wg0 mtu 1380 up"
    )
    _masquerade(server, "eth0")
    _masquerade(network.consumer, DEVICE)
    return Vpn(network, server, server_key, client_private)


def _masquerade(node: Node, device: str) -> None:
    chain = "type nat hook postrouting priority srcnat;"
    ruleset = f"table inet vpn_nat {{\nchain c {{\n{chain}\noifname {device} masquerade\n}}\n}}"
    node.nft(ruleset)
