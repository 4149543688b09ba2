"""From a call that arrived to the reply that leaves: decodes, runs the handler, answers.

A handler's own failure ends here: it is logged, and the caller learns nothing but UNKNOWN_ERROR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..errors import BusError, Status
from .blobmsg import decode_table
from .objects import BusObject, Listener, Reply
from .protocol import Connection, Invoked

MAX_RUNNING = 256
"""Calls that may be in progress at once; one more is answered with NO_MEMORY."""


class Dispatcher:
    """Runs the handlers of published objects and the callbacks of listeners."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def handle(
        self, invoked: Invoked, connection: Connection, write: Callable[[bytes], None]
    ) -> None:
        """Answer a call now, or later where its handler returns an awaitable; never raises.

        `write` takes the reply's bytes; it must ignore them once its connection is gone.
        """
        result = self._start(invoked)
        if isinstance(result, Reply):
            # An event comes from the bus itself (peer 0), which takes no answer.
            if invoked.peer:
                write(encode_reply(invoked, connection, result))
        elif len(self._running) >= MAX_RUNNING:
            stop = getattr(result, "close", None) or getattr(result, "cancel", None)
            if stop is not None:  # a coroutine that is not awaited would complain
                stop()
            write(connection.reply(invoked, Reply(status=Status.NO_MEMORY)))
        else:
            task = asyncio.ensure_future(_finish(invoked, connection, write, result))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _start(self, invoked: Invoked) -> Reply | Awaitable[Reply]:
        target = invoked.target
        if isinstance(target, Listener):
            try:
                target.callback(invoked.method, decode_table(invoked.data or b""))
            except Exception:
                report(f"what listens for {invoked.method!r:.80} failed")
            return Reply()
        if target is None:
            return Reply(status=Status.NOT_FOUND)
        if not invoked.method or invoked.data is None:
            return Reply(status=Status.INVALID_ARGUMENT)
        try:
            arguments = decode_table(invoked.data)
        except BusError as error:
            table = {"success": False, "error": str(error), "code": "malformed"}
            return Reply(table, Status.INVALID_ARGUMENT)
        try:
            return target.handler(invoked.call(target.path, arguments))
        except Exception:
            return _failed(invoked)

    async def close(self) -> None:
        """Cancel the handlers that are still running and wait for their end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _finish(
    invoked: Invoked,
    connection: Connection,
    write: Callable[[bytes], None],
    result: Awaitable[Reply],
) -> None:
    try:
        reply = await result
    except Exception:
        reply = _failed(invoked)
    write(encode_reply(invoked, connection, reply))


def encode_reply(invoked: Invoked, connection: Connection, reply: Reply) -> bytes:
    """The reply's bytes, those of UNKNOWN_ERROR where it can't be encoded."""
    try:
        return connection.reply(invoked, reply)
    except Exception:
        return connection.reply(invoked, _failed(invoked))


def report(message: str) -> None:
    """Log an exception that is being handled. The module is loaded here, when it is needed."""
    import logging

    logging.getLogger(__name__).exception(message)


def _failed(invoked: Invoked) -> Reply:
    path = invoked.target.path if isinstance(invoked.target, BusObject) else ""
    report(f"the handler of {path} {invoked.method!r:.80} failed")
    return Reply(status=Status.UNKNOWN_ERROR)
