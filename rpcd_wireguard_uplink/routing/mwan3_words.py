"""What mwan3's own words mean: its sections, how it watches an interface, its marks, its status.

Reads and judges, changes nothing. An option that mwan3 would not understand counts as it does
there. Knows nothing of uplinks but what their interfaces are called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model import ALIAS_PREFIX, TUNNEL_PREFIX, Family, is_marked
from ..uci import Section
from .lane import POLICY_MASK

ANYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
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
        and text_of(section, "use_policy")
        and not any(option in section.options for option in narrowing)
        and text_of(section, "proto", "all") == "all"
        and families_of(section)
    ]


def lane_marks(found: Sequence[Section], lines: Collection[str]) -> tuple[int, ...]:
    """The marks that packets may carry which the lane should lead away from a dead line.

    Those of the lines, of what shares a catch-all policy with them, and of our own interfaces; of
    packets that mwan3 leaves to the main table; and 0. Not the marks of other interfaces: who has a
    policy for a VPN alone wants nothing else to carry its traffic. Where no line is known, every
    catch-all policy counts (common.sh, mwan3_id2mask).
    """
    mask = mask_of(found)
    used = {text_of(rule, "use_policy") for rule in catch_alls(found)}
    covered = {*lines}
    for policy in policies_of(found):
        members = words_of(policy)
        held = {text_of(s, "interface") for s in found if s.type == "member" and s.name in members}
        if policy.name in used and (not lines or not held.isdisjoint(lines)):
            covered |= held
    marks = {0, mask & POLICY_MASK}
    interfaces = [section for section in found if section.type == "interface"]
    for number, section in enumerate(interfaces, start=1):
        if section.name in covered or is_ours(section.name):
            marks.add(_spread(number, mask) & POLICY_MASK)
    return tuple(sorted(marks))


def is_ours(interface: str) -> bool:
    """Whether an interface has a name as ours have."""
    return interface.startswith((TUNNEL_PREFIX, ALIAS_PREFIX))


@dataclass(frozen=True, slots=True)
class View:
    """What mwan3 itself says: interface -> its word for it; policy -> interfaces in use now."""

    interfaces: Mapping[str, str]
    policies: Mapping[Family, Mapping[str, tuple[str, ...]]]


def parse_status(text: str) -> View:
    """The reply of `ubus call mwan3 status`, as JSON, or as nearly JSON as mwan3 writes it.

    An `age` may be nan. An interface whose tracker has not written its status yet is `unknown`.
    Percentages are not taken: those of balanced members are wrong. What is no reply says nothing.
    """
    try:
        table = json.loads(re.sub(r"(?<=[:\s])-?(nan|inf)\b", "null", text))
    except ValueError:
        table = None
    interfaces = {
        name: str(row.get("status") or "unknown") for name, row in _rows(table, "interfaces")
    }
    policies = {}
    for family in Family:
        found = _rows(dict(_rows(table, "policies")), family.value, list)
        policies[family] = {
            name: tuple(
                str(m["interface"]) for m in rows if isinstance(m, dict) and "interface" in m
            )
            for name, rows in found
        }
    return View(interfaces, policies)


def _rows(table: Any, key: str, kind: type = dict) -> list[tuple[str, Any]]:
    inner = table.get(key) if isinstance(table, dict) else None
    items = inner.items() if isinstance(inner, dict) else ()
    return [(name, row) for name, row in items if isinstance(row, kind)]


def rebuild_command(interface: str, device: str) -> list[str]:
    """The command that has mwan3 build its policies anew from its configuration.

    The interface must be online and on that device: the script takes it for news that it is
    (15-mwan3). It restarts no tracker, which a reload would.
    """
    words = ["ACTION=connected", f"INTERFACE={interface}", f"DEVICE={device}"]
    return ["env", "-i", *words, "sh", "/etc/hotplug.d/iface/15-mwan3"]


def policies_of(found: Iterable[Section]) -> list[Section]:
    return [section for section in found if section.type == "policy"]


def families_of(rule: Section) -> list[Family]:
    """The families whose every packet the rule's destination takes in."""
    named = text_of(rule, "family", "any")
    anywhere = text_of(rule, "dest_ip")
    found = []
    for family in Family:
        if named in ("any", family.value) and anywhere in ("", ANYWHERE[family]):
            found.append(family)
    return found


def is_enabled(interface: Section) -> bool:
    return text_of(interface, "enabled") in ("1", "on", "true", "yes", "enabled")


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


def text_of(section: Section, option: str, default: str = "") -> str:
    value = section.options.get(option, default)
    return value if isinstance(value, str) else " ".join(value)


def words_of(section: Section, option: str = "use_member") -> tuple[str, ...]:
    """A list as mwan3 sees it: a plain option has no items."""
    value = section.options.get(option, ())
    return () if isinstance(value, str) else value


def number_of(section: Section, option: str, default: int) -> int:
    text = text_of(section, option)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
