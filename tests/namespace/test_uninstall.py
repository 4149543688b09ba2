"""After a removal the kernel is as it was before the service ever ran."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.model import INBOUND, SLOT_MASK
from rpcd_wireguard_uplink.storage.state_file import run_dir_of
from tests.lab.meter import Flows, Meter, settled
from tests.lab.network import ECHO4, ConsumerNetwork
from tests.lab.node import Node
from tests.lab.provider import make_providers
from tests.lab.router import Router, settings
from tests.lab.service import variables

pytestmark = pytest.mark.needs("conntrack")


def kernel_state(node: Node) -> dict[str, str]:
    """Rules, routes, tables and devices, without what changes by itself."""
    looks = {
        "rules": "ip rule; ip -6 rule",
        "routes": "ip route show table all | sort; ip -6 route show table all | sort",
        "tables": "nft list tables",
        "filters": "cd /proc/sys/net/ipv4/conf; cat all/rp_filter wan/rp_filter",
        "devices": "ip -o link | sed 's/.*: \\([^:@]*\\)[:@].*group \\([^ ]*\\) .*/\\1 \\2/'",
    }
    return {name: node.sh(script) for name, script in looks.items()}


def uninstall(router: Router) -> tuple[int, str]:
    service = router.service
    words = [
        *("env", *(f"{name}={value}" for name, value in variables().items())),
        *(sys.executable, "-m", "rpcd_wireguard_uplink", "uninstall"),
        *("--platform", "standalone", "--socket", service.socket),
        *("--config-dir", service.config_dir, "--keys-dir", service.keys_dir),
        *("--state-file", service.state_file),
    ]
    done = service.node.run(words, timeout_s=30, check=False)
    return done.returncode, done.stderr


def tracked(node: Node, addresses: Iterable[str]) -> list[str]:
    """The connections that one of these addresses has a part in, as conntrack(8) lists them."""
    found = [node.run(["conntrack", "-L", "-f", each]).stdout for each in ("ipv4", "ipv6")]
    ends = {f"{end}={address}" for end in ("src", "dst") for address in addresses}
    return [line for text in found for line in text.splitlines() if ends & {*line.split()}]


def marked(node: Node) -> list[str]:
    """The connections whose marks have bits of ours."""
    found = [node.run(["conntrack", "-L", "-f", each]).stdout for each in ("ipv4", "ipv6")]
    marks = {line: line.partition(" mark=")[2].split() for line in "".join(found).splitlines()}
    ours = INBOUND | SLOT_MASK
    return [line for line, mark in marks.items() if mark and int(mark[0]) & ours]


def tunnel_addresses(node: Node) -> list[str]:
    return [text.partition("/")[0] for text in node.addresses("wgup_nodea")]


def test_no_connection_of_a_removed_uplink_stays(network: ConsumerNetwork) -> None:
    """One that stayed would keep its translation: the WAN would be sent the tunnel's address."""
    router = Router.build(network, make_providers(network), settings())
    router.start()
    network.wan.drop()
    router.wait_failed_over()
    with Flows(network.host, rate_hz=20) as flows:
        addresses = tunnel_addresses(network.consumer)
        assert tracked(network.consumer, addresses) and marked(network.consumer)
        router.service.expect("uplink_remove", {"peer_id": "nodea"})
        assert tracked(network.consumer, addresses) == []
        assert marked(network.consumer) == []
        flows.by(network.wan.addresses, since=network.wan.restore())


def test_nothing_of_ours_stays_in_the_kernel(network: ConsumerNetwork) -> None:
    network.consumer.sysctl("net/ipv4/conf/wan/rp_filter", 1)
    before = kernel_state(network.consumer)
    router = Router.build(network, make_providers(network), settings())
    router.start()
    assert kernel_state(network.consumer) != before
    assert uninstall(router)[0] == 1, "while the service runs"
    with Meter(network.host, ECHO4, rate_hz=20) as meter:
        settled(meter)
        network.wan.drop()
        router.wait_failed_over()
        meter.wait_for_source(network.provider_wans[0].address4)
        addresses = tunnel_addresses(network.consumer)
        assert tracked(network.consumer, addresses) and marked(network.consumer)
        router.service.kill()
        status, told = uninstall(router)
        assert (status, told) == (0, "")
        assert tracked(network.consumer, addresses) == marked(network.consumer) == []
        meter.wait_for_source(network.wan.address4, since=network.wan.restore())
    assert kernel_state(network.consumer) == before
    kept = [name for name in os.listdir(router.service.keys_dir) if name.endswith(".key")]
    assert kept and "config uplink" in Path(router.service.config_file).read_text(encoding="utf-8")
    assert not os.path.exists(router.service.state_file)
    assert not os.path.exists(run_dir_of(router.service.state_file))
