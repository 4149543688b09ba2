"""Carrying, with packets: a firewall of the owner's that forwards the LAN to the WAN only.

The case is public: a forward chain with policy drop, lan to wan alone accepted. It is told when the
uplink is added, before any outage, in status, by doctor, and it ends with the command that is told.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import pytest

from tests.lab.consumers import probe
from tests.lab.firewall import BY_HAND
from tests.lab.network import ConsumerNetwork
from tests.lab.node import Node, program
from tests.lab.provider import make_provider
from tests.lab.router import Router, Status, settings

pytestmark = pytest.mark.needs("conntrack")

MOMENT_S = 5.0
MANY4 = ("192.0.2.200", "1.1.1.1", "8.8.8.8")
MANY6 = ("2001:db8:ffff::200", "2606:4700:4700::1111", "2001:4860:4860::8888")


class Knocking:
    """New flows of a host to these addresses, ten a second."""

    def __init__(
        self, network: ConsumerNetwork, addresses: Sequence[str], kind: str = "tcp", port: int = 7
    ) -> None:
        argv = program("knock", kind, port, *addresses)
        self._child = network.lab.at_close(network.host.popen(argv))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._child.kill()


def lay(network: ConsumerNetwork, firewall: str = "") -> Router:
    if firewall:
        network.consumer.nft(firewall)
    provider = make_provider(network.lab, network.providers[0])
    return Router.build(network, [provider], settings())


def carrying(status: Status) -> dict[str, bool | None]:
    return {name: family["carrying"] for name, family in status["families"].items()}


def told(status: Status, words: str) -> list[str]:
    return [problem for problem in status["problems"] if words in problem]


def command_in(sentence: str) -> str:
    """The command that a sentence has between backticks."""
    found = re.search("`([^`]+)`", sentence)
    assert found is not None, sentence
    return found[1]


def within(router: Router, fits: Callable[[Status], bool], seconds: float = MOMENT_S) -> float:
    """Wait for a status; the seconds it took."""
    began = time.monotonic()
    router.wait(fits, seconds)
    return time.monotonic() - began


def answers(node: Node, address: str) -> bool:
    return probe(node, ("connect", address, 7)) == ["connected"]


def test_case_12_a_firewall_that_forwards_to_the_wan_only(network: ConsumerNetwork) -> None:
    router = lay(network, BY_HAND)
    router.start()
    status = router.wait(lambda s: bool(told(s, "drops what lan sends into wgup_nodea")))
    assert len(status["problems"]) == 1 and carrying(status) == {"ipv4": None, "ipv6": None}
    mend = command_in(status["problems"][0])
    doctor = router.service.wgctl("uplink", "doctor").stdout
    assert f"    {mend}\n" in doctor and doctor.count("drops what lan sends") == 1
    with Knocking(network, [*MANY4, *MANY6]):
        network.wan.drop()
        router.wait_failed_over()
        assert within(router, lambda s: carrying(s) == {"ipv4": False, "ipv6": False}) <= MOMENT_S
        status = router.status()
        assert len(told(status, "flows of the LAN towards wgup_nodea are dropped")) == 2
        assert all(mend in problem for problem in status["problems"])
        why = router.service.expect("uplink_explain")["families"]
        assert all("are dropped on this router" in family["note"] for family in why)
        assert not answers(network.host, MANY4[0])
        network.consumer.sh(mend)
        assert answers(network.host, MANY4[0]) and answers(network.host, MANY6[0])
        within(router, lambda s: s["problems"] == [])
        router.wait(lambda s: carrying(s) == {"ipv4": True, "ipv6": True})
    entries = [(e["kind"], e["family"]) for e in router.events("not_carrying", "carrying")]
    assert sorted(entries) == [
        *(("carrying", "ipv4"), ("carrying", "ipv6")),
        *(("not_carrying", "ipv4"), ("not_carrying", "ipv6")),
    ]
    network.wan.restore()
    router.wait_primary()
    assert carrying(router.status()) == {"ipv4": None, "ipv6": None}


def test_case_12_it_is_told_at_add(network: ConsumerNetwork) -> None:
    router = lay(network, BY_HAND)
    router.uplinks = ""
    router.configure(settings())
    router.service.start()
    provider = router.providers[0]
    values = {
        "peer_id": provider.peer_id,
        "endpoint": f"{network.neighbours[0].provider4}:{provider.listen_port}",
        "public_key": provider.public_key,
    }
    reply = router.service.expect("uplink_add", values)
    assert "drops what lan sends into wgup_nodea" in reply["note"]
    assert reply["note"].rstrip(".") in router.status()["problems"]
    network.consumer.sh(command_in(reply["note"]))
    router.wait(lambda s: s["problems"] == [])
    again = router.service.expect("uplink_add", {**values, "weight": 20})
    assert again["note"] == ""
    router.service.expect("uplink_remove", {"peer_id": provider.peer_id})
    assert router.status()["problems"] == []


def test_one_way_traffic_and_a_dead_host_are_no_complaint(network: ConsumerNetwork) -> None:
    """Syslog to three collectors, and a host that nobody has, asked on many ports."""
    router = lay(network)
    router.start()
    network.wan.drop()
    router.wait_failed_over()
    with (
        Knocking(network, ["192.0.2.201", "192.0.2.202", "192.0.2.203"], "udp", 514),
        Knocking(network, ["192.0.2.204"]),
    ):
        deadline = time.monotonic() + 8.0
        while time.monotonic() < deadline:
            status = router.status()
            assert status["problems"] == []
            assert False not in carrying(status).values()
            time.sleep(0.2)
    assert router.events("not_carrying") == []


def test_a_host_that_the_owner_keeps_from_the_internet(network: ConsumerNetwork) -> None:
    """A camera's packets are dropped by either way, as its owner wants: no complaint."""
    router = lay(network, BY_HAND.replace("policy drop", "policy accept"))
    drop = "insert rule inet filter forward meta nfproto ipv4 ip saddr 192.168.1.100 drop"
    network.consumer.run(["nft", drop])
    router.start()
    network.wan.drop()
    router.wait_failed_over()
    with Knocking(network, MANY4):
        deadline = time.monotonic() + 8.0
        while time.monotonic() < deadline:
            status = router.status()
            assert status["problems"] == [] and carrying(status)["ipv4"] is None
            time.sleep(0.2)


def test_a_provider_that_passes_nothing_on(network: ConsumerNetwork) -> None:
    """Probes come back and flows of hosts don't: nothing here explains that."""
    router = lay(network)
    router.start()
    network.providers[0].filter("forward", "meta l4proto { tcp, udp } drop")
    with Knocking(network, [*MANY4, *MANY6]):
        network.wan.drop()
        router.wait_failed_over()
        within(router, lambda s: carrying(s) == {"ipv4": False, "ipv6": False}, 7.0)
        status = router.status()
        assert len(told(status, "leave by wgup_nodea and nothing comes back")) == 2
        assert len(told(status, "does the peer forward and translate")) == 2
        network.providers[0].filter("forward")
        router.wait(lambda s: carrying(s) == {"ipv4": True, "ipv6": True})
        assert router.status()["problems"] == []


def test_case_12_answers_that_are_filtered(network: ConsumerNetwork) -> None:
    """A firewall that lets the LAN out everywhere and nothing in but from the WAN."""
    router = lay(
        network,
        BY_HAND.replace("ct state", 'iifname { "wan", "lan" } ct state').replace(
            'iifname "lan" oifname "wan" accept', 'iifname "lan" accept'
        ),
    )
    router.start()
    router.wait(lambda s: bool(told(s, "drops the answers that lan gets from wgup_nodea")))
    with Knocking(network, [*MANY4, *MANY6]):
        network.wan.drop()
        router.wait_failed_over()
        within(router, lambda s: carrying(s) == {"ipv4": False, "ipv6": False}, 7.0)
        status = router.status()
        assert len(told(status, "answers from wgup_nodea are dropped on this router")) == 2
        network.consumer.sh(command_in(status["problems"][0]))
        router.wait(lambda s: carrying(s) == {"ipv4": True, "ipv6": True} and not s["problems"])
