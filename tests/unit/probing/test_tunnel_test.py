"""The arithmetic of a test on request; probes through real tunnels are for the namespace tests."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import NotSupported
from rpcd_wireguard_uplink.probing import tunnel_test
from rpcd_wireguard_uplink.probing.icmp import Prober
from rpcd_wireguard_uplink.reasons import because

Result = tunnel_test.Tested  # pytest would take the name for a test class


@pytest.mark.parametrize(
    ("count", "refused", "round_trips", "expected"),
    [
        (1, 0, [0.02], Result(1, 1, 20.0, 0.0, "")),
        (3, 0, [0.05, 0.01, 0.02], Result(3, 3, 20.0, 0.0, "")),
        (4, 0, [0.04, 0.01], Result(4, 2, 40.0, 50.0, "")),
        (3, 1, [0.01], Result(3, 1, 10.0, 66.7, "")),
        (2, 0, [], Result(2, 0, -1.0, 100.0, "")),
        (3, 3, [], Result(3, 0, -1.0, 100.0, because("no_way_out"))),
    ],
)
def test_arithmetic(count: int, refused: int, round_trips: list[float], expected: Result) -> None:
    assert tunnel_test._tested(count, refused, round_trips) == expected


async def test_a_name_that_cannot_be_found_is_a_result(mocker: MockerFixture) -> None:
    mocker.patch("rpcd_wireguard_uplink.probing.tunnel_test.resolve_all", return_value=())
    found = await tunnel_test.run_test("wgup_a", "no.such.name", 3)
    assert found.sent == 0
    assert "no.such.name has no address" in found.error


async def test_a_tunnel_that_cannot_be_probed_is_a_result(mocker: MockerFixture) -> None:
    mocker.patch.object(Prober, "open", side_effect=NotSupported("run as root"))
    assert (await tunnel_test.run_test("wgup_a", "192.0.2.1", 3)).error == "run as root"
