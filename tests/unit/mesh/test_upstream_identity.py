"""What a line is called, so that two routers see that they share one."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.mesh.upstream_identity import Upstream, address_tokens, fitting
from rpcd_wireguard_uplink.mesh.wire.offer import LONGEST_EGRESS, Offer
from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.platform.network_reader import NetworkReader
from tests.unit.fakes import Machine, RoutingTables


@pytest.mark.parametrize(
    ("addresses", "tokens"),
    [
        (["203.0.113.5/24", "192.168.1.2/24", "10.0.0.1/8", "100.64.0.1/10"], set()),
        (["8.8.4.4/32"], {"addr=8.8.4.4"}),
        (["2a00:1450:4001:8aa::1/64", "fd00::1/64"], {"addr=2a00:1450:4001:800::"}),
        (["2a00:1450:4001:801::1/64", "2a00:1450:4001:8ff::9/64"], {"addr=2a00:1450:4001:800::"}),
        ([], set()),
    ],
)
def test_public_addresses_alone_name_a_line(addresses: list[str], tokens: set[str]) -> None:
    assert address_tokens(addresses) == tokens


def test_what_is_too_long_is_left_out() -> None:
    tokens = [f"addr=2001:db8:{number:x}::" for number in range(40)]
    told = fitting(tokens)
    assert LONGEST_EGRESS - 20 < len(",".join(told)) <= LONGEST_EGRESS
    assert list(told) == tokens[: len(told)]
    assert fitting([]) == ()


@pytest.mark.parametrize(
    ("theirs", "own", "is_shared"),
    [
        (("gw=1", "addr=2"), ("gw=1",), True),
        (("gw=1",), ("gw=2",), False),
        (("uplink=b",), ("uplink=b",), False),
        ((), (), False),
    ],
)
def test_a_line_is_shared_by_any_name_but_a_loops(
    theirs: tuple[str, ...], own: tuple[str, ...], is_shared: bool
) -> None:
    upstream = Upstream(RoutingTables())
    upstream.tokens = own
    assert (
        upstream.is_shared(Offer(peer_id="a", host="192.0.2.1", public_key="k", egress=theirs))
        is is_shared
    )


async def test_two_routers_behind_one_modem_have_one_gateway(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    found = []
    for hardware in ("02:00:00:00:00:01", "02:00:00:00:00:01", "02:00:00:00:00:02", ""):
        kernel = RoutingTables(neighbours={("wan0", "192.0.2.1"): hardware})
        machine = Machine(str(tmp_path_factory.mktemp("router")))
        machine.routes[Family.IPV4] = [DefaultRoute(Family.IPV4, "wan0", "192.0.2.1")]
        network = NetworkReader(machine)
        await network.read(())
        upstream = Upstream(kernel)
        assert upstream.follow(network.state) is bool(hardware)
        assert not upstream.follow(network.state), "nothing is new"
        found.append(upstream.tokens)
    same, also, other, none = found
    assert same == also != other
    assert same[0].startswith("gw=")
    assert hardware not in same[0] or not hardware
    assert none == ()
