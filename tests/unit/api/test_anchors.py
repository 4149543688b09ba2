"""What status says of anchors: where their connections go, and what the owner should know."""

from __future__ import annotations

from typing import Any

import pytest

from rpcd_wireguard_uplink.model import Family, Health
from tests.unit.fakes import key_of, set_network
from tests.unit.router import CONFIG, LINE, Router

TUNNEL = "wgup_nodea"
UPLINK = f"""
config uplink '{TUNNEL}'
	option peer_id 'nodea'
	option endpoint_host '192.0.2.7'
	option public_key '{key_of("a")}'
"""
ANCHORS = """
config anchor 'calls'
	option peer 'nodea'
	option port '5060'

config anchor 'later'
	option peer 'nodea'
	option port '22'
	option enabled '0'

config anchor 'lost'
	option peer 'nobody'
	option port '22'
"""


async def shown(router: Router) -> tuple[dict[str, Any], str]:
    """The rows by name, and the problems that name anchors."""
    status = await router.call("uplink_status")
    told = [each for each in status["problems"] if each.startswith("anchor ")]
    return {row["name"]: row for row in status["anchors"]}, "\n".join(told)


async def test_where_anchored_connections_go(router: Router) -> None:
    await router.with_neighbour(CONFIG + UPLINK + ANCHORS)
    router.judge(TUNNEL, Health.UP)
    rows, told = await shown(router)
    assert [rows[name]["active"] for name in ("calls", "later", "lost")] == [True, False, False]
    assert rows["calls"]["interface"] == TUNNEL and rows["calls"]["reason"] == ""
    assert rows["later"]["reason"] == "it is disabled in its section"
    assert "anchor lost: there is no uplink to nobody" in told and "later" not in told
    router.judge(TUNNEL, Health.DOWN)
    rows, told = await shown(router)
    assert rows["calls"]["reason"] == f"nothing is answered through {TUNNEL}"
    assert "such connections go by the usual way" in told
    vpn = dict.fromkeys(Family, "vpn0")
    set_network(router.daemon.monitor.network, private_default=vpn)
    assert "vpn0, a VPN, has the default route" in (await shown(router))[0]["calls"]["reason"]


@pytest.mark.parametrize("has_other", [False, True])
async def test_who_has_no_second_underlay_is_told(router: Router, has_other: bool) -> None:
    other = "\tlist other_endpoint '172.16.0.2:51820'\n" if has_other else ""
    await router.with_neighbour(CONFIG + UPLINK + other + ANCHORS)
    router.judge(TUNNEL, Health.UP)
    rows, told = await shown(router)
    assert (f"nodea is reached by {LINE} alone" in rows["calls"]["note"]) is not has_other
    assert ("anchor calls: nodea is reached by" in told) is not has_other
    assert rows["later"]["note"] == rows["lost"]["note"] == ""
