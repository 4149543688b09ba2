"""What goes wrong between two routers that serve each other: crashes, reboots, blocked ports."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence

from .node import Node
from .peers import Peer, Row

MESH_TCP = 7333
PROVIDER_UDP = 51821


def block(node: Node, rule: str) -> None:
    """Drop what a node sends that fits an nft rule's beginning, until unblock()."""
    node.filter("output", f"{rule} drop")


def unblock(node: Node) -> None:
    """End what block() began; without it this is no error."""
    node.filter("output")


def count(node: Node, hook: str, *rules: str) -> None:
    """Count from now on the packets at this hook that fit one of the nft rules' beginnings."""
    node.filter(hook, *(f"{rule} counter" for rule in rules), table="counted", priority=-300)


def counted(node: Node) -> int:
    """How many packets count() has seen."""
    listed = node.run(["nft", "list", "table", "inet", "counted"]).stdout
    found = re.findall(r"packets (\d+)", listed)
    assert found
    return sum(map(int, found))


def lease_of(provider: Peer, consumer: str) -> Row | None:
    """The consumer's one lease as its provider shows it, None where it has none."""
    rows: list[Row] = provider.ask("uplink_consumers")["consumers"]
    found = [row for row in rows if row["peer_id"] == consumer]
    assert len(found) < 2, f"{consumer} has several leases: {found}"
    return found[0] if found else None


def place_of(provider: Peer, consumer: str) -> tuple[str, str, str]:
    """The key and the addresses of a lease that must be there."""
    row = lease_of(provider, consumer)
    assert row is not None, f"{consumer} has no lease"
    return row["public_key"], row["address"], row["address6"]


def crash_and_start(peers: Sequence[Peer]) -> None:
    """Kill the services, all of them before the first is started again."""
    for peer in peers:
        peer.service.kill()
    for peer in peers:
        peer.service.start(wait=False)
    for peer in peers:
        peer.service.wait_until_up()


def play_future_clock(consumer: Peer, provider: Peer, clock_s: float) -> bool:
    """Begin a handshake at that time with the key of the consumer's uplink, whose device goes;
    whether it was answered. The provider then takes no earlier one. Needs PyNaCl.
    """
    from .handshake import initiation

    node, device = consumer.router.node, f"wgup_{provider.router.name}"
    with open(os.path.join(consumer.service.keys_dir, f"{device}.key"), encoding="ascii") as file:
        private = file.read().strip()
    theirs = provider.router.node.run(["wg", "show", "wgup_srv", "public-key"]).stdout.strip()
    node.run(["ip", "link", "delete", device])
    data = base64.b64encode(initiation(private, theirs, clock_s)).decode()
    return node.ask("greet", provider.router.segment4, PROVIDER_UDP, data) == "2"
