"""Anchored sessions through a WAN's deaths and returns: gaps, other addresses, resets.

A host's datagrams (50 a second) and a TCP connection in use, in each family; they are kept for all
outages. Every second death is a lost carrier that takes the default routes along.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack

from tests.lab.lab import Lab
from tests.lab.meter import Flows, longest, sources
from tests.lab.network import ECHO4, ECHO6, PROVIDER4
from tests.lab.reach import Typing, reached
from tests.lab.router import Router, settings

from .table import Row

ANCHOR = "\nconfig anchor 'bench'\n\toption peer 'nodea'\n\toption port '7'\n"
RATE_HZ = 50


def measure_anchors(switches: int) -> list[Row]:
    """The longest gap at each switch, to the neighbour link or back, and what was lost for good."""
    gaps: list[float] = []
    broken: list[float] = []
    with Lab() as lab, ExitStack() as stack:
        router = Router.started(
            lab, settings(pace="fast") + ANCHOR, hosts=[PROVIDER4], has_two_ways=True
        )
        wan, host = router.network.wan, router.network.host
        ours = dict(zip((ECHO4, ECHO6), router.network.by_uplink, strict=True))
        reached(host, ours)
        flows = stack.enter_context(Flows(host, rate_hz=RATE_HZ))
        typing = [stack.enter_context(Typing(host, address)) for address in ours]
        for number in range(switches):
            time.sleep(random.uniform(0.5, 0.8))  # not always at the same moment
            began = time.monotonic()
            (wan.drop, wan.restore, wan.unplug, wan.plug_in)[number % 4]()
            if number % 2 == 0:
                router.wait_failed_over()
            else:
                router.wait_primary()
                router.wait(lambda s: s["uplinks"][0]["underlay"] == "wan")
            time.sleep(0.5)
            found = [meter.samples(began) for meter in flows]
            gaps.append(
                max(
                    *(longest(samples).seconds for samples in found),
                    *(each.longest_s(began) for each in typing),
                )
            )
            others = [sources(s) != [a] for s, a in zip(found, ours.values(), strict=True)]
            ended = [
                each.words[-1] != "echo" or each.source != address
                for each, address in zip(typing, ours.values(), strict=True)
            ]
            broken.append(float(sum(others) + sum(ended)))
    return [
        Row("anchored sessions: gap at a switch, fast pace", "s", tuple(gaps), 0.5, "worst"),
        Row("anchored sessions: other address or reset", "sessions", tuple(broken), 0, "worst"),
    ]
