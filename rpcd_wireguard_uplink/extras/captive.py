"""Captive portals: a WAN that answers probes but wants a login is no way to the internet.

Fetches a page that is known to answer 204 out of each WAN, by plain HTTP, as browsers do; another
answer comes from a portal, unless the page answers so through a tunnel too. Such a WAN counts as
detached, and the portal's own address stays reachable by it. Without a URL nothing is asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from dataclasses import field
from urllib.parse import SplitResult, urljoin, urlsplit

from ..errors import InvalidArgument
from ..failover.monitor import Monitor
from ..model import Family
from ..probing.service_probe import Page
from ..reasons import because
from ..system.dns import look_up
from ..system.sockets import bound_socket, receive
from ..tasks import rest
from ..values import dataclass

LOOK_S = 2.0
FREE_S = 600.0  # a login lasts for hours
HELD_S = 10.0  # the owner may be logging in just now
UNKNOWN_S = 60.0
TIMEOUT_S = 5.0
MOST_ADDRESSES = 4
LONGEST_HEAD = 8192
BAD_PAGE, WRONG_PAGE = "captive_check", "captive_check elsewhere"

_PLAIN_URL = re.compile(r"https?://[!-~]{1,192}")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r)")
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*([!-~]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a WAN's answer means: `url` is the portal's, '' where there is none.

    `page` is then what answered.
    """

    url: str = ""
    addresses: tuple[str, ...] = ()
    page: Page | None = None


def parse_check(url: str) -> SplitResult:
    """The parts of the URL to be asked. Raises InvalidArgument where it is no plain HTTP URL."""
    try:
        parts = urlsplit(url)
        port = parts.port  # a bad one raises here
    except ValueError as error:
        raise InvalidArgument(because("portal_no_url")) from error
    if not (_PLAIN_URL.fullmatch(url) and parts.scheme == "http" and parts.hostname and port != 0):
        raise InvalidArgument(because("portal_not_http"))
    return parts


def parse_answer(head: bytes, url: str) -> str | None:
    """The portal's URL, '' where the page itself answered, None where the answer says nothing.

    A server in trouble (5xx) says nothing, but 511 is made for portals (RFC 6585, section 6).
    """
    status = _STATUS.match(head)
    if status is None:
        return None
    code = int(status[1])
    if code == 204:
        return ""
    if code >= 500 and code != 511:
        return None
    location = _LOCATION.search(head)
    told = location[1].decode("ascii") if location is not None else ""
    try:
        portal = urljoin(url, told)
        known = bool(urlsplit(portal).hostname)
    except ValueError:
        return url
    return portal if known and _PLAIN_URL.fullmatch(portal) else url


def page_at(url: str, address: str) -> Page:
    parts = parse_check(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    return Page(address, parts.port or 80, request.encode("ascii"))


async def fetch_head(url: str, address: str, device: str) -> bytes:
    """What a server at that address answers to a GET out of the device, up to its empty line.

    Raises OSError, TimeoutError among them, where none answers.
    """
    page = page_at(url, address)
    loop = asyncio.get_running_loop()
    head = b""
    with bound_socket(device, address, socket.SOCK_STREAM) as sock:
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_connect(sock, (address, page.port))
            await loop.sock_sendall(sock, page.request)
            while b"\r\n\r\n" not in head and len(head) < LONGEST_HEAD:
                more = await receive(sock, 4096)
                if not more:
                    break
                head += more
    return head


async def look_out(url: str, resolvers: list[str], device: str) -> Verdict | None:
    """Ask for the page out of a WAN; None where it says nothing."""
    for address in await _addresses(parse_check(url).hostname or "", resolvers, device):
        try:
            portal = parse_answer(await fetch_head(url, address, device), url)
        except OSError:
            continue
        if portal == "":
            return Verdict(page=page_at(url, address))
        if portal is not None:
            host = urlsplit(portal).hostname or ""
            return Verdict(portal, await _addresses(host, resolvers, device))
    return None


async def _addresses(host: str, resolvers: list[str], device: str) -> tuple[str, ...]:
    """The host's addresses as the WAN's own resolvers have them: a portal's name is theirs."""
    try:
        found = [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await look_up(host, resolvers, device)
    return tuple([address for address in found if _is_usable(address)][:MOST_ADDRESSES])


def _is_usable(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return not (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
    )


@dataclass(eq=False, repr=False)
class CaptiveWatch:
    """Looks for portals on the monitor's WANs. `url` gives the page to ask for, '' for none."""

    _monitor: Monitor
    _url: Callable[[], str]
    _due_s: dict[str, float] = field(default_factory=dict)
    _answers: dict[str, bool] = field(default_factory=dict)
    _portals: dict[str, Verdict] = field(default_factory=dict)

    async def follow(self) -> None:
        """The task: look at each WAN when its time has come, for ever."""
        while True:
            await self.look(time.monotonic())
            await rest(LOOK_S)

    async def look(self, now_s: float) -> None:
        before = dict(self._portals)
        url, network = self._page(), self._monitor.network.state
        if not url:
            for path in self._monitor.paths.values():
                path.use_page(None)
        able = {device for device in network.wan_devices() if url and self._is_attached(device)}
        for device in [device for device in self._due_s if device not in able]:
            del self._due_s[device]
            self._portals.pop(device, None)
        due = [device for device in able if self._is_due(device, now_s)]
        found = await asyncio.gather(*(look_out(url, network.resolvers, device) for device in due))
        for device, verdict in zip(due, found, strict=True):
            if verdict is not None and verdict.url and device not in self._portals:
                verdict = verdict if await self._is_good_elsewhere(url) else None
            self._take(device, verdict, now_s)
        if before != self._portals:
            self._report()

    def _page(self) -> str:
        """The page to ask for, '' where there is none that can be asked for."""
        url = self._url() if self._monitor.watch.settings.enabled else ""
        with self._monitor.warnings.catch(BAD_PAGE, InvalidArgument):
            return url and parse_check(url).geturl()
        return ""

    async def _is_good_elsewhere(self, url: str) -> bool:
        """Whether the page answers through a tunnel as it should; yes, where none can be asked."""
        bad = ""
        for uplink in self._monitor.watch.uplinks:
            servers = list(self._monitor.watch.settings.resolvers)
            verdict = await look_out(url, servers, uplink.interface)
            if verdict is not None:
                bad = uplink.interface if verdict.url else ""
                break
        told = because("portal_page_wrong", url, bad) if bad else ""
        self._monitor.warnings.set(WRONG_PAGE, told)
        return not bad

    def _is_attached(self, device: str) -> bool:
        """Whether the WAN has a carrier and a route, login or not."""
        network = self._monitor.network.state
        link = network.link_of(device)
        has_route = any(network.wans[family].has_route(device) for family in Family)
        return link is not None and link.carrier and has_route

    def _is_due(self, device: str, now_s: float) -> bool:
        """Also at once when a WAN begins or ceases to answer probes."""
        paths = self._monitor.paths.of(device)
        answers = any(path.health.alive_since_s is not None for path in paths)
        changed = self._answers.get(device) is not answers
        self._answers[device] = answers
        return changed or now_s >= self._due_s.get(device, now_s)

    def _take(self, device: str, verdict: Verdict | None, now_s: float) -> None:
        """A WAN that says nothing keeps the portal that it had."""
        if verdict is not None and verdict.url:
            self._portals[device] = verdict
        elif verdict is not None:
            self._portals.pop(device, None)
            for path in self._monitor.paths.of(device):
                if verdict.page is not None:
                    is_able = Family.of(verdict.page.address) is path.family
                    path.use_page(verdict.page if is_able else None)
        pause_s = UNKNOWN_S if verdict is None else FREE_S
        self._due_s[device] = now_s + (HELD_S if device in self._portals else pause_s)

    def _report(self) -> None:
        monitor, warnings = self._monitor, {}
        monitor.hold_portals({d: (v.url, v.addresses) for d, v in self._portals.items()})
        for device, found in self._portals.items():
            name = monitor.platform.logical_name(device)
            at = f" ({', '.join(found.addresses)})" if found.addresses else ""
            warnings[device] = because("portal", name, f"{found.url}{at}")
        monitor.warnings.replace("captive ", warnings)
