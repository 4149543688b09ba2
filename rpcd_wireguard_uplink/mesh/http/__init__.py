"""HTTP between routers of the mesh: a small server of JSON on our mesh addresses, and its client.

Owns sockets, parsing (h11) and every bound on what a stranger may cost. A connection carries one
request. Knows nothing of offers or leases, nor who may ask: the handler decides that by the source
address and the device it came in by.
"""

from __future__ import annotations

from .client import request
from .connection import Request, Response
from .server import Server

__all__ = ["Request", "Response", "Server", "request"]
