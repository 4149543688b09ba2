"""What values of options may be: a whole number, an address, a key, and what each must look like.

A kind is the parser, the writer, the sentence of the refusal and the check of LuCI's form in one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..model import TUNNEL_PREFIX, is_key, normal_address
from ..reasons import because
from ..schema.endpoints import parse_endpoint, parse_host
from ..schema.shapes import PEER_ID
from ..values import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be. `parse` raises ValueError or InvalidArgument; `must` is what it wants.

    `datatype` and `pattern` (of the whole value) are how LuCI's form checks the same; `words` are
    all that there are.
    """

    parse: Callable[[str], Any]
    must: str
    write: Callable[[Any], str] = str
    datatype: str = ""
    pattern: str = ""
    words: tuple[str, ...] = ()


def plain_number(value: float) -> str:
    """A number as people write it: up to six decimals, none where there are none."""
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")


def whole(low: int, high: int, *, per: int = 0) -> Kind:
    """A whole number; with `per` the settings hold it as a float, that part of what is said."""

    def parse(text: str) -> float:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not low <= number <= high:
            raise ValueError
        return number / per if per else number

    return Kind(
        parse,
        because("form_whole", low, high),
        lambda value: plain_number(round(value * (per or 1))),
        "port" if (low, high) == (1, 65535) else f"range({low},{high})",
    )


def seconds(low: int, high: int) -> Kind:
    return whole(low, high, per=1)


def decimal(high: int) -> Kind:
    """A number from 0 to this, with up to 6 decimal places."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", text) or float(text) > high:
            raise ValueError
        return float(text)

    return Kind(parse, because("form_decimal", high), plain_number, f"and(ufloat,max({high}))")


def held_to(test: Callable[[str], object], must: str, **form: Any) -> Kind:
    """Text that passes a test; `form` is the kind's."""

    def parse(text: str) -> str:
        if not test(text):
            raise ValueError
        return text

    return Kind(parse, must, **form)


def choice(*words: str) -> Kind:
    return held_to(words.__contains__, because("form_choice", ", ".join(words)), words=words)


def matching(pattern: str, must: str) -> Kind:
    test = functools.partial(re.fullmatch, pattern)
    return held_to(test, must, pattern=pattern)


def pool(
    ranges: Sequence[ipaddress.IPv4Network] | Sequence[ipaddress.IPv6Network], longest: int
) -> Kind:
    """A network inside one of these, with a prefix of at most this length."""

    def parse(text: str) -> str:
        found = _network(text, "pool_bits")
        is_inside = any(found.version == one.version and found.subnet_of(one) for one in ranges)  # type: ignore[arg-type]
        if found.prefixlen > longest or not is_inside:
            raise ValueError
        return str(found)

    inside = ", ".join(map(str, ranges))
    version = ranges[0].version
    return Kind(parse, because("form_pool", longest, inside), datatype=f"cidr{version}")


def _flag(text: str) -> bool:
    """The words that OpenWrt's scripts take."""
    if text.lower() in ("1", "on", "true", "yes", "enabled"):
        return True
    if text.lower() in ("0", "off", "false", "no", "disabled"):
        return False
    raise ValueError


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _consumer_address(text: str) -> str:
    address = normal_address(text)
    if not address.endswith(("/32", "/128")):
        raise ValueError
    return address


def _mesh_peer(text: str) -> tuple[str, str]:
    peer_id, _, address = text.partition(" ")
    if not re.fullmatch(_ID, peer_id):
        raise ValueError
    return peer_id, str(ipaddress.ip_address(address.strip()))


def _broker(text: str) -> str:
    try:  # unlike a peer, a broker may run on this router
        if text == "localhost" or ipaddress.ip_address(text).is_loopback:
            return text
    except ValueError:
        pass
    return parse_host(text)


def _refuse(text: str) -> str:
    raise ValueError


_DSCP = {
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{n}{drop}": 8 * n + 2 * drop for n in (1, 2, 3, 4) for drop in (1, 2, 3)},
    **{"ef": 46, "va": 44, "le": 1},
}
"""Names of code points, and their numbers (RFC 2474, 2597, 3246, 5865, 8622)."""


def _network(text: str, code: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Raises ValueError that names the network where bits behind the prefix are set."""
    found = ipaddress.ip_interface(text)
    if found.ip != found.network.network_address:
        raise ValueError(because(code, found.network, found.ip))
    return found.network


def _ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    found = whole(1, 65535).parse(low), whole(1, 65535).parse(high if dash else low)
    if found[0] > found[1]:
        raise ValueError
    return found


def _dscp(text: str) -> int:
    number = _DSCP.get(text.lower())
    return int(whole(0, 63).parse(text)) if number is None else number


_ID = PEER_ID["pattern"].removeprefix("^").removesuffix(r"$(?!\n)")
FLAG = Kind(_flag, because("form_flag"), lambda value: "1" if value else "0", "bool")
TEXT = Kind(lambda text: text, because("form_text"))
ID = matching(_ID, because("form_id"))
ADDRESS = Kind(_address, because("form_address"), datatype="ipaddr(1)")
NETWORK = Kind(
    lambda text: str(_network(text, "host_bits")),
    because("form_network"),
    datatype="or(ipaddr(1),cidr)",
)
PORTS = Kind(
    _ports,
    because("form_ports"),
    lambda ports: "-".join(map(str, sorted({*ports}))),
    datatype="portrange",
)
DSCP = Kind(
    _dscp,
    because("form_dscp"),
    pattern="[1-5]?[0-9]|6[0-3]|[Cc][Ss][0-7]|[Aa][Ff][1-4][1-3]|[Ee][Ff]|[Vv][Aa]|[Ll][Ee]",
)
HOST = Kind(parse_host, because("form_host"), datatype="host")
ENDPOINT = Kind(parse_endpoint, because("form_endpoint"))
BROKER = Kind(_broker, because("form_broker"), datatype="host")
TUNNEL_ADDRESS = Kind(normal_address, because("form_tunnel_address"))
CONSUMER_ADDRESS = Kind(_consumer_address, because("form_consumer_address"))
MESH_PEER = Kind(_mesh_peer, because("form_mesh_peer"), " ".join, pattern=rf"{_ID} +[0-9A-Fa-f.:]+")
PATH = matching(r"/[^\x00-\x1f\x7f]{1,254}", because("form_path"))
DEVICE = matching(rf"(?!{TUNNEL_PREFIX.rstrip('_')})[A-Za-z0-9_.-]{{1,15}}", because("form_device"))
WG_KEY = held_to(is_key, because("form_wg_key"))
SIGNING_KEY = held_to(is_key, because("form_signing_key"))
# Where a consumer takes addresses from; 100.64.0.0/10 is left to Tailscale and carriers' NAT.
POOL4 = pool([*map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))], 30)
POOL6 = pool([ipaddress.IPv6Network("fc00::/7")], 120)
PAGE = matching(r"http://[A-Za-z0-9.\[][!-~]{0,190}", because("form_page"))
FINGERPRINT = matching(r"[0-9A-Za-z:+/=._-]{1,128}", because("form_fingerprint"))
TOPIC = matching(r"[0-9A-Za-z_.-]+(?:/[0-9A-Za-z_.-]+)*", because("form_topic"))
WAN_TYPE = matching(r"[0-9A-Za-z_./+ -]{1,32}", because("form_wan_type"))
NO_PASSWORD = Kind(_refuse, because("form_no_password"))
