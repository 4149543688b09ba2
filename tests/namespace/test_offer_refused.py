"""A router whose kernel forwards nothing lends nobody a dead uplink."""

from __future__ import annotations

import re

import pytest

from tests.lab.lab import Lab
from tests.lab.mesh import mesh_network
from tests.lab.peers import start_peers, trust_each_other

pytestmark = pytest.mark.needs("conntrack")


def test_it_is_refused_with_the_command_that_mends_it(lab: Lab) -> None:
    mesh = mesh_network(lab, ("a", "p"))
    peers = start_peers(lab, mesh)
    trust_each_other(peers, [("a", "p")])
    a, p = peers["a"], peers["p"]
    node = p.router.node
    node.sh("echo 0 >/proc/sys/net/ipv4/ip_forward\necho 0 >/proc/sys/net/ipv6/conf/all/forwarding")
    answer = p.service.call("uplink_offer")
    assert answer.data["code"] == "no_forwarding" and "IPv4, IPv6" in answer.data["error"]
    assert p.ask("uplink_consumers")["offering"] == 0
    command = re.search(r"`sysctl -w ([^`]*)`", answer.data["error"])
    assert command is not None
    for setting in command[1].split():  # sysctl itself is not everywhere
        name, _, value = setting.partition("=")
        node.sh(f"echo {value} >/proc/sys/{name.replace('.', '/')}")
    p.ask("uplink_offer")
    a.hears_of("p")
    node.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")
    a.hears_of(timeout_s=30.0)
    assert "sysctl -w net.ipv4.ip_forward=1" in p.ask("uplink_consumers")["offer"]["reason"]
    assert any("does not forward IPv4" in told for told in p.status()["problems"])
    assert "net.ipv4.ip_forward=1" in p.service.wgctl("uplink", "doctor").stdout
    node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")
    a.hears_of("p", timeout_s=30.0)
