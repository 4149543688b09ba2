"""The preflight's judgement: facts in, findings out. No input, no clock.

Each check is a function that yields findings and none where all is well. A command that mends is
what a person may paste into the router's shell as it is; where none is known, none is given.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from enum import Enum

from ...carrying.forwarding import Blockage
from ...config.options import CONFIG
from ...config.parser import parse_config
from ...config.wan_names import unknown_names, wan_devices
from ...model import DefaultRoute, is_marked, is_own_name
from ...platform.tunnels import words_of
from ...reasons import Reason, because, code_of, told_with
from ...uci import Section
from ...values import dataclass

PROGRAMS: Mapping[str, tuple[str, str, str]] = {
    "ip": ("ip_for", "ip-full", "iproute2"),
    "nft": ("nft_for", "nftables-json", "nftables"),
    "wg": ("wg_for", "wireguard-tools", "wireguard-tools"),
    "conntrack": ("conntrack_for", "conntrack", "conntrack"),
}
"""Each program: the code of what fails without it, its package on OpenWrt, that elsewhere."""


class Level(Enum):
    """WRONG keeps the service from its work; a NOTE is worth knowing."""

    WRONG = "wrong"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, as a sentence, and the command that mends it ('' where none does)."""

    check: str
    level: Level
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on the router; the defaults are those of a Linux where all is well.

    `installer` is the package manager's command ('' where none is known), `table_error` what nft
    said to a table with all that steering needs, `holder` who has the object's name ('service',
    'other', 'nobody', or 'no bus'), `problems` and `notes` what a running service told, `configs`
    the sections of each file that is there, `unreadable` why a file could not be read, `wans`
    interface name -> device for those with a default route, `exposed` the paths of keys that
    others may read, `blockages` what the forward hook keeps from the tunnels, `interfaces`
    netifd's names with their devices, `devices` all that there are,
    `unforwarded` why forwarded packets would go nowhere and what mends it, `lans` the devices
    with hosts behind them, `dead_wans` those of whom a running service gets no answer,
    `read_only` the folders that nothing can be written to, each with its mount point,
    `start` the command that starts the service.
    """

    openwrt: bool = False
    installer: str = "apt-get install"
    missing: frozenset[str] = frozenset()
    table_error: str = ""
    wireguard: str = "kernel"
    raw_sockets: bool = True
    now_s: float = 0.0
    built_s: float = 0.0
    strict_filter: bool = False
    holder: str = "service"
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    configs: Mapping[str, tuple[Section, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    wans: Mapping[str, str] = field(default_factory=dict)
    routes: tuple[DefaultRoute, ...] = ()
    exposed: tuple[str, ...] = ()
    blockages: tuple[Blockage, ...] = ()
    interfaces: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    unforwarded: tuple[str, str] = ("", "")
    lans: tuple[str, ...] = ()
    dead_wans: tuple[str, ...] = ()
    read_only: Mapping[str, str] = field(default_factory=dict)
    start: str = "systemctl restart wireguard-uplink"

    def sections(self, config: str, type_: str) -> list[Section]:
        """The sections of one type; [] where the file is not there."""
        return [s for s in self.configs.get(config, ()) if s.type == type_]


def examine(facts: Facts) -> list[Finding]:
    """Everything that the checks have to say, in their order, nothing twice: neither a sentence,
    nor what the service says with a command that another finding has.
    """
    found: dict[str, Finding] = {}
    for check in CHECKS:
        for finding in check(facts):
            found.setdefault(finding.what.rstrip("."), finding)
    mends = [f"`{finding.mend}`" for finding in found.values() if finding.mend]
    return [
        finding
        for finding in found.values()
        if finding.check != "service" or not any(mend in finding.what for mend in mends)
    ]


def _wrong(check: str, what: str, mend: str = "") -> Finding:
    return Finding(check, Level.WRONG, what, mend)


def _note(check: str, what: str, mend: str = "") -> Finding:
    return Finding(check, Level.NOTE, what, mend)


def check_programs(facts: Facts) -> Iterator[Finding]:
    for name, (why, *packages) in PROGRAMS.items():
        if name in facts.missing:
            mend = _install(facts, packages[0 if facts.openwrt else 1])
            yield _wrong("programs", because("missing", name, because(why)), mend)


def _install(facts: Facts, packages: str) -> str:
    return f"{facts.installer} {packages}" if facts.installer else ""


def check_kernel(facts: Facts) -> Iterator[Finding]:
    """WireGuard, nftables with what steering uses, raw sockets."""
    if not facts.wireguard:
        package = "kmod-wireguard" if facts.openwrt else "wireguard-go"
        yield _wrong("kernel", because("no_wireguard"), _install(facts, package))
    if facts.wireguard == "wireguard-go":
        yield _note("kernel", because("wireguard_go"))
    if facts.table_error and "nft" not in facts.missing:
        mend = _install(facts, "kmod-nft-fib kmod-nft-nat") if facts.openwrt else ""
        yield _wrong("kernel", because("nft_refuses", facts.table_error), mend)
    if not facts.raw_sockets:
        yield _wrong("kernel", because("no_raw_sockets"))


def check_clock(facts: Facts) -> Iterator[Finding]:
    """WireGuard refuses a handshake that is older than one that it knows."""
    if facts.now_s < facts.built_s:
        mend = "ntpd -n -q -p pool.ntp.org" if facts.openwrt else "timedatectl set-ntp true"
        yield _wrong("clock", because("clock_old"), mend)


def check_reverse_path(facts: Facts) -> Iterator[Finding]:
    """The filter of a device is the stricter of its own and `all` (ip-sysctl, rp_filter)."""
    if facts.strict_filter:
        setting = "net.ipv4.conf.all.rp_filter=0"
        file = "/etc/sysctl.conf" if facts.openwrt else "/etc/sysctl.d/90-router.conf"
        mend = f"echo {setting} >>{file} && sysctl -w {setting}"
        yield _wrong("rp_filter", because("filter_is_strict"), mend)


def check_name(facts: Facts) -> Iterator[Finding]:
    if facts.holder == "other":
        yield _wrong("name", because("name_is_others"), facts.start)
    elif facts.holder == "no bus" and facts.openwrt:
        yield _note("name", because("no_bus"))
    elif facts.holder != "service":
        yield _note("name", because("not_running"), facts.start)


def check_configuration(facts: Facts) -> Iterator[Finding]:
    """Files that can't be read, values that can't be used, options that nobody knows."""
    for name, why in facts.unreadable.items():
        yield _wrong("configuration", because("setting", f"{why}."), f"vi /etc/config/{name}")
    mend = f"vi /etc/config/{CONFIG}"
    if facts.openwrt:
        mend += " && /etc/init.d/wireguard-uplink reload"
    config = parse_config(facts.configs.get(CONFIG, ()))
    for fault in config.faults:
        yield _wrong("configuration", because("setting", f"{fault.told}."), fault.mend or mend)
    for warning in config.unknown:
        yield _note("configuration", because("setting", f"{warning}."), mend)
    devices, unknown = wan_devices(config.settings.lines, facts.interfaces, facts.devices)
    if unknown and facts.holder != "service":  # which says so itself
        instead = "the others are watched" if devices else "every WAN is watched"
        there = facts.interfaces or facts.devices
        told = f"{unknown_names('wan', unknown, there, instead)}."
        yield _wrong("configuration", because("setting", told), mend)


_NOT_LASTING = "; this helps until the firewall is loaded anew: have its own rules say so too"


def check_forwarding(facts: Facts) -> Iterator[Finding]:
    """Traffic of the LANs is forwarded into the tunnels as it is to the WAN."""
    for found in facts.blockages:
        yield _wrong(
            "forwarding",
            told_with(found.what, f"{_NOT_LASTING * (bool(found.mend) and not found.lasts)}."),
            found.mend,
        )


def check_provider(facts: Facts) -> Iterator[Finding]:
    """The kernel forwards for LANs and consumers."""
    what, mend = facts.unforwarded
    is_provider = parse_config(facts.configs.get(CONFIG, ())).provider.enabled
    if what and (is_provider or facts.lans):
        yield _wrong("provider", Reason(f"{what[0].upper()}{what[1:]}.", *code_of(what)), mend)


def check_service(facts: Facts) -> Iterator[Finding]:
    """What the running service itself complains of."""
    for sentence in facts.problems:
        if not any(f"can't run {name}:" in sentence for name in facts.missing):
            yield _wrong("service", sentence)
    for sentence in facts.notes:
        yield _note("service", sentence)


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Private keys are root's alone."""
    for path in facts.exposed:
        mend = f"chmod go= {shlex.quote(path)}"
        yield _wrong("keys", because("key_exposed", path), mend)


def check_files(facts: Facts) -> Iterator[Finding]:
    """Configuration and keys can be saved."""
    for path, mounted in facts.read_only.items():
        mend = f"mount -o remount,rw {shlex.quote(mounted)}"
        yield _wrong("files", because("read_only", path), mend)


def check_mwan3(facts: Facts) -> Iterator[Finding]:
    """What mwan3 needs before it works at all: its globals, and a metric of each WAN.

    Our own interfaces there have routes of their own, whose metrics the service sees to.
    """
    tracked = [
        s
        for s in facts.sections("mwan3", "interface")
        if s.options.get("enabled", "0") == "1" and not is_own_name(s.name)
    ]
    if not tracked:
        return
    if not any(s.name == "globals" for s in facts.sections("mwan3", "globals")):
        told = because("mwan3_globals")
        mend = "uci set mwan3.globals=globals && uci set mwan3.globals.mmx_mask=0x3F00"
        yield _wrong("mwan3", told, f"{mend} && uci commit mwan3 && /etc/init.d/mwan3 restart")
    networks = {s.name: s.options for s in facts.sections("network", "interface")}
    taken: dict[tuple[object, object], str] = {}
    for section in tracked:
        options = networks.get(section.name)
        if options is None:
            continue
        metric, family = options.get("metric", "0"), section.options.get("family", "ipv4")
        other = taken.setdefault((family, metric), section.name)
        if metric == "0":
            told = because("no_metric", section.name)
        elif other != section.name:
            told = because("same_metric", section.name, other, metric)
        else:
            continue
        yield _wrong("mwan3", told, _set_metric(facts, section.name))


def _set_metric(facts: Facts, name: str) -> str:
    interfaces = facts.sections("network", "interface")
    used = {s.options.get("metric") for s in interfaces}
    place = [s.name for s in interfaces].index(name) + 1
    free = next(n for n in range(place * 10, place * 10 + 1000) if str(n) not in used)
    return (
        f"uci set network.{name}.metric={free} && uci commit network && /etc/init.d/network reload"
    )


def check_firewall(facts: Facts) -> Iterator[Finding]:
    """A tunnel joins the zone of the WAN that it replaces; LAN traffic is forwarded there."""
    zones = facts.sections("firewall", "zone")
    reached = {
        s.options.get("dest")
        for s in facts.sections("firewall", "forwarding")
        if s.options.get("enabled", "1") != "0" and not is_marked(s.options)
    }
    apply = "uci commit firewall && /etc/init.d/firewall reload"
    for name, device in sorted(facts.wans.items() if "firewall" in facts.configs else ()):
        if is_own_name(name):
            continue
        zone = next((z for z in zones if _covers(z, name, device)), None)
        if zone is None:
            told = because("no_zone", name, device)
            outer = [i for i, z in enumerate(zones) if z.options.get("masq") == "1"]
            outer += [i for i, z in enumerate(zones) if z.options.get("name") == "wan"]
            mend = f"uci add_list firewall.@zone[{outer[0]}].network={name}" if outer else ""
            yield _wrong("firewall", told, f"{mend} && {apply}" if mend else "")
        elif (zone_name := str(zone.options.get("name", zone.name))) not in reached:
            told = because("no_zone_forwarding", zone_name, name)
            inner = _inner_zone(zones)
            sets = {"src": inner, "dest": zone_name}  # anybody's names: no commands of theirs
            mend = "uci add firewall forwarding" + "".join(
                f" && uci set firewall.@forwarding[-1].{option}={shlex.quote(value)}"
                for option, value in sets.items()
            )
            mend += f" && {apply}"
            yield _wrong("firewall", told, mend if inner else "")


def _inner_zone(zones: Sequence[Section]) -> str:
    """The name of the LAN's zone; '' where none can be told to be it."""
    of_lan = [z for z in zones if "lan" in words_of(z, "network")]
    found = [*of_lan, *(z for z in zones if z.options.get("name") == "lan")]
    return next((str(z.options.get("name", z.name)) for z in found), "")


def _covers(zone: Section, name: str, device: str) -> bool:
    return name in words_of(zone, "network") or device in words_of(zone, "device")


def check_offloading(facts: Facts) -> Iterator[Finding]:
    """Offloaded packets pass by our table; software offloading sees a route that changed."""
    for section in facts.sections("firewall", "defaults"):
        if section.options.get("flow_offloading_hw", "0") == "1":
            mend = "uci set firewall.@defaults[0].flow_offloading_hw=0 && uci commit firewall"
            mend += " && /etc/init.d/firewall reload"
            yield _note("offloading", because("hardware_offload"), mend)


def check_wans(facts: Facts) -> Iterator[Finding]:
    if not facts.routes:
        yield _note("lines", because("nothing_to_watch"))
    for device in facts.dead_wans:
        yield _wrong("lines", because("wan_probes_lost", device))


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    check_programs,
    check_kernel,
    check_clock,
    check_reverse_path,
    check_name,
    check_configuration,
    check_forwarding,
    check_provider,
    check_service,
    check_keys,
    check_files,
    check_mwan3,
    check_firewall,
    check_offloading,
    check_wans,
)
