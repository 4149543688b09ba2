"""A router that lacks something for a while: disk, memory, descriptors, the right time.

Each is taken away in the middle of a change and given back. The service, begun again where it
ended, is then as before or after the change, by itself.
"""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.lab.lab import Lab

from .child import Shared
from .crashes import MANY, Row, describe, learn
from .scene import Scene

LACKING_S = 4.0
DAY_S = 86400
RECOVERED_S = 60.0  # what can't be made is tried again less and less often, twice a minute at last


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is taken away, and given back."""

    name: str
    take: Callable[[Scene, random.Random], object]
    give: Callable[[Scene], object]


def _disk(number: int, *, from_begin: bool) -> Callable[[Scene, random.Random], object]:
    def take(scene: Scene, chance: random.Random) -> None:
        scene.service.strike(0 if from_begin else chance.randrange(30) + 1, Shared.FAIL)
        scene.service.forker.do("set", values={"error": number})

    return take


def _mended(scene: Scene) -> None:
    scene.service.forker.do("set", values={"error": 0, "left": 0})


def _limit(what: str, spare: Callable[[Scene], int]) -> Callable[[Scene, random.Random], object]:
    return lambda scene, _: scene.service.forker.do("limit", kind=what, value=spare(scene))


def _unlimited(what: str) -> Callable[[Scene], object]:
    return lambda scene: scene.service.forker.do("limit", kind=what, value=-1)


def _memory(scene: Scene) -> int:
    pages = scene.service.forker.do("read", name="statm").split()[0]
    return int(pages) * 4096 + (1 << 20)


def _files(scene: Scene) -> int:
    return len(scene.service.forker.do("read", name="fd")) + 1


def _clock(seconds: int) -> Callable[[Scene, random.Random], object]:
    return lambda scene, _: scene.service.forker.do("set", values={"clock_s": seconds})


def _right_time(scene: Scene) -> None:
    scene.service.forker.do("set", values={"clock_s": 0})


LACKS = (
    Lack("disk full in the middle", _disk(errno.ENOSPC, from_begin=False), _mended),
    Lack("disk full", _disk(errno.ENOSPC, from_begin=True), _mended),
    Lack("disk read-only", _disk(errno.EROFS, from_begin=True), _mended),
    Lack("no descriptors", _limit("files", _files), _unlimited("files")),
    Lack("no memory", _limit("memory", _memory), _unlimited("memory")),
    Lack("clock a day ahead", _clock(DAY_S), _right_time),
    Lack("clock a day behind", _clock(-DAY_S), _right_time),
)


def measure(
    rounds: int, seed: int, names: tuple[str, ...] = ("add", "offer"), lacks: Sequence[Lack] = LACKS
) -> list[Row]:
    """Each lack in so many makings, and takings back, of these changes."""
    rows = {lack.name: Row(lack.name) for lack in lacks}
    chance = random.Random(f"limits {seed}")
    todo = [(name, lack) for name in names for lack in lacks for _ in range(2 * rounds)]
    while todo:
        with Lab() as lab:
            scene = Scene(lab, "standalone")
            learned: dict[str, list[str]] = {}
            while todo:
                name, lack = todo.pop()
                change = next(each for each in scene.changes() if each.name == name)
                if name not in learned:
                    learned[name] = learn(scene, change)[0]
                fault, took_s = _try(scene, name, lack, chance, learned[name])
                rows[lack.name].add(took_s, fault)
                if fault or (todo and todo[-1][0] != name):
                    break
    return list(rows.values())


def _try(
    scene: Scene, name: str, lack: Lack, chance: random.Random, states: list[str]
) -> tuple[str, float]:
    service = scene.service
    change = next(each for each in scene.changes() if each.name == name)
    is_wanted = not change.is_done()
    change.before(is_wanted)
    service.strike(MANY, Shared.FAIL)
    lack.take(scene, chance)
    work = change.do if is_wanted else change.undo
    caller = threading.Thread(target=work, daemon=True)
    caller.start()
    caller.join(LACKING_S)
    lack.give(scene)
    began = time.monotonic()
    seen = ""
    while seen not in states and time.monotonic() - began < RECOVERED_S:
        if not service.running:
            service.start()
        seen = scene.settle(lambda text: text in states or not service.running, 10.0)
    took_s = time.monotonic() - began
    what = f"{lack.name} in {change.name if is_wanted else change.back}"
    return ("" if seen in states else describe(what, states, seen, service)), took_s
