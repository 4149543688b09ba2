"""The preflight's eyes: one thin reader for each fact. Changes nothing and judges nothing.

What can't be read is left at the value that means no complaint, except where being unreadable is
the complaint itself.
"""

from __future__ import annotations

import glob
import os
import socket
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from ...api.methods import OBJECT, OURS_ALONE
from ...carrying.forwarding import Blockage, Paths, lan_devices, look_both_ways
from ...carrying.ruleset import read_ruleset
from ...config.options import CONFIG
from ...config.parser import parse_config
from ...errors import UplinkError
from ...mesh.registry.directory import read_mesh
from ...mesh.registry.listing import tunnel_fault
from ...model import DEVICE_GROUP, PROVIDER_DEVICE, TUNNEL_PREFIX, DefaultRoute, Family
from ...platform.netifd import parse_dump
from ...reasons import Reason, because, told_with
from ...schema.lean import leaving_out
from ...system import process
from ...system.proc import forwarding_fault, read_lenient
from ...system.rtnetlink import Kernel, by_device
from ...system.wg import Ages
from ...ubus import DEFAULT_SOCKET
from ...ubus.client import Client
from ...uci import MissingConfig, Section, Store
from ...values import dataclass
from ..start import is_openwrt, start_command
from .checks import PROGRAMS, Facts

with leaving_out("bz2", "lzma"):  # the service loads this, too
    import shutil

CONFIGS = (CONFIG, "network", "firewall", "mwan3")
BUS_TIMEOUT_S = 2.0
_TABLE = """
table inet wgup_check {
  map held { type mark : verdict; flags timeout; }
  set families { type nf_proto; flags timeout; }
  set own { type ifname . ipv6_addr; flags interval; }
  chain pre { type filter hook prerouting priority -149; fib daddr type local accept; }
  chain out { type route hook output priority -149; ct mark & 0x7f000000 vmap @held; }
  chain seen { type filter hook postrouting priority -149; ct mark set ct mark | 0x02000000; }
  chain through {
    type filter hook forward priority -1;
    ip daddr 192.0.2.1 meta nfproto @families reject with icmpx port-unreachable;
  }
  chain nat { type nat hook postrouting priority 99; oifname . ip6 saddr != @own masquerade; }
}
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the preflight looks; the defaults are a router's."""

    config_dir: str = "/etc/config"
    keys_dir: str = "/etc/wireguard-uplink/keys"
    socket: str = DEFAULT_SOCKET


async def read_facts(places: Places) -> Facts:
    """Collect everything, in about a second."""
    configs, unreadable = read_configs(places.config_dir)
    holder, problems, notes, dump, dead = await read_bus(places.socket)
    if holder != "service":
        notes += await read_peers(configs.get(CONFIG, ()))
    missing = frozenset(name for name in PROGRAMS if shutil.which(name) is None)
    kernel = Kernel()
    routes = [route for family in Family for route in kernel.default_routes(family)]
    devices = {route.device for route in routes}
    interfaces = {name: each.device for name, each in parse_dump(dump).items()}
    openwrt = is_openwrt()
    lans, blockages = await _forwarding(kernel, routes)
    return Facts(
        openwrt=openwrt,
        installer=next((c for p, c in _INSTALLERS if shutil.which(p)), ""),
        missing=missing,
        table_error=await _table_error() if "nft" not in missing else "",
        wireguard=find_wireguard(os.uname().release),
        raw_sockets=_raw_sockets(),
        now_s=time.time(),
        built_s=os.stat(__file__).st_mtime,
        strict_filter=read_lenient("/proc/sys/net/ipv4/conf/all/rp_filter").strip() == "1",
        holder=holder,
        problems=problems,
        notes=notes,
        configs=configs,
        unreadable=unreadable,
        wans={name: device for name, device in interfaces.items() if device in devices},
        routes=tuple(routes),
        exposed=tuple(read_exposed(places.keys_dir)),
        blockages=blockages,
        lans=lans,
        dead_wans=dead,
        read_only=read_read_only(places.config_dir, places.keys_dir),
        start=start_command("restart"),
        interfaces=interfaces,
        devices=tuple(device.name for device in kernel.devices()),
        unforwarded=forwarding_fault(
            {family: [r.device for r in routes if r.family is family] for family in Family}
        ),
    )


_INSTALLERS = (
    ("apk", "apk add"),
    ("opkg", "opkg update && opkg install"),
    ("apt-get", "apt-get install"),
)


def read_configs(directory: str) -> tuple[dict[str, tuple[Section, ...]], dict[str, str]]:
    configs, unreadable = {}, {}
    for name in CONFIGS:
        try:
            configs[name] = tuple(Store(directory).read(name).sections)
        except MissingConfig:
            continue
        except UplinkError as error:
            unreadable[name] = str(error)
    return configs, unreadable


Spoken = tuple[str, ...]


async def read_bus(path: str) -> tuple[str, Spoken, Spoken, Mapping[str, Any], Spoken]:
    """Who holds the object's name, the problems and notes of our service, netifd's dump, and the
    devices of WANs that answer nothing.
    """
    client = Client(path)
    holder = "no bus"
    problems: list[str] = []
    notes: list[str] = []
    dump: Mapping[str, Any] = {}
    dead: list[str] = []
    try:
        await client.connect(BUS_TIMEOUT_S)
        found = await client.lookup(OBJECT)
        holder = "other" if found else "nobody"
        if found and OURS_ALONE in found[0].methods:
            holder = "service"
            status = await client.call(OBJECT, "uplink_status", timeout_s=BUS_TIMEOUT_S)
            codes = status.get("problem_codes", ())
            told: Any = zip_longest(status.get("problems", ()), codes, fillvalue={})
            problems = [
                Reason(str(problem), each.get("code", ""), tuple(each.get("args", ())))
                for problem, each in told
            ]
            dead = [row["device"] for row in status.get("wans", ()) if row["state"] == "down"]
            listed = await client.call(OBJECT, "uplink_list", timeout_s=BUS_TIMEOUT_S)
            rows = listed.get("uplinks", ())
            notes = [because("of", r["peer_id"], _said(r, "note")) for r in rows if r.get("note")]
            trust = await client.call(OBJECT, "uplink_trust", timeout_s=BUS_TIMEOUT_S)
            notes += [_peer_sentence(row) for row in trust.get("peers", ()) if row.get("reason")]
        if await client.lookup("network.interface"):
            dump = await client.call("network.interface", "dump", timeout_s=BUS_TIMEOUT_S)
    except UplinkError as error:
        if holder == "service":
            problems.append(f"The service does not answer: {error}.")
    finally:
        await client.close()
    return holder, tuple(problems), tuple(notes), dump, tuple(dead)


def _peer_sentence(row: Mapping[str, Any]) -> str:
    name = row["peer_id"] or f"Mesh peer {row['mesh_key'][:8]}"
    reason = _said(row, "reason")
    told = reason if reason.startswith(f"{name} ") else because("of", name, reason)
    return told if told.endswith("?") else told_with(told, ".")


def _said(row: Mapping[str, Any], name: str) -> Reason:
    """A sentence of a reply, with the code and the arguments beside it."""
    return Reason(str(row[name]), row.get(f"{name}_code", ""), tuple(row.get(f"{name}_args", ())))


async def read_peers(sections: Iterable[Section]) -> Spoken:
    """Why peers of WireGuard prove nothing, where no service says more."""
    try:
        only = parse_config(sections).peering.mesh_devices
        mesh = await read_mesh(Kernel(), only, Ages())
    except UplinkError:
        return ()
    faults = (tunnel_fault(peer, mesh.addresses) for peer in (*mesh.peers, *mesh.others))
    return tuple(f"{fault[0].upper()}{fault[1:]}." for fault in faults if fault)


async def _forwarding(
    kernel: Kernel, routes: Collection[DefaultRoute]
) -> tuple[tuple[str, ...], tuple[Blockage, ...]]:
    """The LANs' devices, and what the forward hook keeps from the tunnels that are there now: of
    LANs on a consumer, of consumers on a provider.
    """
    lans: tuple[str, ...] = ()
    try:
        links, addresses = kernel.devices(), by_device(kernel.addresses())
        names = [x.name for x in links if x.name.startswith(TUNNEL_PREFIX)]
        tunnels = {n: _families(addresses.get(n, ())) for n in names if n != PROVIDER_DEVICE}
        lines: dict[str, list[Family]] = {}
        for route in routes:
            if route.device not in tunnels:
                lines.setdefault(route.device, []).append(route.family)
        meshes = {link.name for link in links if link.group == DEVICE_GROUP}
        inner = lan_devices(addresses, {*meshes, *lines})
        lans = tuple(inner)
        consumers = {n: a for n, a in addresses.items() if n == PROVIDER_DEVICE}
        if not (lines and (tunnels or consumers)):
            return lans, ()
        ours, served = Paths(inner, list(lines), tunnels), Paths(consumers, (), lines)
        return lans, look_both_ways(await read_ruleset(), ours, served).blockages
    except UplinkError:
        return lans, ()


def _families(addresses: Iterable[str]) -> tuple[Family, ...]:
    found = {Family.of(address) for address in addresses}
    return tuple(family for family in Family if family in found)


async def _table_error() -> str:
    try:
        # -c: the kernel is asked, and changes nothing.
        done = await process.run(["nft", "-c", "-f", "-"], stdin=_TABLE, check=False)
    except UplinkError as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else next(iter(lines), "it gave no reason")[:200]


def find_wireguard(release: str, root: str = "/") -> str:
    """'kernel', 'wireguard-go' or ''; a module that is there is loaded when it is needed."""
    if os.path.isdir(os.path.join(root, "sys/module/wireguard")):
        return "kernel"
    modules = os.path.join(root, "lib/modules", release)
    found = glob.iglob(os.path.join(glob.escape(modules), "**/wireguard.ko*"), recursive=True)
    if next(found, None) or "/wireguard.ko" in read_lenient(
        os.path.join(modules, "modules.builtin")
    ):
        return "kernel"
    return "wireguard-go" if shutil.which("wireguard-go") else ""


def _raw_sockets() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True


def read_read_only(*folders: str) -> dict[str, str]:
    """The folders on file systems that are mounted read-only, and where those are mounted; for one
    that is not there yet, the nearest above it.
    """
    found: dict[str, str] = {}
    for folder in folders:
        there = os.path.abspath(folder)
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            points = (line.split()[1] for line in read_lenient("/proc/self/mounts").splitlines())
            above = [p for p in points if os.path.commonpath((p, there)) == p]
            found.setdefault(max(above, key=len, default="/"), there)
    return {there: mounted for mounted, there in found.items()}


def read_exposed(keys_dir: str) -> Iterator[str]:
    """The folder of the keys and its files, those that anybody but the owner may use."""
    names = [keys_dir]
    with suppress(OSError):
        names += [os.path.join(keys_dir, name) for name in sorted(os.listdir(keys_dir))]
    for name in names:
        with suppress(OSError):
            if stat.S_IMODE(os.lstat(name).st_mode) & 0o077:
                yield name
