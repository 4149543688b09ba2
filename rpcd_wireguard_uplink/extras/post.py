"""A program that sends one POST and ends: `python -m rpcd_wireguard_uplink.extras.post`.

Reads `{"url": ..., "body": {...}}` from standard input. A process of its own, so that HTTP and
TLS cost the service no memory, and a name server that does not answer no time. It prints why it
failed, never the URL, which may hold a token. Exit status: 0 taken, 1 refused for good, 2 worth a
new try.
"""

from __future__ import annotations

import json
import sys

TIMEOUT_S = 5.0  # for each step; the whole is bounded by whoever runs this
TAKEN, REFUSED, FAILED = 0, 1, 2
_PACKAGES = "install python3-urllib and, for https, python3-openssl"


def main() -> int:
    """Send what standard input says; returns the exit status."""
    told = json.load(sys.stdin)
    status, sentence = post(told["url"], json.dumps(told["body"]).encode())
    sys.stdout.write(f"{sentence}\n")
    return status


def post(url: str, body: bytes) -> tuple[int, str]:
    """Send a body of JSON: an exit status and a sentence, '' where it was taken."""
    try:
        # Here, so that a part of Python that is not installed is told as such.
        from http import client
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        kind = client.HTTPSConnection if parts.scheme == "https" else client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    except (ImportError, AttributeError):
        return REFUSED, f"a part of Python is missing: {_PACKAGES}"
    except ValueError:
        return REFUSED, "the URL can't be understood"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, {"Content-Type": "application/json"})
        answered = connection.getresponse().status
    except client.HTTPException as error:
        return FAILED, f"the server's answer is no HTTP ({type(error).__name__})"
    except OSError as error:
        return FAILED, f"can't reach the server: {error.strerror or type(error).__name__}"
    finally:
        connection.close()
    return verdict(answered)


def verdict(status: int) -> tuple[int, str]:
    """What an HTTP status means for this event."""
    if 200 <= status < 300:
        return TAKEN, ""
    if 300 <= status < 400:
        return REFUSED, f"the server answered {status}: give the URL that it leads to"
    is_passing = status >= 500 or status in (408, 425, 429)
    return FAILED if is_passing else REFUSED, f"the server answered {status}"


if __name__ == "__main__":
    sys.exit(main())
