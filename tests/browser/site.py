"""The web server: LuCI's pages around our views, its files, translations, and /ubus.

Owns HTTP and what LuCI's dispatcher does: which view a menu entry shows and whether the session may
change anything there. Where LUCI_RESOURCES names the folder luci-static/resources of a real LuCI,
that one is served, else the stand-in of the folder luci/. Our scripts are as packages carry them.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rjsmin import jsmin

from .catalogue import read_catalogue, translation_script
from .gateway import Gateway, Session

ROOT = Path(__file__).parents[2]
HTDOCS = ROOT / "htdocs" / "luci-static" / "resources"
MENU = ROOT / "root/usr/share/luci/menu.d/rpcd-wireguard-uplink.json"
DOUBLE = Path(__file__).parent / "luci"
REAL = Path(os.environ["LUCI_RESOURCES"]) if "LUCI_RESOURCES" in os.environ else None
CGI = "/cgi-bin/luci"

PAGE = """\
<!DOCTYPE html>
<html lang="{lang}" data-darkmode="{dark}">
<head>
<meta charset="utf-8"><title>{title} - LuCI</title>
<meta name="viewport" content="initial-scale=1.0">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/luci-static/bootstrap/cascade.css">
<link rel="stylesheet" media="only screen and (max-device-width: 854px)"
 href="/luci-static/bootstrap/mobile.css">
<script src="{cgi}/admin/translations/{lang}"></script>
<script src="/luci-static/resources/cbi.js"></script>
</head>
<body>
<script src="/luci-static/resources/luci.js"></script>
<script>
document.addEventListener('luci-loaded', () => {{ L.loaded = true; }});
L = new LuCI({environment});
</script>
<header><a class="brand" href="/">router</a><ul class="nav" id="topmenu"></ul>
<div id="indicators" class="pull-right"></div></header>
<div id="maincontent" class="container"><div id="tabmenu" style="display:none"></div>
<div id="view"><div class="spinning">Loading view…</div></div></div>
<script>{start}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A server on a port of its own; it serves until close(). A browser may keep its files."""

    server: ThreadingHTTPServer
    gateways: dict[str, Gateway]

    @classmethod
    def open(cls) -> Site:
        """Start serving in a thread."""
        gateways: dict[str, Gateway] = {}
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(gateways))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return cls(server, gateways)

    def serve(self, gateway: Gateway) -> Place:
        """Serve the pages of this gateway too."""
        place = Place(self.server.server_address[1], f"router{len(self.gateways)}")
        self.gateways[place.name] = gateway
        return place

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pages of one gateway are."""

    port: int
    name: str

    def url(self, path: str, session: Session, *, dark: bool = False, lang: str = "en") -> str:
        """The address of a menu entry, '' for a page without a view."""
        query = f"place={self.name}&sid={session.sid}&dark={str(dark).lower()}&lang={lang}"
        return f"http://127.0.0.1:{self.port}{CGI}/{path}?{query}"


def _handler(gateways: Mapping[str, Gateway]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.startswith(f"{CGI}/admin/translations/"):
                lang = url.path.rpartition("/")[2]
                self._send(200, "text/javascript", _translations(lang))
            elif url.path.startswith(CGI):
                given = {name: values[0] for name, values in parse_qs(url.query).items()}
                path = url.path.removeprefix(CGI).strip("/")
                text = _page(gateways[given["place"]], path, given)
                self._send(200, "text/html; charset=utf-8", text)
            else:
                self._send_file(url.path)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith("/ubus/"):
                gateway = gateways[self.path.split("/")[2]]
                self._send(200, "application/json", json.dumps(gateway.handle(body)))
            else:
                self._send(404, "text/plain", "not here")

        def _send_file(self, path: str) -> None:
            for file in _places(path):
                if file.is_file() and ".." not in path:
                    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                    # What a test adds is not that of the next one.
                    is_ours = any(
                        root in file.parents for root in (HTDOCS, DOUBLE, REAL and REAL.parent)
                    )
                    keep = "max-age=3600" if is_ours else "no-store"
                    self._send(200, kind, _content(file), keep)
                    return
            self._send(404, "text/plain", "not here")

        def _send(
            self, status: int, kind: str, content: str | bytes, keep: str = "no-store"
        ) -> None:
            data = content.encode() if isinstance(content, str) else content
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", keep)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


@cache
def _translations(lang: str) -> str:
    return translation_script(read_catalogue(lang))


@cache
def _content(file: Path) -> bytes:
    return packaged(file) if HTDOCS in file.parents else file.read_bytes()


def packaged(file: Path) -> bytes:
    """A file of ours without comments and blanks, as `make install` leaves it."""
    if file.suffix == ".js":
        return bytes(jsmin(file.read_bytes()))
    text = re.sub("^/[*].*\n", "", file.read_text(encoding="utf-8"), flags=re.M)
    return re.sub(" *([{};,]) *", r"\1", text).replace(": ", ":").encode()


def _places(path: str) -> list[Path]:
    """Where a static file may lie; ours first, as on a router nobody else has its name."""
    inside = path.removeprefix("/luci-static/")
    if inside.startswith("resources/"):
        name = inside.removeprefix("resources/")
        return [HTDOCS / name, (REAL or DOUBLE) / name]
    return [REAL.parent / inside] if REAL else [DOUBLE / Path(inside).name]


@cache
def menu() -> dict[str, Any]:
    """Our entries of LuCI's menu."""
    found: dict[str, Any] = json.loads(MENU.read_text(encoding="utf-8"))
    return found


def _page(gateway: Gateway, path: str, given: dict[str, str]) -> str:
    entry = menu().get(path, {})
    session = gateway.sessions[given["sid"]]
    start = ""
    if entry:
        view = entry["action"]["path"]
        start = f"L.require('ui').then(function(ui) {{ ui.instantiateView('{view}'); }});"
    environment = {
        "media": "/luci-static/bootstrap",
        "resource": "/luci-static/resources",
        "scriptname": CGI,
        "pathinfo": f"/{path}",
        "documentroot": "/www",
        "requestpath": path.split("/"),
        "dispatchpath": path.split("/"),
        "pollinterval": 5,
        "ubuspath": f"/ubus/{given['place']}/",
        "sessionid": session.sid,
        "token": "0",
        "nodespec": {"satisfied": True, "readonly": not session.may("uci", CONFIG, "write")},
        "apply_rollback": 90,
        "apply_holdoff": 0.1,
        "apply_timeout": 5,
        "apply_display": 0.1,
    }
    return PAGE.format(
        lang=given.get("lang", "en"),
        dark=given.get("dark", "false"),
        title=entry.get("title", "page"),
        cgi=CGI,
        environment=json.dumps(environment),
        start=start,
    )


CONFIG = "wireguard-uplink"
