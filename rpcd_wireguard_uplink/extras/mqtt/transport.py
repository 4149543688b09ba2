"""MQTT as a transport of offers, for meshes that are larger than one node can poll.

Each peer's newest message stays at the topic `<prefix>/offer/<peer id>`, or in a mesh with areas at
`<prefix>/offer/<area>/<peer id>`: a router hears its own areas, and those that know of none.
Payloads are bytes here: whoever takes them decides what they say and whether a peer wrote them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

from ...config.options import MqttSettings
from ...errors import ConfigError, NotSupported
from ...reasons import because, of_system
from ...system.files import UnusableFile, read_bytes
from ...tasks import tell
from ...text import printable, shortened
from . import library
from .connection import MOST_PAYLOAD, MOST_WAITING, Link, connect
from .password import FOLDER, Password

log = logging.getLogger(__name__)

ANSWER_S = 10.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
MOST_CA = 4 << 20
PAHO = "python3-paho-mqtt (pip: rpcd-wireguard-uplink[mqtt])"
OPENSSL = "python3-openssl"  # a package of OpenWrt's: elsewhere Python has it

_REFUSED_USER = (134, 135)  # bad user name or password, not authorized (MQTT 5, 3.2.2.2)


class MqttTransport:
    """Keeps a connection to the broker from `start` until `close`, however often it is lost.

    `on_message(peer_id, payload)` gets what all peers' topics hold and get, ours too.
    `on_state(problem)` is told when the connection is made ('') and with a sentence when it can't
    be made or is lost; after '' the caller publishes what holds now, since the last will may have
    replaced it. `will()` is asked for this last will at each connect: its sequence must be above
    those that are published until the next one.
    `folder` is where the file with the password may lie.
    """

    def __init__(
        self,
        settings: MqttSettings,
        peer_id: str,
        will: Callable[[], bytes],
        on_message: Callable[[str, bytes], None],
        on_state: Callable[[str], None],
        folder: str = FOLDER,
    ) -> None:
        self._settings = settings
        self._password = Password(settings, folder) if settings.password_file else None
        self._peer_id = peer_id
        self._will = will
        self._on_message = on_message
        self._on_state = on_state
        self._offers = f"{settings.prefix}/offer/"
        self._topics = [self._offers, *(f"{self._offers}{area}/" for area in settings.areas)]
        self._own = self._topics[1 if settings.areas else 0] + peer_id
        self._where = f"{shortened(settings.host)} port {settings.port}"
        self._problem: str | None = None
        self._closing = False
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect. Raises NotSupported without a library, ConfigError for bad settings."""
        try:
            mqtt = library.load(tls=self._settings.tls)
        except ImportError as error:
            lacking = OPENSSL if error.name in ("ssl", "_ssl") else PAHO
            raise NotSupported(because("no_paho", lacking)) from error
        self._new_client(mqtt)
        self._task = asyncio.create_task(self._keep_connected(mqtt))

    def publish(self, payload: bytes) -> bool:
        """Let this be what our topic holds; False without a connection, then it is forgotten."""
        if self._link is None or self._problem != "":
            return False
        return self._link.publish(self._own, payload)

    def clear(self) -> None:
        """Let our topic hold nothing: we speak at another one, or not at all."""
        self.publish(b"")

    def renew(self) -> None:
        """Connect anew, so that the last will is asked for again."""
        if self._link is not None:
            self._link.leave()

    async def close(self) -> None:
        """End the connection, no later than a few seconds.

        Our topic keeps what it holds: the last will is for deaths only.
        """
        if self._task is None:
            return
        self._closing = True
        if self._link is not None and self._problem == "":
            with contextlib.suppress(Exception):
                await self._link.finish()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _keep_connected(self, mqtt: Any) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = loop.time()
            try:
                client = self._new_client(mqtt)
                await connect(mqtt, client, self._settings.host, self._settings.port)
                self._link = Link(client)
                problem = await self._stay(self._link)
            except (OSError, ValueError, ConfigError) as error:
                problem = because("broker_unusable", self._where, _reason(error))
            except Exception as error:  # paho's own errors on bytes that are no MQTT
                tell("MQTT", error)
                problem = because("broker_unusable", self._where, because("no_mqtt5"))
            finally:
                if self._link is not None:
                    self._link.close()
                    self._link = None
            self._tell(problem)
            if loop.time() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            # Not all at the same time: a broker that comes back has many clients.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _tell(self, problem: str) -> None:
        if problem != self._problem and not self._closing:
            self._problem = problem
            self._on_state(problem)

    async def _stay(self, link: Link) -> str:
        """Wait for the broker's yes, then until the connection is lost; a sentence on why."""
        await asyncio.wait([link.accepted], timeout=ANSWER_S)
        if not link.accepted.done():
            return because("broker_silent", self._where)
        code = link.accepted.result()
        if code in _REFUSED_USER:
            return because("broker_refuses_user", self._where)
        if code:
            return because("broker_refuses", self._where, code)
        await self._remember_broker()
        for topic in self._topics:
            link.client.subscribe(topic + "+", 1)
        if self._own != self._offers + self._peer_id:
            link.publish(self._offers + self._peer_id, b"")  # before it knew of areas
        self._tell("")
        await link.lost()
        return because("broker_lost", self._where)

    async def _remember_broker(self) -> None:
        if self._password is not None:
            try:
                await asyncio.to_thread(self._password.opened)
            except OSError as error:
                log.warning("can't note which broker the password is for: %s", error.strerror)

    def _new_client(self, mqtt: Any) -> Any:
        """A client of the library's own kind, configured. Raises ConfigError for unusable files."""
        options = self._settings
        # Version 2 passes a callback the same arguments as version 1.6 does with MQTT 5.
        kind = getattr(mqtt, "CallbackAPIVersion", None)
        first = () if kind is None else (kind.VERSION2,)
        # Always the same id: the broker then ends what is left of an older connection before it
        # takes the new one, so that an old last will can't come after a new offer.
        name = f"{options.prefix}-{self._peer_id}"
        client = mqtt.Client(*first, client_id=name, protocol=mqtt.MQTTv5)
        try:
            if self._password is not None:
                client.username_pw_set(options.user, self._password.read())
            elif options.user:
                client.username_pw_set(options.user)
        except ValueError as error:
            raise ConfigError(because("login_unusable", _reason(error))) from error
        if options.tls:
            try:
                if options.ca_file and read_bytes(options.ca_file, MOST_CA) is None:
                    raise ConfigError(
                        because(
                            "option_unusable", "ca_file", because("tunnel_gone", options.ca_file)
                        )
                    )
                client.tls_set(ca_certs=options.ca_file or None)
            except UnusableFile as error:
                raise ConfigError(because("option_unusable", "ca_file", error)) from error
            except (OSError, ValueError) as error:
                raise ConfigError(because("option_unusable", "ca_file", _reason(error))) from error
        client.max_queued_messages_set(MOST_WAITING)
        client.will_set(self._own, self._will(), qos=1, retain=True)
        client.on_message = self._received
        return client

    def _received(self, client: Any, userdata: Any, message: Any) -> None:
        if self._link is None or client is not self._link.client:
            return
        place, slash, peer_id = message.topic.rpartition("/")
        is_heard = place + slash in self._topics and len(peer_id) <= 64
        if is_heard and 0 < len(message.payload) <= MOST_PAYLOAD:
            try:
                self._on_message(peer_id, message.payload)
            except Exception as error:
                tell("a message over MQTT", error)


def _reason(error: Exception) -> str:
    """Why, without what the other side wrote."""
    invalid = getattr(error, "verify_message", "")  # ssl.SSLCertVerificationError, without ssl
    if invalid:
        return because("bad_certificate", printable(invalid))
    if isinstance(error, OSError):
        return of_system(error)
    return printable(str(error)) if isinstance(error, ConfigError) else type(error).__name__
