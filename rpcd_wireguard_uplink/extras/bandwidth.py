"""How fast the router's line is: one bounded download of a file that the owner names.

Plain HTTP by itself, since nothing of what arrives is kept. Owns the bounds: seconds, bytes, and
how long the other side may be silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

from ..errors import InvalidArgument, PeerUnreachable, TimedOut

LONGEST_S = 5.0
MOST_BYTES = 50_000_000
CONNECT_S = 5.0
WARM_UP_S = 0.5  # TCP's slow start is not the line's speed
CHUNK = 65536


async def measure_mbps(url: str) -> int:
    """Mbit/s of a download of at most 5 s and 50 MB, at least 1.

    Raises InvalidArgument for what is no plain http URL, PeerUnreachable or TimedOut where nothing
    can be had from it.
    """
    told = "measure_url must be like http://HOST/FILE: https is not spoken here"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise InvalidArgument(told) from error
    if parts.scheme != "http" or not host:
        raise InvalidArgument(told)
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError as error:
        raise TimedOut(f"{host} did not answer in {CONNECT_S:g} s") from error
    except OSError as error:
        raise PeerUnreachable(f"{host} can't be reached: {error.strerror}") from error
    try:
        path = parts.path or "/"
        path += f"?{parts.query}" if parts.query else ""
        head = f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii", "replace"))
        return await _measure(reader, host)
    except (OSError, ValueError) as error:
        raise PeerUnreachable(f"{host} broke the download off: name another file") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


async def _measure(reader: asyncio.StreamReader, host: str) -> int:
    try:
        async with asyncio.timeout(CONNECT_S):
            status = await reader.readline()
    except TimeoutError as error:
        raise TimedOut(f"{host} sent nothing in {CONNECT_S:g} s") from error
    if b" 200" not in status[:16]:
        raise PeerUnreachable(f"{host} did not give the file: it must be there, without a redirect")
    begun_s = time.monotonic()
    warm_s, warm, total = begun_s, 0, 0
    while total < MOST_BYTES and time.monotonic() - begun_s < LONGEST_S:
        left_s = max(0.01, LONGEST_S - (time.monotonic() - begun_s))
        try:
            async with asyncio.timeout(left_s):
                chunk = await reader.read(CHUNK)
        except TimeoutError:
            break
        if not chunk:
            break
        total += len(chunk)
        if not warm and time.monotonic() - begun_s > WARM_UP_S:
            warm_s, warm = time.monotonic(), total
    elapsed_s = time.monotonic() - warm_s
    if total - warm < CHUNK or elapsed_s < 0.01:
        raise PeerUnreachable(f"the file of {host} is too small to measure by: name a larger one")
    return max(1, round((total - warm) * 8 / elapsed_s / 1e6))
