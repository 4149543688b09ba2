"""Run in a namespace by test_rtnetlink: what the kernel says, copied and taken away again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.netlink import ROUTE, Events
from rpcd_wireguard_uplink.system.rtnetlink import (
    EVENT_GROUPS,
    MAIN,
    Kernel,
    Route,
    Rule,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
    filled,
)
from tests.unit.steering.scenes import plan_changes

TABLE, PROTOCOL = 5180, 151


def tell(kernel: Kernel) -> dict[str, object]:
    names = {d.index: d.name for d in kernel.devices()}
    return {
        "devices": {d.name: d.carrier for d in kernel.devices()},
        "addresses": [text for _, text, _ in kernel.addresses()],
        "rules": {f.value: [rule.priority for rule in kernel.rules(f)] for f in Family},
        "defaults": {
            f.value: [
                hop.gateway
                for route in kernel.routes(f)
                if route.table == MAIN and not route.length
                for hop in route.hops
            ]
            for f in Family
        },
        "towards": {
            address: names.get(kernel.device_towards(address, 0), "")
            for address in ("192.0.2.9", "10.9.0.1")
        },
    }


def ours(kernel: Kernel, family: Family) -> tuple[list[Route], list[Rule]]:
    held = [r for r in kernel.routes(family) if r.table == TABLE]
    return held, [r for r in kernel.rules(family) if r.protocol == PROTOCOL]


def copy(kernel: Kernel) -> dict[str, object]:
    refused, first, again, left = [], 0, 0, 0
    for family in Family:
        routes = [
            replace(r, table=TABLE, hops=filled(r.hops), protocol=PROTOCOL)
            for r in kernel.routes(family)
            if r.table == MAIN
        ]
        rules = [
            replace(r, priority=r.priority - 1, protocol=PROTOCOL)
            for r in kernel.rules(family)
            if r.priority
        ]
        wanted = plan_changes(*map(list, ([], routes, [], rules)))
        first += len(wanted)
        codes = kernel.change([request.message for request in wanted])
        refused += [
            f"{code}: {request.about}" for request, code in zip(wanted, codes, strict=True) if code
        ]
        held, put = ours(kernel, family)
        again += len(plan_changes(held, routes, put, rules))
        gone = plan_changes(held, [], put, [])
        kernel.change([request.message for request in gone])
        left += sum(map(len, ours(kernel, family)))
    return {"refused": refused, "first": first, "again": again, "left": left}


def news(kernel: Kernel) -> dict[str, object]:
    events = Events(ROUTE, EVENT_GROUPS)
    index = {d.name: d.index for d in kernel.devices()}["tun0"]
    kernel.set_mtu(index, 1300)
    route, rule = Route(Family.IPV6, TABLE, "2001:db8:7::/48"), Rule(Family.IPV6, 50, TABLE)
    route = replace(route, kind=7)
    kernel.change([add_route(route), add_rule(rule), delete_rule(rule), delete_route(route)])
    messages, lost = events.read()
    assert not lost
    events.close()
    mtu = {d.name: d.mtu for d in kernel.devices()}["tun0"]
    missing = kernel.set_mtu(9999, 1300)
    return {"kinds": sorted({m.kind for m in messages}), "mtu": mtu, "missing": bool(missing)}


if __name__ == "__main__":
    done = {"tell": tell, "copy": copy, "news": news}[sys.argv[1]]
    print(json.dumps(done(Kernel())))
