"""What mwan3's own words mean: its sections, how it watches an interface, its marks, its commands.

An option that mwan3 would not understand counts as it does there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..model import MWAN3_MASK as POLICY_MASK
from ..model import Family, is_marked, is_own_name
from ..uci import Section
from ..values import dataclass

ANYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
SETTLE_S = 3
ROUTE_MONITOR = "rtmon_"  # what mwan3's init script alone starts (start_service)
RULE_NAME_LENGTH = 15  # mwan3.sh, mwan3_set_user_iptables_rule


@dataclass(frozen=True, slots=True)
class Tracker:
    """How mwan3 watches an interface, with its own defaults (mwan3track); times in seconds."""

    track_ips: int
    interval_s: int = 10
    failure_interval_s: int = 10
    timeout_s: int = 4
    count: int = 1
    down: int = 5

    @property
    def bound_s(self) -> int:
        """The longest time from a silent death to mwan3's verdict."""
        round_s = self.track_ips * (self.timeout_s + self.count - 1)
        return self.interval_s + self.down * round_s + (self.down - 1) * self.failure_interval_s

    def arithmetic(self) -> str:
        """How the bound comes about, for an owner to check."""
        return (
            f"{self.interval_s} + {self.down} x ({self.track_ips} x ({self.timeout_s} + "
            f"{self.count} - 1)) + ({self.down} - 1) x {self.failure_interval_s} = {self.bound_s} s"
        )


def tracker_of(section: Section) -> Tracker:
    """How mwan3 watches that interface; what is no number counts as left out."""
    interval_s = number_of(section, "interval", 10)
    return Tracker(
        len(words_of(section, "track_ip")),
        interval_s,
        number_of(section, "failure_interval", interval_s),
        number_of(section, "timeout", 4),
        number_of(section, "count", 1),
        number_of(section, "down", 5),
    )


def catch_alls(found: Iterable[Section]) -> list[Section]:
    """The owner's rules that take every packet of a family to a policy."""
    narrowing = ("src_ip", "src_port", "src_iface", "dest_port", "ipset")
    return [
        section
        for section in found
        if section.type == "rule"
        and not is_marked(section.options)
        and len(section.name) <= RULE_NAME_LENGTH
        and section.text("use_policy")
        and not any(option in section.options for option in narrowing)
        and section.text("proto", "all") == "all"
        and families_of(section)
    ]


def diverted_marks(found: Sequence[Section], wans: Collection[str]) -> tuple[int, ...]:
    """The marks of packets that a diversion should lead away from a dead WAN.

    Those of the WANs, of what shares a catch-all policy with them, and of our own interfaces; of
    packets that mwan3 leaves to the main table; and 0. Not the marks of other interfaces: who has a
    policy for a VPN alone wants nothing else to carry its traffic. Where no WAN is known, every
    catch-all policy counts. Where rules use no other policies, what mwan3 refuses too: it does so
    for some 50 ms whenever it builds a policy anew (common.sh, mwan3_id2mask and mwan3_init).
    """
    mask = mask_of(found)
    used = {rule.text("use_policy") for rule in catch_alls(found)}
    covered = {*wans}
    theirs = [s for s in found if s.type == "rule" and not is_marked(s.options)]
    others = {rule.text("use_policy") for rule in theirs} - {"default", ""}
    for policy in policies_of(found):
        members = words_of(policy)
        held = {s.text("interface") for s in found if s.type == "member" and s.name in members}
        if policy.name in used and (not wans or not held.isdisjoint(wans)):
            covered |= held
            others.discard(policy.name)
    marks = {0, mask & POLICY_MASK}
    if not others:
        last = 2 ** mask.bit_count() - 1
        marks |= {_spread(last - place, mask) & POLICY_MASK for place in (1, 2)}
    interfaces = [section for section in found if section.type == "interface"]
    for number, section in enumerate(interfaces, start=1):
        if section.name in covered or is_own_name(section.name):
            marks.add(_spread(number, mask) & POLICY_MASK)
    return tuple(sorted(marks))


def admit_command(
    interfaces: Iterable[str], policies: Iterable[str] = (), *, rules: bool, rebuild: bool
) -> list[str]:
    """The command that has a running mwan3 follow its configuration, without a reload.

    Interfaces are taken in as `mwan3 ifup` does, where netifd's own event did not do so, and get
    the trackers that `ifup` lacks: the init script's start_tracker, added to what procd runs
    (rc.common, rc_procd). With `rules` these and our policies are made anew, with `rebuild` every
    policy is; new flows are refused for some 50 ms then. It goes on in the background, once
    netifd's events have had their time: nobody needs to wait for the net below.
    """
    lines = []
    if rules:
        lines = [f"mwan3_create_policies_iptables {name}" for name in policies]
        lines.append("mwan3_set_user_rules")
    if rebuild:
        lines.append("mwan3_set_policies_iptables")
    for name in interfaces:
        online = f'[ "$(mwan3_get_iface_hotplug_state {name})" = online ]'
        lines += [f"{online} || mwan3_ifup {name} cmd", f"rc_procd start_tracker {name}"]
    return [
        "sh",
        "-c",
        f"{{\nsleep {SETTLE_S}\n{_in_mwan3(lines)}\n}} </dev/null >/dev/null 2>&1 &",
    ]


def dismiss_command(interfaces: Iterable[str]) -> list[str]:
    """The command that has a running mwan3 let interfaces go, before their sections do.

    What `mwan3 ifdown` does, which leaves them out of every policy; and their trackers are ended.
    netifd's event comes too late for it: mwan3 ignores interfaces that are not in its
    configuration. What mwan3 2.12 then leaves of them is deleted: IPv6's rules, which
    mwan3_delete_iface_rules looks for among IPv4's, and the chains, for which
    mwan3_delete_iface_iptables has no command.
    """
    lines = []
    for name in interfaces:
        jump = f"-m mark --mark 0x0/$MMX_MASK -j mwan3_iface_in_{name}"
        lines += [
            f"mwan3_interface_hotplug_shutdown {name} 1",
            f"procd_kill mwan3 track_{name}",
            f"mwan3_get_iface_id id {name}",
            "for pref in $((1000 + id)) $((2000 + id)) $((3000 + id)); do",
            "$IP4 rule del pref $pref; $IP6 rule del pref $pref",
            "done 2>/dev/null",
            'for ipt in "$IPT4" "$IPT6"; do',
            f"$ipt -D mwan3_ifaces_in {jump}",
            f"$ipt -F mwan3_iface_in_{name} && $ipt -X mwan3_iface_in_{name}",
            "done 2>/dev/null",
        ]
    return ["sh", "-c", _in_mwan3(lines)]


def _in_mwan3(lines: Iterable[str]) -> str:
    """Shell lines that are run as those of mwan3's init script are, if mwan3 runs."""
    enter = [
        "set -- /etc/init.d/mwan3 running",
        ". /etc/rc.common || exit 0",
        f"procd_running mwan3 {ROUTE_MONITOR}ipv4 || exit 0",
        "mwan3_init",
    ]
    return "\n".join([*enter, *lines])


def policies_of(found: Iterable[Section]) -> list[Section]:
    return [section for section in found if section.type == "policy"]


def families_of(rule: Section) -> list[Family]:
    """The families whose every packet the rule's destination takes in."""
    named = rule.text("family", "any")
    anywhere = rule.text("dest_ip")
    found = []
    for family in Family:
        if named in ("any", family.value) and anywhere in ("", ANYWHERE[family]):
            found.append(family)
    return found


def is_enabled(interface: Section) -> bool:
    return interface.text("enabled") in ("1", "on", "true", "yes", "enabled")


def mask_of(found: Iterable[Section]) -> int:
    options = next((s.options for s in found if s.name == "globals"), {})
    try:
        return int(str(options.get("mmx_mask", "")), 16) or POLICY_MASK
    except ValueError:
        return POLICY_MASK


def _spread(number: int, mask: int) -> int:
    """The number's bits, put into the bits of the mask, lowest first."""
    result = 0
    for bit in range(32):
        if mask >> bit & 1:
            result |= (number & 1) << bit
            number >>= 1
    return result


def words_of(section: Section, option: str = "use_member") -> tuple[str, ...]:
    """A list as mwan3 sees it: a plain option has no items."""
    value = section.options.get(option, ())
    return () if isinstance(value, str) else value


def number_of(section: Section, option: str, default: int) -> int:
    text = section.text(option)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
