"""Loads paho-mqtt (1.6 or 2), and OpenSSL only where the broker is reached by TLS.

The library imports what plain connections have no use for: OpenSSL (4.2 MB), and for proxies
urllib.request with HTTP and mail (1.5 MB). It is made to work where `ssl` is missing, as on a
router without python3-openssl: there its first read would fail.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ...schema.lean import leaving_out

# Its reads and writes name both in `except` clauses (`_sock_recv`, `_sock_send`).
_NO_TLS = SimpleNamespace(SSLWantReadError=(), SSLWantWriteError=())


def load(*, tls: bool) -> Any:
    """The module paho.mqtt.client. Raises ImportError where it or, with `tls`, `ssl` is missing."""
    with leaving_out("ssl", "socks", "dns", empty=["urllib.request"]):
        import paho.mqtt.client
    mqtt: Any = paho.mqtt.client
    if tls:
        import ssl

        mqtt.ssl = ssl
    elif mqtt.ssl is None:
        mqtt.ssl = _NO_TLS
    return mqtt
