"""The webhook: what arrives, what is tried again, and that the URL is told to nobody."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.config.settings import Settings, parse_config
from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.extras import post, webhook
from rpcd_wireguard_uplink.extras.webhook import Webhook
from rpcd_wireguard_uplink.system import process
from rpcd_wireguard_uplink.uci import Section
from tests.unit.extras.test_hooks import EVENT

TOKEN = "T0KEN"


@dataclass
class Receiver:
    """A server that answers with the next of `statuses`, and the last of them for ever."""

    statuses: list[int]
    taken: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key={TOKEN}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver([200])
    with serving(made):
        yield made


def serving(receiver: Receiver) -> Server:
    return Server(receiver)


class Server:
    """The receiver on a port of its own, with TLS where a certificate is given."""

    def __init__(self, receiver: Receiver, certificate: Path | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers["Content-Type"]
                receiver.taken.append((self.path, kind, json.loads(body)))
                statuses = receiver.statuses
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        receiver.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def told(url: str, until: Any, problems: dict[str, str]) -> None:
    """Have one event told, and wait until something holds."""
    hook = Webhook(lambda: url, problems)
    task = asyncio.create_task(hook.follow())
    hook.tell(EVENT)
    try:
        async with asyncio.timeout(30):
            while not until():
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSES_S", (0.01, 0.01, 0.01))


async def test_an_event_arrives_as_json(receiver: Receiver) -> None:
    problems: dict[str, str] = {}
    await told(receiver.url, lambda: receiver.taken, problems)
    path, kind, body = receiver.taken[0]
    assert (path, kind) == (f"/hook?key={TOKEN}", "application/json")
    assert body == {
        "event": "failover",
        "router": "router1",
        "text": "router1: failover (ipv4) wan -> wgup_nodea: wan: no answer",
        "at": "2026-01-28T10:30:00.000Z",
        "kind": "failover",
        "family": "ipv4",
        "from": "wan",
        "to": "wgup_nodea",
        "peer_id": "nodea",
        "cause": "wan: no answer",
        "detection_ms": 300,
        "switch_ms": 20,
        "duration_s": 1.5,
        "outage_ms": 320,
    }
    assert not problems


async def test_it_is_tried_again_three_times_and_no_more(receiver: Receiver) -> None:
    receiver.statuses = [503]
    problems: dict[str, str] = {}
    await told(receiver.url, lambda: "the webhook backlog" in problems, problems)
    assert len(receiver.taken) == 4
    assert problems["webhook"] == "The webhook gets no events: the server answered 503."


async def test_a_second_try_mends_what_status_said(receiver: Receiver) -> None:
    receiver.statuses = [500, 429, 200]
    problems = {"webhook": "The webhook gets no events: as before."}
    await told(receiver.url, lambda: "webhook" not in problems, problems)
    assert len(receiver.taken) == 3 and not problems


@pytest.mark.parametrize("status", [301, 401, 404])
async def test_a_refusal_is_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    problems: dict[str, str] = {}
    await told(receiver.url, lambda: "the webhook backlog" in problems, problems)
    assert len(receiver.taken) == 1
    assert f"the server answered {status}" in problems["webhook"]


async def test_a_dead_server_is_told_without_the_url(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    run = process.run

    async def watched(argv: Any, **more: Any) -> process.Completed:
        commands.extend(argv)
        return await run(argv, **more)

    monkeypatch.setattr(process, "run", watched)
    url = f"http://127.0.0.1:1/{TOKEN}"
    problems: dict[str, str] = {}
    with caplog.at_level(logging.DEBUG):
        await told(url, lambda: "the webhook backlog" in problems, problems)
    assert "can't reach the server: Connection refused" in problems["webhook"]
    assert "Connection refused; an event was not told" in caplog.text
    assert commands and not any(TOKEN in text for text in commands)
    assert TOKEN not in caplog.text + str(problems)


@pytest.mark.needs("openssl")
async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", str(certificate)]
    words += ["-out", str(tmp_path / "certificate"), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    with certificate.open("a") as file:
        file.write((tmp_path / "certificate").read_text())
    receiver = Receiver([200])
    with Server(receiver, certificate):
        status, reason = await webhook.send(f"https://127.0.0.1:{receiver.port}/{TOKEN}", EVENT)
    assert status == post.FAILED and "certificate verify failed" in reason
    assert TOKEN not in reason and not receiver.taken


async def test_a_server_that_hangs_is_given_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[asyncio.StreamWriter] = []  # a writer that nobody holds is closed
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(webhook, "TIMEOUT_S", 1.0)
    try:
        status, reason = await webhook.send(f"http://127.0.0.1:{port}/", EVENT)
    finally:
        for writer in held:
            writer.close()
        server.close()
    assert (status, reason) == (post.FAILED, "it was not taken within 1 s")


async def test_without_a_url_nothing_waits() -> None:
    problems: dict[str, str] = {}
    url = ""
    hook = Webhook(lambda: url, problems)
    for _ in range(100):
        hook.tell(EVENT)
    assert not problems


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:99999/", "the URL can't be understood"),
        ("http://[::1", "the URL can't be understood"),
    ],
)
def test_urls_that_are_none(url: str, sentence: str) -> None:
    assert post.post(url, b"{}") == (post.REFUSED, sentence)


@pytest.mark.parametrize("missing", ["ssl", "http", "urllib"])
def test_a_part_of_python_that_is_not_installed_is_told(missing: str) -> None:
    script = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from rpcd_wireguard_uplink.extras.post import post\n"
        f"print(*post('https://127.0.0.1:1/{TOKEN}', b''))"
    )
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{post.REFUSED} a part of Python is missing: install")
    assert "python3-openssl" in done.stdout and TOKEN not in done.stdout


# --- the option


def settings(webhook_url: str) -> Settings:
    options = {"webhook": webhook_url}
    return parse_config([Section("wireguard-uplink", "uplink", False, options)]).settings


@pytest.mark.parametrize(
    "url", ["https://ntfy.sh/x", "http://10.0.0.2:8123/api/webhook/a-b?c=d", "http://[fd00::1]:80"]
)
def test_urls_are_taken_and_kept_secret(url: str) -> None:
    found = settings(url)
    assert found.webhook == url
    assert url not in repr(found)


@pytest.mark.parametrize(
    "url",
    [f"ftp://h/{TOKEN}", f"h/{TOKEN}", f"https://u:{TOKEN}@h/", f"https://h/{TOKEN} x", "https://"],
)
def test_a_bad_url_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(url)
    assert "wireguard-uplink.uplink.webhook must be a URL" in str(caught.value)
    assert TOKEN not in str(caught.value)
