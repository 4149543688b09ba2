"""Work that must go on whatever happens: a task that fails is told of and begun again.

A failover that stopped probing because of one unexpected exception would be worse than none. Knows
nothing of the work. The log gets the exception's class and place, never its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

RESTART_PAUSE_S = 1.0
WELL_S = 60.0  # what has run so long without failing again is well


async def keep_running(
    name: str, begin: Callable[[], Coroutine[Any, Any, None]], problems: dict[str, str]
) -> None:
    """Run `begin()` for ever; where it fails, begin again, and say so in `problems` for a while."""
    while True:
        try:
            await begin()
        except Exception as error:
            tell_awhile(f"task {name}", name, error, problems)
        await asyncio.sleep(RESTART_PAUSE_S)


def tell_awhile(topic: str, name: str, error: Exception, problems: dict[str, str]) -> None:
    """Log an exception, and let status tell of it until the work has run well for a minute."""
    told = problems[topic] = tell(name, error)

    def forget() -> None:
        if problems.get(topic) is told:
            del problems[topic]

    asyncio.get_running_loop().call_later(WELL_S, forget)


def tell(name: str, error: Exception) -> str:
    """Log an unexpected exception of some work; the sentence for status."""
    import logging

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        "?" if trace is None else f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
    )
    logging.getLogger(__name__).error("%s: %s at %s", name, type(error).__name__, place)
    return f"{name} failed unexpectedly ({type(error).__name__} at {place}) and was begun again"
