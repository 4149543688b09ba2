"""HTTP between routers of the mesh: a small server of JSON on our mesh addresses, and its client.

h11 parses; every bound on what a stranger may cost is here. A connection carries one request. Who
may ask is for the handler to decide, by the source address and the device that it came in by.
"""

from __future__ import annotations

from .client import request
from .connection import Request, Response
from .server import Server

__all__ = ["Request", "Response", "Server", "request"]
