"""One connection of the HTTP server: one request, its answer, and the bounds on both.

h11 parses and writes. The socket is read directly, because asyncio's streams cost more memory and
CPU for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping

import h11

from ...system.sockets import receive
from ...tasks import tell
from ...values import dataclass

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


class Response:
    """The status of an answer and its JSON object. TypeError or ValueError where it is none."""

    def __init__(self, status: int, table: Mapping[str, object]) -> None:
        self.status, self.table = status, table
        self.body = json.dumps(table, separators=(",", ":")).encode()


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

    `task` is the whole of it, `work` the handler's part while it goes on: that is never cut short.
    """

    def __init__(self, sock: socket.socket, source: str, device: str, rules: Rules) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._source = source
        self._device = device
        self._rules = rules
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEADERS)
        self._was_answered = False
        self.work: asyncio.Future[Response] | None = None
        self.task = self._loop.create_task(self._run())

    def end(self) -> None:
        if self.work is not None:
            self.work.cancel()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._rules.request_s):
                await self._serve()
        except TimeoutError:
            if not self._was_answered and self.work is None:
                self._rules.refused("too_slow")
        except OSError:
            pass  # the peer is gone
        finally:
            self._sock.close()
            if self.work is not None:
                await asyncio.gather(self.work, return_exceptions=True)

    async def _serve(self) -> None:
        try:
            answer = await self._answer()
        except h11.RemoteProtocolError as error:
            answer = self._refuse(431 if error.error_status_hint == 431 else 400)
        if answer is None:
            return
        self._was_answered = True
        is_whole = self._parser.their_state in (h11.DONE, h11.MUST_CLOSE)
        is_all = is_whole and not self._parser.trailing_data[0]
        await self._loop.sock_sendall(self._sock, encoded(answer, self._parser))
        if is_all:
            return
        # What the peer still sends is thrown away: closing now would reset the connection, and the
        # answer could be lost with it.
        self._sock.shutdown(socket.SHUT_WR)
        while await receive(self._sock, MOST_BODY):
            pass

    async def _answer(self) -> Response | None:
        """Read the request and have it answered; None where the peer left without one."""
        room, body = MOST_HEADERS + 1, b""  # one too many is enough for the parser to refuse
        request: h11.Request | None = None
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(await receive(self._sock, room))
            elif isinstance(event, h11.Request):
                if status := _refused(event, self._rules.paths):
                    return self._refuse(status)
                request, room = event, MOST_BODY
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                # Nothing more is read, so that one connection can't bring two requests.
                return await self._handle(request, body)
            else:
                return None

    async def _handle(self, asked: h11.Request, body: bytes) -> Response:
        method, path = asked.method.decode(), _path_of(asked)
        request = Request(method, path, body, self._source, self._device)
        self.work = asyncio.ensure_future(self._rules.handler(request))
        try:
            return await asyncio.shield(self.work)
        except Exception as error:
            tell("answering a peer", error)
            return refusal(500)
        finally:
            if self.work.done():
                self.work = None

    def _refuse(self, status: int) -> Response:
        return refusal(status, self._rules)


def _refused(request: h11.Request, paths: Mapping[str, Collection[str]]) -> int:
    """The status that a request is refused with before its body is read, 0 for none."""
    methods = paths.get(_path_of(request))
    if methods is None:
        return 404
    if request.method.decode() not in methods:
        return 405
    headers = dict(request.headers)
    if b"transfer-encoding" in headers:
        return 411  # a body in chunks of one byte would cost the parser a second of CPU
    return 413 if int(headers.get(b"content-length", 0)) > MOST_BODY else 0


def _path_of(request: h11.Request) -> str:
    return request.target.decode().partition("?")[0]


def refusal(status: int, rules: Rules | None = None) -> Response:
    """The server's own no; with `rules` of a request that never reached the handler."""
    code, sentence = _SENTENCES[status]
    if rules is not None:
        rules.refused(code)
    return Response(status, {"success": False, "error": sentence, "code": code})


def encoded(response: Response, parser: h11.Connection | None = None) -> bytes:
    """An answer as it is sent: always with its length, always the last of its connection."""
    parser = parser or h11.Connection(h11.SERVER)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
    ]
    data = parser.send(h11.Response(status_code=response.status, headers=headers)) or b""
    with contextlib.suppress(h11.LocalProtocolError):  # the answer to HEAD has no body
        data += parser.send(h11.Data(data=response.body)) or b""
    return data
