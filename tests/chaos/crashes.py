"""Kills and power cuts in the middle of changes: the router is as before or after, by itself."""

from __future__ import annotations

import difflib
import random
import sys
import threading
import time
from dataclasses import dataclass, field

from tests.lab.lab import Lab
from tests.lab.node import LabError

from .child import Shared
from .scene import Change, ForkedService, Scene

PLATFORMS = ("standalone", "openwrt")
CHANGES = ("add", "priority", "apply", "offer", "lease", "distrust")
KINDS = {"SIGKILL": Shared.KILL, "power cut": Shared.CUT}
STRUCK_S = 3.0
ANSWERED_S = (0.2, 15.0)
MANY = 1 << 40


@dataclass(slots=True)
class Row:
    """What one kind of fault came to. `faults` are sentences, each with what reproduces it."""

    kind: str
    tried: int = 0
    survived: int = 0
    worst_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, recovered_s: float, fault: str = "") -> None:
        """One more try, which was survived where there is no fault."""
        self.tried += 1
        self.survived += not fault
        self.worst_s = max(self.worst_s, recovered_s)
        if fault:
            self.faults.append(fault)
            print(fault, file=sys.stderr, flush=True)


class Campaign:
    """Tries on one platform. `seed` chooses changes, points and what a power cut leaves.

    A router that did not recover is thrown away, and the next try begins with another.
    """

    def __init__(self, platform: str, seed: int) -> None:
        self.platform = platform
        self.chance = random.Random(f"{platform} {seed}")
        self.rows: dict[str, Row] = {}

    def run(self, name: str, kinds: list[str]) -> None:
        """Break a change, by turns what takes it back, once for each of the kinds."""
        while kinds:
            with Lab() as lab:
                scene = Scene(lab, self.platform)
                change = next(each for each in scene.changes() if each.name == name)
                states, points = learn(scene, change)
                while kinds:
                    is_wanted = not change.is_done()
                    change.before(is_wanted)
                    point = self.chance.randrange(max(1, points[is_wanted])) + 1
                    if not self._try(scene, change, kinds.pop(), point, states):
                        break

    def _try(self, scene: Scene, change: Change, kind: str, point: int, states: list[str]) -> bool:
        service, is_wanted = scene.service, not change.is_done()
        name = change.name if is_wanted else change.back
        devices = service.devices()
        answers: list[bool] = []
        work = change.do if is_wanted else change.undo
        caller = threading.Thread(target=lambda: answers.append(work()), daemon=True)
        service.strike(point, KINDS[kind])
        caller.start()
        deadline = time.monotonic() + STRUCK_S
        while service.running and time.monotonic() < deadline:
            time.sleep(0.01)
        is_struck = not service.running
        if not is_struck:
            service.kill()
        # The bus tells nobody that a callee has gone; a peer that asked finds out itself.
        caller.join(ANSWERED_S[change.name == "lease"])
        succeeded = answers == [True]
        if kind == "power cut" and is_struck:
            service.reboot(self.chance)
        began = time.monotonic()
        service.start()
        is_promised = succeeded and change.name not in ("apply", "lease")
        wanted = states[is_wanted:][:1] if is_promised else states
        seen = scene.settle(lambda text: text in wanted)
        took_s, fault = time.monotonic() - began, ""
        if seen not in wanted:
            what = f"{scene.platform}, {kind} at point {point} of {name} ({answers})"
            fault = describe(what, wanted, seen, service)
        elif kind == "SIGKILL" and (lost := devices - service.devices()):
            fault = f"{scene.platform} {kind} at point {point} of {name}: lost {lost}"
        label = f"{kind}, {scene.platform}: {name}"
        self.rows.setdefault(label, Row(label)).add(took_s, fault)
        return not fault


def learn(scene: Scene, change: Change) -> tuple[list[str], list[int]]:
    """The states before and behind the change, and the points of taking back and making."""
    states, points = ["", ""], [0, 0]
    for is_wanted in (True, False):
        change.before(is_wanted)
        if is_wanted:
            states[0] = scene.rest()
        scene.service.strike(MANY, Shared.FAIL)
        if not (change.do if is_wanted else change.undo)():
            raise LabError(f"{change.name} fails unbroken: {scene.service.log()}")
        states[is_wanted] = scene.rest()
        points[is_wanted] = scene.service.passed(MANY)
        scene.service.strike(0, Shared.FAIL)
    return states, points


def describe(what: str, wanted: list[str], seen: str, service: ForkedService) -> str:
    """What was done, and how the router differs from the nearest of the states it may be in."""
    found = [difflib.unified_diff(w.splitlines(), seen.splitlines(), n=0) for w in wanted]
    nearest = min((list(each) for each in found), key=len)
    return "\n".join([f"{what}:", *(line.rstrip() for line in nearest), service.log(1500)])


def measure(tries: int, seed: int, platforms: tuple[str, ...] = PLATFORMS) -> list[Row]:
    """So many tries, spread over platforms, changes and kinds."""
    rows: list[Row] = []
    for platform in platforms:
        campaign = Campaign(platform, seed)
        share = -(-tries // (len(platforms) * len(CHANGES)))
        for name in CHANGES:
            kinds = [list(KINDS)[number % len(KINDS)] for number in range(share)]
            campaign.chance.shuffle(kinds)
            campaign.run(name, kinds)
        rows += campaign.rows.values()
    return rows
