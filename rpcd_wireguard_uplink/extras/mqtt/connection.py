"""One connection to an MQTT broker: paho-mqtt's own, run by the event loop.

The library blocks only while it looks the broker up, connects and shakes hands: that has a thread.
After that the loop calls it when its socket can be read or written, so none of its callbacks comes
from another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from ...tasks import begin_thread

MOST_PAYLOAD = 16384
MOST_PACKET = MOST_PAYLOAD + 1024
KEEPALIVE_S = 30
CLOSE_S = 2.0
MOST_AT_ONCE = 16
TURN_S = 0.02

MOST_WAITING = 200  # of our messages
_QUEUE_IS_FULL = 15  # MQTT_ERR_QUEUE_SIZE
_CONNECT = 1  # the packet's type (MQTT 5, 2.1.2)


class Link:
    """One connection that the library has made, read and written as the event loop says."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._heard = 0
        self._loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[int] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._sock: socket.socket | None = client.socket()
        self._turn: asyncio.TimerHandle | None = None
        self._last: Any = None
        if self._sock is None:
            raise ConnectionError("the connection was closed at once")
        self._fd = self._sock.fileno()
        client.on_connect = self._answered
        client.on_log = self._note
        client.on_socket_close = lambda *_: self._forget()
        client.on_socket_register_write = lambda *_: self._follow_writes()
        client.on_socket_unregister_write = lambda *_: self._follow_writes()
        self._loop.add_reader(self._fd, self._readable)
        self._follow_writes()

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send a message that the topic keeps, at least once; whether there was a connection."""
        self._last = self.client.publish(topic, payload, qos=1, retain=True)
        if self._last.rc == _QUEUE_IS_FULL:
            self._fail(ConnectionError("it acknowledges nothing"))
        return bool(self._last.rc == 0)

    async def lost(self) -> None:
        """Return when the connection is no more; raises what the library stumbled over."""
        while not self._lost.done():
            await asyncio.wait([self._lost], timeout=KEEPALIVE_S / 6)
            self.client.loop_misc()
        self._lost.result()

    async def finish(self) -> None:
        """Take leave, so that there is no last will: after what was published has arrived."""
        for _ in range(int(CLOSE_S / TURN_S)):
            if self._last is None or self._last.is_published() or self._lost.done():
                break
            await asyncio.sleep(TURN_S)
        self.leave()
        await asyncio.wait([self._lost], timeout=CLOSE_S)

    def leave(self) -> None:
        self.client.disconnect()

    def close(self) -> None:
        """Close the socket; the broker takes it for a death if `finish` was not called."""
        self._lost.cancel()
        self.accepted.cancel()
        if self._sock is not None:
            sock = self._sock
            self._forget()
            sock.close()

    def _answered(self, client: Any, userdata: Any, flags: Any, reason: Any, *_: Any) -> None:
        if not self.accepted.done():
            self.accepted.set_result(getattr(reason, "value", reason))

    def _note(self, client: Any, userdata: Any, level: int, text: str) -> None:
        """Count packets of any kind: the library tells of each in its log."""
        self._heard += text.startswith("Received")

    def _forget(self) -> None:
        """The library closes its socket, or we do: its number may soon be another file's."""
        if self._sock is None:
            return
        self._sock = None
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._turn is not None:
            self._turn.cancel()
        if not self._lost.done():
            self._lost.set_result(None)
        if not self.accepted.done():
            self.accepted.set_exception(
                ConnectionError("it closed the connection; it must speak MQTT 5")
            )

    def _readable(self) -> None:
        """Take a few packets and then let others have their turn, whatever the broker sends."""
        before = self._heard
        for _ in range(MOST_AT_ONCE):
            if not self._attempt(self.client.loop_read):
                return
        if self._heard != before and self._sock is not None:
            self._loop.remove_reader(self._fd)
            self._turn = self._loop.call_later(TURN_S, self._next_turn)

    def _next_turn(self) -> None:
        # What TLS has decrypted already does not make the socket readable: so it is read here.
        self._loop.add_reader(self._fd, self._readable)
        self._readable()

    def _follow_writes(self) -> None:
        if self._sock is not None:
            if self.client.want_write():
                self._loop.add_writer(self._fd, self._attempt, self.client.loop_write)
            else:
                self._loop.remove_writer(self._fd)

    def _attempt(self, step: Callable[[], Any]) -> bool:
        """Let the library do a step; whether there is a connection after it."""
        try:
            step()
            # The library would keep 256 MB of a packet until it is whole.
            if getattr(self.client, "_in_packet", {}).get("remaining_length", 0) > MOST_PACKET:
                raise ConnectionError("it sends packets that are larger than was asked for")
            if getattr(self.client, "_in_messages", None):  # which are kept until it says more
                raise ConnectionError("it sends with a quality of service that was not asked for")
        except Exception as error:
            self._fail(error)
        return self._sock is not None

    def _fail(self, error: Exception) -> None:
        waiting = self._lost if self.accepted.done() else self.accepted
        if not waiting.done():
            waiting.set_exception(error.with_traceback(None))
        self.close()


async def connect(mqtt: Any, client: Any, host: str, port: int) -> None:
    """Look the broker up, connect and shake hands, in a thread that nobody has to wait for.

    A connection that nobody waits for any more is closed when it is made. Raises OSError.
    """
    properties = mqtt.Properties(_CONNECT)
    properties.MaximumPacketSize = MOST_PACKET  # the broker keeps larger ones from us
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        failure: Exception | None = None
        try:
            client.connect(host, port, KEEPALIVE_S, properties=properties)
        except Exception as error:
            # Without its traceback, whose frames would keep the socket open.
            failure = error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop may be gone meanwhile
            loop.call_soon_threadsafe(finish, failure)

    def finish(failure: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if failure is None else done.set_exception(failure)
        elif (sock := client.socket()) is not None:
            sock.close()

    begin_thread(work)
    try:
        await done
    except asyncio.CancelledError:
        if not done.cancelled():  # it is connected since this moment, and nobody was told
            finish(None)
        raise
