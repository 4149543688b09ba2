"""One test of a tunnel on request: a number of probes, their round trips, and nothing kept.

Beside the monitor's own probing and apart from it, so that a test never changes a verdict.
"""

from __future__ import annotations

import asyncio
import time

from ..errors import NotSupported
from ..model import Family
from ..reasons import because
from ..system.dns import resolve_all
from ..values import dataclass
from .icmp import Prober

INTERVAL_S = 0.2
PATIENCE_S = 1.5  # how long the last answer is waited for


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test found; `latency_ms` is the median round trip, -1 where nothing answered."""

    sent: int = 0
    received: int = 0
    latency_ms: float = -1.0
    loss_pct: float = 100.0
    error: str = ""


async def run_test(device: str, target: str, count: int, size: int = 0) -> Tested:
    """Send `count` probes to a host through a device; a host that can't be found is a result.

    With `size` they have so many bytes and must not be cut.
    """
    addresses = await resolve_all(target)
    if not addresses:
        return Tested(error=because("no_such_name", target[:40]))
    address = addresses[0]
    prober = Prober(device, Family.of(address))
    try:
        descriptor = prober.open()
    except NotSupported as error:
        return Tested(error=str(error))
    sent_s: dict[int, float] = {}
    round_trips: list[float] = []
    complete = asyncio.Event()

    def on_reply() -> None:
        now_s = time.monotonic()
        for reply in prober.drain():
            begun_s = sent_s.pop(reply.sequence, None)
            if begun_s is not None:
                round_trips.append(now_s - begun_s)
        if len(round_trips) == count:
            complete.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, on_reply)
    refused = 0
    try:
        for number in range(count):
            if number:
                await asyncio.sleep(INTERVAL_S)
            sequence = prober.send(address, size)
            if sequence is None:
                refused += 1
            else:
                sent_s[sequence] = time.monotonic()
        if refused < count:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await complete.wait()
            except TimeoutError:
                on_reply()
    finally:
        loop.remove_reader(descriptor)
        prober.close()
    return _tested(count, refused, round_trips)


def _tested(count: int, refused: int, round_trips: list[float]) -> Tested:
    answered = len(round_trips)
    middle = sorted(round_trips)[answered // 2] if answered else -0.001
    return Tested(
        sent=count,
        received=answered,
        latency_ms=round(middle * 1000, 3),
        loss_pct=round(100.0 * (count - answered) / count, 1),
        error=because("no_way_out") if refused == count else "",
    )


def advice(received: int, handshake_age_s: float | None) -> str:
    """What to look at where a test found nothing reachable; '' where it did."""
    if received:
        return ""
    if handshake_age_s is None:
        return because("admit_us")
    return because("up_but_silent")
