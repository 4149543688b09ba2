"""The client: one request to a peer, its answer bounded in size and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

import h11

from ...errors import InvalidArgument, PeerUnreachable, TimedOut
from ...reasons import because, of_errno
from ...schema.json_message import LONGEST_JSON, parse_json_message
from ...system.sockets import receive
from ...text import shortened
from .connection import MOST_BODY, MOST_HEADERS
from .sockets import name_of, tcp_socket


async def request(
    host: str,
    port: int,
    method: str,
    path: str,
    table: Mapping[str, object] | None = None,
    *,
    device: str = "",
    source: str = "",
    timeout_s: float = 5.0,
) -> tuple[int, dict[str, Any]]:
    """Ask a peer at an address literal: the status and the JSON object of its answer.

    `device` and `source` are what the socket is bound to, where given.
    Raises PeerUnreachable (code bad_reply where something answered that is not a peer), TimedOut.
    """
    where = f"{shortened(host)} port {port}"
    body = b"" if table is None else json.dumps(table, separators=(",", ":")).encode()
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout_s):
            sock = tcp_socket(host, device)
            if source:
                sock.bind(name_of(source, 0, device))
            await asyncio.get_running_loop().sock_connect(sock, name_of(host, port, device))
            return await _exchange(sock, method, path, body)
    except TimeoutError as error:
        raise TimedOut(because("peer_silent", where, f"{timeout_s:g}")) from error
    except (ValueError, InvalidArgument, h11.RemoteProtocolError) as error:
        sentence = because("no_peer_there", where)
        raise PeerUnreachable(sentence, code="bad_reply") from error
    except OSError as error:
        # asyncio puts the address in the place of the error's own words.
        known = error.errno is not None and error.errno > 0
        number = error.errno or 0
        reason = of_errno(number, os.strerror(number)) if known else because("bad_address")
        raise PeerUnreachable(because("peer_unreached", where, reason)) from error
    finally:
        if sock is not None:
            sock.close()


async def _exchange(
    sock: socket.socket, method: str, path: str, body: bytes
) -> tuple[int, dict[str, Any]]:
    loop = asyncio.get_running_loop()
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEADERS)
    headers = [("Host", "peer"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    data = parser.send(h11.Request(method=method, target=path, headers=headers)) or b""
    data += parser.send(h11.Data(data=body)) or b""
    data += parser.send(h11.EndOfMessage()) or b""
    # Refused before it was read whole: the answer tells why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await loop.sock_sendall(sock, data)
    status, found = 0, b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await receive(sock, MOST_BODY))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if b"transfer-encoding" in dict(event.headers):
                raise ValueError("our server sends no chunks, and parsing tiny ones costs")
        elif isinstance(event, h11.Data):
            found += event.data
            if len(found) > LONGEST_JSON:
                raise ValueError("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, parse_json_message(found)
        else:
            raise ValueError("our server says nothing before its answer")
