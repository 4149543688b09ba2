"""Run in a namespace by test_real_kernel: a diversion put in force and taken back, as one sees it.

Beside each rule of others that its argument has (JSON: name -> rule) it prints, for each family,
where packets go before, in and after it, and what a second look asks for.
"""

from __future__ import annotations

import json
import subprocess
import sys

from rpcd_wireguard_uplink.model import DefaultRoute, Family
from rpcd_wireguard_uplink.steering.plan import Diversion, SteeringPlan
from rpcd_wireguard_uplink.steering.routing import Routing
from rpcd_wireguard_uplink.steering.rules import is_ours
from rpcd_wireguard_uplink.system.netlink import Message
from rpcd_wireguard_uplink.system.rtnetlink import Kernel
from rpcd_wireguard_uplink.warnings import Warnings

GATEWAYS = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
ASKED = {Family.IPV4: ("9.9.9.9", "203.0.113.9"), Family.IPV6: ("2001:db8:99::9", "2001:db8:9::9")}


class Counting(Kernel):
    """Counts what it is asked, and notes what it refuses; says nothing of changes."""

    asked = 0
    refused: list[int]

    def listen(self, on_news: object) -> None:  # type: ignore[override]
        return None

    def change(self, messages: list[Message]) -> list[int]:  # type: ignore[override]
        codes = super().change(messages)
        self.asked += len(messages)
        self.refused += [code for code in codes if code]
        return codes


def run(family: Family) -> dict[str, object]:
    kernel = Counting()
    kernel.refused = []
    warnings = Warnings()
    routing = Routing(kernel, warnings)
    wans = {family: (DefaultRoute(family, "wan", GATEWAYS[family]),)}
    home = SteeringPlan(("wgup_a",), wans=wans, primary={family: "wan"})
    route = DefaultRoute(family, "wgup_a")
    diversions = {family: Diversion(family, ("wan",), route)}
    away = SteeringPlan(("wgup_a",), wans=wans, primary={family: "wan"}, diversions=diversions)
    told: dict[str, object] = {}
    again = 0
    for name, plan in (("home", home), ("away", away), ("back", home)):
        routing.follow(plan, {})
        before = kernel.asked
        routing.follow(plan, {})
        Routing(kernel, warnings).follow(plan, {})
        again += kernel.asked - before
        told[name] = [
            kernel.device_towards(address, mark) for address in ASKED[family] for mark in (0, 0x51)
        ]
    routing.follow(SteeringPlan(), {})
    left = [r for r in kernel.rules(family) if is_ours(r)]
    return {**told, "refused": kernel.refused, "again": again, "left": len(left), **warnings}


def beside(rule: str) -> dict[str, object]:
    def change(verb: str) -> None:
        for version in ("-4", "-6") if rule else ():
            subprocess.run(["ip", version, "rule", verb, *rule.split()], check=True)

    change("add")
    found = {family.value: run(family) for family in Family}
    change("del")
    return found


if __name__ == "__main__":
    print(json.dumps({name: beside(rule) for name, rule in json.loads(sys.argv[1]).items()}))
