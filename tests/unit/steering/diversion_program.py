"""Run in a namespace by test_real_kernel: a diversion put in force and taken back, as one sees it.

Prints, for each family, where packets go before, in and after it, and what a second look asks for.
"""

from __future__ import annotations

import json

from rpcd_wireguard_uplink.model import PROVIDER_DEVICE, DefaultRoute, Family
from rpcd_wireguard_uplink.steering import tables
from rpcd_wireguard_uplink.steering.kernel_view import is_our_table
from rpcd_wireguard_uplink.steering.plan import DIVERTING, STANDING, Diversion, Owned, SteeringPlan
from rpcd_wireguard_uplink.steering.reconcile import Request, plan_changes
from rpcd_wireguard_uplink.steering.rules import diverting_rules, is_ours, standing_rules
from rpcd_wireguard_uplink.system.rtnetlink import MAIN, Kernel

GATEWAYS = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
ASKED = {Family.IPV4: ("9.9.9.9", "203.0.113.9"), Family.IPV6: ("2001:db8:99::9", "2001:db8:9::9")}


def changes(kernel: Kernel, plan: SteeringPlan, family: Family) -> list[Request]:
    indexes = {device.name: device.index for device in kernel.devices()}
    routes, rules = kernel.routes(family), kernel.rules(family)
    main = [route for route in routes if route.table == MAIN]
    wanted = tables.diverted_routes(plan, family, main, indexes)
    wanted += tables.last_routes(plan, family, indexes)
    wanted += tables.bound_routes(plan, family, indexes)
    wanted += tables.underlay_routes(plan, family, main, indexes, PROVIDER_DEVICE)
    asked = standing_rules(plan, family, rules, []) if plan.owned.tunnels else []
    asked += diverting_rules(plan, family, rules, ["wan"], (), ())
    held = [r for r in routes if is_our_table(r.table) and r.protocol in (STANDING, DIVERTING)]
    return plan_changes(held, wanted, [rule for rule in rules if is_ours(rule)], asked)


def run(family: Family) -> dict[str, object]:
    kernel = Kernel()
    wans = {family: (DefaultRoute(family, "wan", GATEWAYS[family]),)}
    owned = Owned(("wgup_a",), frozenset(), wans)
    home = SteeringPlan(owned, expected={family: ("wan",)})
    route = DefaultRoute(family, "wgup_a")
    away = SteeringPlan(owned, diversions={family: Diversion(family, ("wan",), route)})
    told: dict[str, object] = {"refused": [], "again": 0}
    refused: list[str] = []
    again = 0
    for name, plan in (("home", home), ("away", away), ("back", home)):
        requests = changes(kernel, plan, family)
        codes = kernel.change([request.message for request in requests])
        refused += [f"{c} {r.about}" for r, c in zip(requests, codes, strict=True) if c]
        again += len(changes(kernel, plan, family))
        names = {device.index: device.name for device in kernel.devices()}
        told[name] = [
            names.get(kernel.device_towards(address, mark), "")
            for address in ASKED[family]
            for mark in (0, 0x51)
        ]
    nothing = changes(kernel, SteeringPlan(), family)
    kernel.change([request.message for request in nothing if request.is_removal])
    left = [r for r in kernel.rules(family) if is_ours(r)]
    return {**told, "refused": refused, "again": again, "left": len(left)}


if __name__ == "__main__":
    print(json.dumps({family.value: run(family) for family in Family}))
