"""The `wg` command: devices, keys, peers and their counters. Knows nothing of routes or sections.

A tunnel has one peer, its provider; a provider's device has many, its consumers.

Private keys go to `wg` by standard input only, never as an argument. Endpoints must be address
literals here: with a name and without DNS, `wg set` would hang for good.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field

from ..errors import CommandFailed, InvalidArgument
from ..model import OUTER_MARK, Endpoint, PeerCounters, Tunnel, is_key
from ..reasons import because, joined
from ..values import dataclass
from . import process
from .rtnetlink import Kernel

ENDPOINT_TRIES, ENDPOINT_PAUSE_S = 3, 0.05  # the pause is longer than most round trips


@dataclass(frozen=True, slots=True)
class Device:
    """A device as WireGuard has it; the private key never shows in repr."""

    private_key: str = field(repr=False)
    public_key: str
    listen_port: int
    mark: int
    peers: tuple[PeerCounters, ...]


@dataclass(slots=True)
class _Seen:
    """A peer as it was at the last look. Its times are the monotonic clock's."""

    stamp_s: int
    rx_bytes: int
    looked_s: float
    shook_hands_s: float
    seen_to_shake_s: float
    heard_s: float

    def look(self, stamp_s: int, rx_bytes: int, now_s: float, guess_s: float) -> None:
        """Take what the counters say now; `guess_s` is the handshake's age by the wall clock."""
        if stamp_s != self.stamp_s:
            self.shook_hands_s = now_s - min(guess_s, now_s - self.looked_s)
            self.seen_to_shake_s = now_s
        if (stamp_s, rx_bytes) != (self.stamp_s, self.rx_bytes):
            self.heard_s = now_s
        self.stamp_s, self.rx_bytes, self.looked_s = stamp_s, rx_bytes, now_s


@dataclass(slots=True)
class Ages:
    """How long ago each peer of one reader's dumps shook hands and was heard.

    WireGuard tells a handshake's time by the wall clock, which is stepped by NTP and by a boot
    without it. So a change of it is what counts, by the monotonic clock, and the wall clock says
    only where between two looks the change was; before the first look it is a guess for people.
    Received bytes count too: WireGuard counts what it could decrypt (receive.c, update_rx_stats).
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    _seen: dict[tuple[str, str], _Seen] = field(default_factory=dict)

    def take(
        self, device: str, key: str, stamp_s: int, rx_bytes: int
    ) -> tuple[float | None, float, float]:
        """Seconds since the handshake (None: there was none), watched without a new one, and
        watched in silence.

        A counter that went back is that of a peer made anew, which is watched from now on.
        """
        now_s = self.clock()
        seen = self._seen.get((device, key))
        if seen is not None and rx_bytes < seen.rx_bytes:
            seen = None
        guess_s = max(0.0, self.wall_clock() - stamp_s)
        if seen is None:
            seen = _Seen(stamp_s, rx_bytes, now_s, now_s - guess_s, now_s, now_s)
            self._seen[device, key] = seen
        seen.look(stamp_s, rx_bytes, now_s, guess_s)
        age_s = now_s - seen.shook_hands_s if stamp_s else None
        return age_s, now_s - seen.seen_to_shake_s, now_s - seen.heard_s

    def keep(self, peers: Collection[tuple[str, str]]) -> None:
        """Forget all other peers than these (device, key)."""
        for peer in self._seen.keys() - set(peers):
            del self._seen[peer]


async def make_device(kernel: Kernel, name: str) -> None:
    """Make a WireGuard device, by wireguard-go where the kernel can't.

    Raises CommandFailed with both reasons where neither can.
    """
    try:
        kernel.make_device(name, "wireguard")
    except CommandFailed as refused:
        try:
            await process.run(["wireguard-go", name], timeout_s=10.0)
        except CommandFailed as error:
            raise CommandFailed(joined("; ", (str(refused), str(error)))) from error


async def generate_keys() -> tuple[str, str]:
    """A new key pair (private, public), made by `wg genkey` and `wg pubkey`."""
    private = _key((await process.run(["wg", "genkey"])).stdout)
    return private, await public_key(private)


async def public_key(private_key: str) -> str:
    return _key((await process.run(["wg", "pubkey"], stdin=private_key + "\n")).stdout)


def _key(printed: str) -> str:
    with process.understood("wg"):
        if not is_key(printed.strip()):
            raise ValueError("no key")
        return printed.strip()


async def configure(tunnel: Tunnel) -> None:
    """Give a device its key, its mark and its one peer, in place; no other packet is lost.

    Raises InvalidArgument where the endpoint is a name, CommandFailed where `wg` refuses.
    """
    argv = ["wg", "set", tunnel.interface, "private-key", "/dev/stdin"]
    argv += ["fwmark", hex(OUTER_MARK), "peer", tunnel.public_key]
    if tunnel.endpoint is not None:
        try:
            ipaddress.ip_address(tunnel.endpoint.host)
        except ValueError as error:
            raise InvalidArgument(because("endpoint_is_name", tunnel.endpoint.host[:40])) from error
        argv += ["endpoint", str(tunnel.endpoint)]
    argv += ["persistent-keepalive", str(tunnel.keepalive_s), "allowed-ips", "0.0.0.0/0,::/0"]
    await process.run_silent(argv, stdin=tunnel.private_key + "\n")


async def set_endpoint(device: str, public_key: str, endpoint: Endpoint) -> None:
    """Have a peer's packets go to another address literal, in place."""
    await process.run_silent(["wg", "set", device, "peer", public_key, "endpoint", str(endpoint)])


async def insist_on_endpoint(
    device: str, public_key: str, endpoint: Endpoint, is_wanted: Callable[[], bool] = lambda: True
) -> None:
    """Set a changed endpoint (a literal) again where it was taken back: WireGuard answers to where
    the last valid packet came from, and one from the old address may have been under way.

    It ends where another one `is_wanted` meanwhile.
    """
    for _ in range(ENDPOINT_TRIES):
        await asyncio.sleep(ENDPOINT_PAUSE_S)
        if not is_wanted():
            return
        shown = await process.run(["wg", "show", device, "endpoints"], check=False)
        if shown.returncode != 0 or str(endpoint) in shown.stdout.split():
            return
        await set_endpoint(device, public_key, endpoint)


async def remove_other_peers(tunnel: Tunnel) -> None:
    """Remove every peer of the device but the tunnel's own: one tunnel, one provider."""
    shown = await process.run(["wg", "show", tunnel.interface, "peers"])
    for key in shown.stdout.split():
        if key != tunnel.public_key:
            await process.run_silent(["wg", "set", tunnel.interface, "peer", key, "remove"])


async def configure_served(device: str, private_key: str, listen_port: int) -> None:
    """Give a provider's device its key, port and mark; its peers stay.

    With the tunnels' mark its own packets are led as theirs are: by the best live WAN or to an
    on-link consumer, and never into a tunnel or the mesh, whatever is diverted at the moment.
    """
    argv = ["wg", "set", device, "private-key", "/dev/stdin", "listen-port", str(listen_port)]
    await process.run_silent([*argv, "fwmark", hex(OUTER_MARK)], stdin=private_key + "\n")


async def change_peers(
    device: str, expelled: Iterable[str], admitted: Mapping[str, Iterable[str]]
) -> None:
    """Put peers out and let others in, with their allowed networks; the rest lose no packet.

    A key in both begins anew, as if it had never been there. Nothing to change runs nothing.
    """
    words = [word for key in expelled for word in ("peer", key, "remove")]
    for key, networks in admitted.items():
        words += ["peer", key, "allowed-ips", ",".join(networks)]
    if words:
        await process.run_silent(["wg", "set", device, *words])


async def read_devices(ages: Ages) -> dict[str, Device]:
    """Every WireGuard device, by one process for any number of them."""
    return parse_dump((await process.run(["wg", "show", "all", "dump"])).stdout, ages)


async def read_device(name: str, ages: Ages) -> Device | None:
    """What WireGuard says of a device; None where it is not there, or not WireGuard's."""
    shown = await process.run(["wg", "show", name, "dump"], check=False)
    if shown.returncode != 0:
        return None
    lines = (f"{name}\t{line}" for line in shown.stdout.splitlines())
    with process.understood("wg"):
        return parse_dump("\n".join(lines), ages)[name]


async def read_counters(ages: Ages) -> dict[str, PeerCounters]:
    """The counters of each device's first peer, by device; devices without are left out."""
    return {name: d.peers[0] for name, d in (await read_devices(ages)).items() if d.peers}


def parse_dump(text: str, ages: Ages) -> dict[str, Device]:
    """Read `wg show all dump`: a line of 5 fields for a device, of 9 for each peer of it (wg(8)).

    Raises CommandFailed for what is no dump: that is another thing than no devices.
    """
    rows = [line.split("\t") for line in text.splitlines()]
    if any(len(fields) not in (5, 9) for fields in rows):
        raise CommandFailed(because("no_wg_dump"))
    peers: dict[str, list[PeerCounters]] = {}
    with process.understood("wg"):
        for device, *fields in (row for row in rows if len(row) == 9):
            peers.setdefault(device, []).append(_peer(device, fields, ages))
        ages.keep({(device, peer.public_key) for device in peers for peer in peers[device]})
        return {
            name: Device(
                private,
                public,
                int(port),
                0 if mark == "off" else int(mark, 16),
                tuple(peers.get(name, ())),
            )
            for name, private, public, port, mark in (row for row in rows if len(row) == 5)
        }


def _peer(device: str, fields: list[str], ages: Ages) -> PeerCounters:
    key, _, endpoint, allowed, stamp_s, rx_bytes, tx_bytes, _ = fields
    age_s, stale_s, silent_s = ages.take(device, key, int(stamp_s), int(rx_bytes))
    return PeerCounters(
        public_key=key,
        endpoint="" if endpoint == "(none)" else endpoint,
        handshake_age_s=age_s,
        rx_bytes=int(rx_bytes),
        tx_bytes=int(tx_bytes),
        silent_s=silent_s,
        stale_s=stale_s,
        allowed=() if allowed == "(none)" else tuple(allowed.split(",")),
    )
