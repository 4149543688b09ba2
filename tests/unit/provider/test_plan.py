"""Where an offer says that this router can be reached."""

from __future__ import annotations

from rpcd_wireguard_uplink.config.options import ProviderSettings
from rpcd_wireguard_uplink.mesh.wire.endpoints import MOST_ENDPOINTS, ScopedEndpoint
from rpcd_wireguard_uplink.provider.plan import reachable_by

SETTINGS = ProviderSettings(listen_port=7)


def test_public_ways_first_and_none_through_a_tunnel() -> None:
    addresses = {
        "lan": ["192.168.1.1/24", "fd00::1/64"],
        "wan": ["8.8.4.4/24", "2a00:1450::1/64"],
        "wg0": ["10.9.0.1/24"],
        "wgup_nodea": ["10.1.2.3/32"],
    }
    found = reachable_by(addresses, {"wg0"}, SETTINGS)
    assert [(each.host, each.scope) for each in found] == [
        ("8.8.4.4", "public"),
        ("2a00:1450::1", "public"),
        ("192.168.1.1", "link"),
        ("fd00::1", "link"),
    ]
    assert {each.port for each in found} == {7}


def test_behind_a_carriers_translation_only_neighbours_reach_it() -> None:
    found = reachable_by({"wan": ["100.64.3.4/10"]}, (), SETTINGS)
    assert found == (ScopedEndpoint("100.64.3.4", 7, "link"),)


def test_what_the_owner_says_comes_first() -> None:
    settings = ProviderSettings(listen_port=7, endpoint="home.example")
    found = reachable_by({"wan": ["8.8.4.4/24"]}, (), settings)
    assert [each.host for each in found] == ["home.example", "8.8.4.4"]


def test_an_offer_names_only_so_many() -> None:
    addresses = {f"lan{n}": [f"10.{n}.0.1/24"] for n in range(20)}
    assert len(reachable_by({**addresses, "wan": ["8.8.4.4/32"]}, (), SETTINGS)) == MOST_ENDPOINTS
    assert reachable_by({}, (), SETTINGS) == ()
