"""One connection of the server: one request, its answer, and the bounds on both.

Owns the socket and its callbacks on the loop. Works on the socket directly because asyncio's
streams and transports cost more memory and CPU for each request. How many connections there are
is server.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import h11

from ...tasks import tell

MOST_BODY = 16384
MOST_HEADERS = 8192

_SENTENCES = {
    400: ("bad_request", "This is not HTTP as it should be."),
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method."),
    411: ("length_required", "Send the body with a Content-Length."),
    413: ("too_large", f"The body may have {MOST_BODY} bytes."),
    429: ("too_many_requests", "Too many requests from this address; ask again later."),
    431: ("too_large", f"The headers may have {MOST_HEADERS} bytes."),
    500: ("internal", "The request failed here; the log of this router says where."),
    503: ("busy", "Too many connections; ask again later."),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `source` is the sender's address in plain form, `device` the listener's."""

    method: str
    path: str
    body: bytes
    source: str
    device: str


@dataclass(frozen=True, slots=True)
class Response:
    """The status of an answer and its JSON object, or plain `text` in its place."""

    status: int
    table: Mapping[str, object]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What every connection of a server obeys: `paths` maps a path to the methods it takes,
    `refused` hears the code of what never reached the handler.
    """

    handler: Callable[[Request], Awaitable[Response]]
    paths: Mapping[str, Collection[str]]
    request_s: float
    refused: Callable[[str], None]


class Connection:
    """Reads one request, has it answered, and ends when the peer has the answer or time is over.

    `gone` is called when nothing of the connection is left.
    """

    __slots__ = (
        *("source", "_answered", "_body", "_deadline", "_device", "_gone", "_loop", "_out"),
        *("_parser", "_request", "_room", "_rules", "_sock", "_task"),
    )

    def __init__(
        self,
        sock: socket.socket,
        source: str,
        device: str,
        rules: Rules,
        gone: Callable[[Connection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.source = source
        self._sock = sock
        self._device = device
        self._rules = rules
        self._gone = gone
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEADERS)
        self._request: h11.Request | None = None
        self._body = b""
        self._room = MOST_HEADERS + 1  # one too many is enough for the parser to refuse
        self._out: bytes | memoryview = b""
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._deadline = self._loop.call_later(rules.request_s, self._expire)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The work on the answer while it goes on; None while the connection waits for its peer."""
        return self._task

    def begin(self) -> None:
        """Read what is there already, mostly the whole request, and wait for the rest."""
        self._loop.add_reader(self._sock.fileno(), self._readable)
        self._readable()

    def close(self) -> None:
        """End the connection; a request that is being handled keeps its place until it is done."""
        self._deadline.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        if self._task is None:
            self._gone(self)

    def _expire(self) -> None:
        if not self._answered and self._task is None:
            self._rules.refused("too_slow")
        self.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(self._room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if self._answered:
            if not data:
                self.close()
            return
        try:
            self._parser.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            self._refuse(431 if error.error_status_hint == 431 else 400)

    def _advance(self) -> None:
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                status = refused(event, self._rules.paths)
                if status:
                    self._refuse(status)
                    return
                self._request = event
                self._room = MOST_BODY
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                # Nothing more is read, so that one connection can't bring two requests.
                self._loop.remove_reader(self._sock.fileno())
                self._task = self._loop.create_task(self._handle())
                return
            else:
                if event is not h11.NEED_DATA:
                    self.close()
                return

    async def _handle(self) -> None:
        assert self._request is not None
        method, path = self._request.method.decode(), path_of(self._request)
        request = Request(method, path, self._body, self.source, self._device)
        try:
            data = encoded(await self._rules.handler(request))
        except Exception as error:
            tell("answering a peer", error)
            data = refusal(500)
        finally:
            self._task = None
        if self._sock.fileno() >= 0:
            self._send(data)
        else:
            self._gone(self)

    def _refuse(self, status: int) -> None:
        self._rules.refused(code_of(status))
        self._send(refusal(status))

    def _send(self, data: bytes) -> None:
        self._answered = True
        self._out = data
        self._loop.remove_reader(self._sock.fileno())
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        self._out = memoryview(self._out)[sent:]
        if self._out:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        elif self._parser.their_state is h11.DONE and not self._parser.trailing_data[0]:
            self.close()
        else:
            # What the peer still sends is thrown away: closing now would reset the connection, and
            # the answer could be lost with it.
            self._loop.remove_writer(self._sock.fileno())
            self._room = MOST_BODY
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._loop.add_reader(self._sock.fileno(), self._readable)


def refused(request: h11.Request, paths: Mapping[str, Collection[str]]) -> int:
    """The status that a request is refused with before its body is read, 0 for none."""
    methods = paths.get(path_of(request))
    if methods is None:
        return 404
    if request.method.decode() not in methods:
        return 405
    headers = dict(request.headers)
    if b"transfer-encoding" in headers:
        return 411  # a body in chunks of one byte would cost the parser a second of CPU
    return 413 if int(headers.get(b"content-length", 0)) > MOST_BODY else 0


def path_of(request: h11.Request) -> str:
    """The path of a request without its query."""
    return request.target.decode().partition("?")[0]


def code_of(status: int) -> str:
    """The stable code of the server's own no."""
    return _SENTENCES[status][0]


def refusal(status: int) -> bytes:
    """The server's own no, ready to be sent."""
    code, sentence = _SENTENCES[status]
    return encoded(Response(status, {"success": False, "error": sentence, "code": code}))


def encoded(response: Response) -> bytes:
    """An answer as it is sent: always with its length, always the last of its connection."""
    kind, text = "text/plain; version=0.0.4; charset=utf-8", response.text
    if not text:
        kind, text = "application/json", json.dumps(response.table, separators=(",", ":"))
    body = text.encode()
    head = (
        f"HTTP/1.1 {response.status} \r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
