"""Traffic shaping per consumer and direction with `tc`, on the provider's device and an ifb.

Traffic to consumers is shaped where it leaves the provider's device; traffic from them goes through
an ifb first, so that WANs, where people have shapers of their own, are never touched. A consumer is
an htb class on both devices, found by u32 filters on its addresses. All of it is in OpenWrt's
tc-tiny, kmod-sched-core and kmod-ifb.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import CommandFailed
from ..model import IFB_DEVICE, PROVIDER_DEVICE, TRIAL_DEVICE
from ..reasons import because
from ..system import process
from ..system.rtnetlink import Kernel
from ..values import dataclass
from .plan import Lease

QUEUE_S = 0.1
_SIDES = ((PROVIDER_DEVICE, "dst"), (IFB_DEVICE, "src"))
_VERSION = {4: "match u8 0x40 0xf0 at 0 match ip", 6: "match u8 0x60 0xf0 at 0 match ip6"}

Shapes = Mapping[int, tuple[str, ...]]


def wanted_shapes(leases: Iterable[Lease]) -> dict[int, tuple[str, ...]]:
    """The addresses of each class: its number is the last 16 bits of the IPv4 address.

    So it stays the same as long as the lease, and differs in any pool of a /16 or less. A lease
    without an IPv4 address is numbered by the other one.
    """
    found: dict[int, tuple[str, ...]] = {}
    for lease in leases:
        plain = [ipaddress.ip_interface(text).ip for text in lease.addresses]
        if plain:
            number = int(min(plain, key=lambda ip: ip.version)) & 0xFFFF
            found[number] = tuple(str(ip) for ip in plain)
    return found


def base_lines(device: str, ifb: str) -> list[str]:
    """tc commands for what all classes stand on; those that are there already may fail."""
    return [
        f"qdisc replace dev {device} root handle 1: htb",
        f"qdisc replace dev {ifb} root handle 1: htb",
        f"qdisc add dev {device} handle ffff: ingress",
        f"filter delete dev {device} parent ffff: prio 1",
        f"filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 "
        f"action mirred egress redirect dev {ifb}",
    ]


def class_lines(
    device: str, side: str, number: int, addresses: Sequence[str], rate_mbps: int
) -> list[str]:
    """tc commands for a class and the filters that lead to it; `side` is src or dst.

    The filters have the class's number as their priority, which makes them removable together.
    """
    burst = max(3200, rate_mbps * 1250)  # bytes: 10 ms, for kernels with slow timers
    lines = [
        f"class replace dev {device} parent 1: classid 1:{number:x} htb rate {rate_mbps}mbit "
        f"burst {burst} cburst {burst} quantum 3028"
    ]
    for address in addresses:
        ip = ipaddress.ip_address(address)
        lines.append(
            f"filter add dev {device} parent 1: protocol all prio {number} u32 "
            f"{_VERSION[ip.version]} {side} {ip}/{ip.max_prefixlen} flowid 1:{number:x}"
        )
    return lines


def queue_lines(device: str, number: int, rate_mbps: int) -> list[str]:
    """tc commands for a class's queue: fq_codel, or where the kernel lacks it a short one."""
    leaf = f"qdisc replace dev {device} parent 1:{number:x}"
    limit = max(15000, int(rate_mbps * 125_000 * QUEUE_S))
    return [f"{leaf} bfifo limit {limit}", f"{leaf} fq_codel"]


def parse_classes(text: str) -> set[int]:
    """The numbers of the classes that `tc class show` lists."""
    return {int(number, 16) for number in re.findall(r"^class htb 1:([0-9a-f]+) ", text, re.M)}


async def can_shape(kernel: Kernel) -> str:
    """Why this machine can't limit consumers' rates, as a sentence for its owner; '' if it can.

    All kinds of commands are tried on a device that is there only meanwhile.
    """
    lines = list(dict.fromkeys(base_lines(TRIAL_DEVICE, TRIAL_DEVICE)))
    lines += class_lines(TRIAL_DEVICE, "dst", 1, ("10.0.0.1", "fd00::1"), 1)
    kernel.delete_device(TRIAL_DEVICE)
    try:
        kernel.make_device(TRIAL_DEVICE, "ifb")
    except CommandFailed:
        return because("no_ifb")
    try:
        await _tc([line for line in lines if " delete " not in line])
    except CommandFailed as error:
        return because("no_tc", error)
    finally:
        kernel.delete_device(TRIAL_DEVICE)
    return ""


@dataclass(slots=True)
class Shaper:
    """The classes of all consumers. One caller at a time.

    `_known` is the rate in Mbit/s and the shapes that stand, None before they are known.
    """

    kernel: Kernel
    _known: tuple[int, Shapes] | None = None

    async def apply(self, shapes: Shapes, rate_mbps: int, links: Collection[str]) -> None:
        """Shape so, each way at that rate; without a rate or a shape take everything away.

        `links` are the devices that there are and that have not been made anew since the last call.
        Raises CommandFailed; the next call then begins with what it finds.
        """
        wanted = shapes if rate_mbps else {}
        known, self._known = self._known, None
        if IFB_DEVICE not in links or PROVIDER_DEVICE not in links:
            known = None
        if not wanted:
            if IFB_DEVICE in links:
                await self.remove()
        elif known is None or not known[1]:
            await self._ensure_roots(make_ifb=IFB_DEVICE not in links)
            for device, side in _SIDES:
                there = await _read_classes(device)
                await _change(device, side, there, {}, wanted, rate_mbps)
        elif known != (rate_mbps, wanted):
            same = known[1] if known[0] == rate_mbps else {}
            for device, side in _SIDES:
                await _change(device, side, known[1].keys(), same, wanted, rate_mbps)
        self._known = (rate_mbps, wanted)

    async def _ensure_roots(self, *, make_ifb: bool) -> None:
        if make_ifb:
            self.kernel.make_device(IFB_DEVICE, "ifb")
        self.kernel.set_device(IFB_DEVICE, up=True)
        await _tc(base_lines(PROVIDER_DEVICE, IFB_DEVICE), force=True)

    async def remove(self) -> None:
        self._known = None
        of_device = f"dev {PROVIDER_DEVICE}"
        await _tc(
            [f"qdisc delete {of_device} root", f"qdisc delete {of_device} ingress"], force=True
        )
        self.kernel.delete_device(IFB_DEVICE)


async def _change(
    device: str, side: str, there: Collection[int], same: Shapes, wanted: Shapes, rate_mbps: int
) -> None:
    """Bring one device's classes from `there` to `wanted`; those of `same` need nothing."""
    changed = [number for number in wanted if wanted[number] != same.get(number)]
    stale = [number for number in there if number in changed or number not in wanted]
    before = [f"filter delete dev {device} parent 1: prio {number}" for number in stale]
    gone = [number for number in stale if number not in wanted]
    before += [f"class delete dev {device} classid 1:{number:x}" for number in gone]
    await _tc(before, force=True)
    lines = [class_lines(device, side, n, wanted[n], rate_mbps) for n in changed]
    await _tc([line for of_class in lines for line in of_class])
    queues = [queue_lines(device, n, rate_mbps) for n in changed if n not in there]
    await _tc([line for of_class in queues for line in of_class], force=True)


async def _read_classes(device: str) -> set[int]:
    shown = await process.run(["tc", "class", "show", "dev", device], check=False)
    return parse_classes(shown.stdout)


async def _tc(lines: Sequence[str], *, force: bool = False) -> None:
    """Run commands in one process; with `force` one that fails does not stop the others."""
    text = "\n".join(lines) + "\n"
    if lines and force:
        await process.run(["tc", "-force", "-batch", "-"], stdin=text, check=False)
    elif lines:
        await process.run_silent(["tc", "-batch", "-"], stdin=text)
