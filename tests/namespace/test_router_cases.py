"""What real routers do in the middle of an outage, played with packets."""

from __future__ import annotations

import time

import pytest

from tests.lab.meter import Flows
from tests.lab.router import Router

pytestmark = pytest.mark.needs("conntrack")

DOWN_S = 0.5
"""netifd takes 1.1 to 1.8 s to set a router's interfaces up anew."""

RESTART = """
for device in $(ip -o link show | cut -d: -f2 | cut -d@ -f1); do
  case $device in lo|wgup_*) continue ;; esac
  ip -o addr show dev $device scope global | while read -r _ _ family address _; do
    echo "ip addr add $address dev $device"
  done
done >/run/restart
ip route show default | sed 's/^/ip route add /' >>/run/restart
ip -6 route show default | sed 's/ pref medium//; s/^/ip -6 route add /' >>/run/restart
devices=$(sed -n 's/.* dev \\([a-z0-9]*\\)$/\\1/p' /run/restart | sort -u)
for device in $devices; do ip link set $device down; ip addr flush dev $device; done
ip route flush table main
ip -6 route flush table main
sleep %s
for device in $devices; do ip link set $device up; done
sh /run/restart
"""


def test_a_network_restart_in_an_outage(router: Router) -> None:
    """`/etc/init.d/network restart`: addresses, routes and links go and come anew."""
    network = router.network
    provider_wan = network.provider_wans[0]
    with Flows(network.host) as flows:
        network.wan.drop()
        router.wait_failed_over()
        network.consumer.sh(RESTART % DOWN_S)
        back = time.monotonic()
        for meter, address in zip(flows, provider_wan.addresses, strict=True):
            answered = meter.wait_for_source(address, since=back - DOWN_S)
            assert answered.sent - back < 1.0
        network.wan.restore()
        router.wait_primary()
        for meter, address in zip(flows, network.wan.addresses, strict=True):
            meter.wait_for_source(address)
