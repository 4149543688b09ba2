"""What paho-mqtt brings into the service's memory: OpenSSL with TLS, and nothing for proxies."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, rpcd_wireguard_uplink.service
from rpcd_wireguard_uplink.extras.mqtt import library
UNUSED = ("_ssl", "http.client", "email", "urllib.request", "socks")
plain = library.load(tls=False)
print([name for name in UNUSED if name in sys.modules])
import ssl, urllib.request
print(library.load(tls=True) is plain, plain.ssl is ssl, urllib.request.getproxies is not None)
print(library.load(tls=False).ssl is ssl)
"""


def test_a_plain_connection_loads_no_tls_and_nothing_for_proxies() -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "True True True", "True"], done.stderr
