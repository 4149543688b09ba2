"""Run in a namespace by test_rtnetlink: what the kernel says, copied and taken away again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.system.netlink import ROUTE, Events
from rpcd_wireguard_uplink.system.rtnetlink import (
    EVENT_GROUPS,
    MAIN,
    UNREACHABLE,
    Kernel,
    Route,
    Rule,
    add_route,
    add_rule,
    by_device,
    delete_route,
    delete_rule,
    filled,
    link_events,
)
from tests.unit.steering.scenes import plan_changes

TABLE, PROTOCOL = 5180, 151


def tell(kernel: Kernel) -> dict[str, object]:
    return {
        "devices": {d.name: d.carrier for d in kernel.devices()},
        "addresses": sorted(address.text for address in kernel.addresses()),
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
            address: kernel.device_towards(address, 0) for address in ("192.0.2.9", "10.9.0.1")
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
    return {"refused": refused, "are_many": first > 1000, "again": again, "left": left}


def news(kernel: Kernel) -> dict[str, object]:
    events = Events(ROUTE, EVENT_GROUPS)
    kernel.set_device("tun0", mtu=1300)
    route, rule = Route(Family.IPV6, TABLE, "2001:db8:7::/48"), Rule(Family.IPV6, 50, TABLE)
    route = replace(route, kind=7)
    kernel.change([add_route(route), add_rule(rule), delete_rule(rule), delete_route(route)])
    messages, lost = events.read()
    assert not lost
    subprocess.run(["ip", "link", "set", "far", "down"], check=True)
    names = {d.index: d.name for d in kernel.devices()}
    carriers: dict[str, bool] = {}
    deadline_s = time.monotonic() + 10.0
    while set(carriers) != {"far", "wan"} and time.monotonic() < deadline_s:
        for event in link_events(events.read()[0]):
            if event is not None:
                carriers[names[event[0]]] = event[1]
    events.close()
    mtu = {d.name: d.mtu for d in kernel.devices()}["tun0"]
    missing = ""
    try:
        kernel.set_device("gone", mtu=1300)
    except CommandFailed as error:
        missing = str(error)
    return {
        "kinds": sorted({m.kind for m in messages}),
        "mtu": mtu,
        "missing": missing,
        "carriers": carriers,
    }


def change(kernel: Kernel) -> dict[str, object]:
    """A device is made, set, given addresses and others, and deleted."""
    kernel.make_device("made0", "bridge")
    kernel.set_device("made0", alias="ours", group=51, mtu=1400, up=True)
    kernel.set_addresses("made0", ("10.1.2.1/24", "10.1.2.2/24", "fd00::1/64"))
    kernel.set_addresses("made0", ("10.1.2.2/24", "10.1.3.1/32", "fd00::2/128"))
    made = next(d for d in kernel.devices() if d.name == "made0")
    found: dict[str, object] = {
        "device": [made.alias, made.group, made.mtu, made.kind, made.carrier],
        "addresses": sorted(by_device(kernel.addresses())["made0"]),
        "routes": [kernel.has_route("100.0.0.1", "10.1.2.9", "made0")],
        "neighbour": [kernel.neighbour("wan", a) for a in ("192.0.2.1", "192.0.2.99")],
        "defaults": [(r.device, r.gateway, r.metric) for r in kernel.default_routes(Family.IPV4)],
        "destinations": [("tun0", "203.0.113.0/24"), ("", "10.9.0.0/16")],
    }
    ours = Route(Family.IPV4, 5181, "10.66.0.0/16", (), 1, UNREACHABLE, PROTOCOL)
    assert kernel.change([add_route(ours)]) == [0] and ours in kernel.routes(Family.IPV4)
    assert ("", ours.destination) not in kernel.destinations()
    found["destinations"] = [d for d in found["destinations"] if d in kernel.destinations()]
    kernel.change([delete_route(r) for r in kernel.routes(Family.IPV4) if not r.length])
    found["routes"] += [kernel.has_route("100.0.0.1", "10.1.2.9", "made0")]
    kernel.delete_device("made0")
    kernel.delete_device("made0")
    return {**found, "left": [d.name for d in kernel.devices() if d.name == "made0"]}


if __name__ == "__main__":
    done = {"tell": tell, "copy": copy, "news": news, "change": change}[sys.argv[1]]
    print(json.dumps(done(Kernel())))
