"""A service that says what a test wants: whole replies of a router in each of its states."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from docs.schemas import check_reply, reply_schema
from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT
from rpcd_wireguard_uplink.api.status import summarized
from rpcd_wireguard_uplink.reasons import because, code_of, page_texts

from .gateway import Answer, Session
from .mesh import BrowserSession

Table = dict[str, Any]
KEYS = {name: chr(65 + i) * 42 + "A=" for i, name in enumerate(("nodea", "nodeb", "nodec"))}


def uplink(name: str, **changes: Any) -> Table:
    """A backup that is ready."""
    made = {
        "peer_id": name, "interface": f"wgup_{name}", "weight": 10, "state": "up", "active": False,
        "latency_ms": 21.5, "loss_pct": 0, "handshake_age_s": 40, "rx_bytes": 10, "tx_bytes": 20,
        "today_bytes": 1_200_000_000, "month_bytes": 30_000_000_000, "quota_left_gb": -1,
        "cost": "free", "endpoint": "192.0.2.7:51820", "probe_mb_a_day": 1.5, "mtu": 1420,
        "underlay": "mesh0", "shared_fate": False, "usable": True, "reason": "", "note": "",
    }  # fmt: skip
    return {**made, **changes}


def wan(**changes: Any) -> Table:
    made = {"path": "wan", "device": "eth0", "state": "up", "portal": "", "latency_ms": 12.3}
    return {**made, "loss_pct": 0, "last_ok_s": 0.2, **changes}


def offer(name: str, **changes: Any) -> Table:
    made = {
        "peer_id": name, "trusted": False, "usable": False, "bandwidth_mbps": 100, "latency_ms": 20,
        "reason": because("not_trusted", name, f"trust it by `wgctl uplink trust accept {name}`"),
        "wan_type": "fiber", "available": True, "endpoint": "192.0.2.8:51820", "age_s": 12,
        "public_key": "B" * 42 + "A=", "configured": False, "carrier": "mesh", "metered": False,
        "quota_left_gb": -1,
    }  # fmt: skip
    return {**made, **changes}


def trust(name: str, state: str = "untrusted", **changes: Any) -> Table:
    made = {
        "peer_id": name, "state": state, "reason": "" if state == "trusted" else "missing",
        "mesh_address": "10.9.0.3", "mesh_key": KEYS.get(name, "Z" * 42 + "A="), "device": "wg0",
        "identity": "", "fingerprint": "", "handshake_age_s": 5, "offering": True,
    }  # fmt: skip
    return {**made, **changes}


def event(kind: str, at: str, **changes: Any) -> Table:
    made = {"at": at, "kind": kind, "family": "", "from": "", "to": "", "peer_id": "", "cause": ""}
    return {
        **made, "detection_ms": -1, "switch_ms": -1, "duration_s": -1, "outage_ms": -1,
        "used_bytes": -1, **changes,
    }  # fmt: skip


def outage(minute: int = 0) -> list[Table]:
    """A failover of both families and its end, newest first."""
    moved = {"from": "eth0", "to": "wgup_nodea", "peer_id": "nodea", "outage_ms": 1462}
    back = {"from": "wgup_nodea", "to": "eth0", "cause": because("answers_for", "eth0", 30)}
    back["used_bytes"] = 340_000_000
    cause = {"cause": because("of", "eth0", because("no_answer", 3, "1.4"))}
    return [
        event("failback", f"2026-02-28T12:{minute + 4:02}:00.200Z", family="ipv6", **back),
        event("failback", f"2026-02-28T12:{minute + 4:02}:00Z", family="ipv4", **back),
        event("failover", f"2026-02-28T12:{minute:02}:00.300Z", family="ipv6", **moved, **cause),
        event("failover", f"2026-02-28T12:{minute:02}:00Z", family="ipv4", **moved, **cause),
    ]


def family(path: str, state: str) -> Table:
    held = {"state": state, "active_path": path, "blocked": False, "carrying": None}
    return held | {"early_path": "", "spread": []}


def summary_of(status: Table, offers: list[Table]) -> Table:
    """What the service says of a status in plain words."""

    def record(found: Any) -> Any:
        if isinstance(found, dict):
            return SimpleNamespace(**{name: record(each) for name, each in found.items()})
        return [record(each) for each in found] if isinstance(found, list) else found

    found = {"by_hand": None, "problems": [], **status}
    return summarized(record(found), record(offers)).as_table()


def coded(found: Any, tree: Table) -> Any:
    """A reply with the codes of its sentences, where the schema has them."""
    if isinstance(found, list):
        return [coded(each, tree["items"]) for each in found]
    if not isinstance(found, dict):
        return found
    known = tree["properties"]
    made = {name: coded(each, known[name]) for name, each in found.items()}
    for name in known:
        sentence = name.removesuffix("_code")
        if sentence != name and f"{sentence}_args" in known and name not in found:
            made[name], made[f"{sentence}_args"] = code_of(found[sentence])
            made[f"{sentence}_args"] = [*made[f"{sentence}_args"]]
    if "problem_codes" in known:
        codes = [code_of(each) for each in found["problems"]]
        made["problem_codes"] = [{"code": code, "args": [*args]} for code, args in codes]
    return made


@dataclass(eq=False)
class Service:
    """What the pages ask; a test changes `replies`, and then `happens()`.

    `errors` are methods that fail, by their sentence; `calls` what was asked to change something.
    """

    replies: dict[str, Table]
    errors: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, Table]] = field(default_factory=list)
    stamp: int = 1
    rollback_s: float = 0

    @property
    def status(self) -> Table:
        return self.replies["uplink_status"]

    def happens(self) -> None:
        """What was changed is news."""
        self.stamp += 1

    def answer(self, method: str, given: Table) -> Answer:
        self.calls.append((method, {k: v for k, v in given.items() if k != "ubus_rpc_session"}))
        if method in self.errors:
            told = self.errors[method]
            code, args = code_of(told)
            table = {"success": False, "error": told, "code": "x"}
            return 9, {**table, "error_code": code, "error_args": [*args]}
        reply = self.pulse() if method == "uplink_pulse" else self.replies[method]
        if method == "uplink_status":
            offers = self.replies["uplink_list"]["offers"]
            reply = {**reply, "summary": summary_of(reply, offers)}
        reply = coded(copy.deepcopy(reply), reply_schema(METHODS[method]).tree)
        check_reply(METHODS[method], reply)
        return 0, reply

    def pulse(self) -> Table:
        status = self.status
        paths = [(each["device"], each) for each in status["wans"]]
        paths += [(each["interface"], each) for each in status["uplinks"]]
        names = ("state", "latency_ms", "loss_pct")
        return {
            "stamp": self.stamp, "since_s": status["since_s"], "release_s": status["release_s"],
            "left_s": status.get("by_hand", {}).get("left_s", 0),
            "rollback_s": self.rollback_s,
            "paths": [
                {"path": device, "rx_kbps": 2400 * (i == 0), "tx_kbps": 90}
                | {name: each[name] for name in names}
                for i, (device, each) in enumerate(paths)
            ],
        }  # fmt: skip

    def acts(self) -> list[tuple[str, Table]]:
        """The calls that change or measure something."""
        return [call for call in self.calls if METHODS[call[0]].access != "read"]


def calm() -> Service:
    """The WAN works, nodea is ready, nodeb is not, nodec offers and is not trusted."""
    down = uplink("nodeb", state="down", usable=False, latency_ms=-1, loss_pct=100)
    down["reason"] = because("down", because("no_answer", 3, "4.2"))
    status = {
        "available": True, "version": "0.1.0", "api": 1, "enabled": 1,
        "auto_failover": 1, "offering": 0, "state": "primary",
        "active_path": "eth0", "since_s": 90061, "cause": "", "release_s": -1, "uplink_count": 2,
        "detection_bound_ms": 3000, "active_count": 2, "primary": wan(), "wans": [wan()],
        "families": {"ipv4": family("eth0", "primary"), "ipv6": family("eth0", "primary")},
        "uplinks": [uplink("nodea"), down], "peer_offers": [], "events": [], "problems": [],
        "consumers": [], "anchors": [],
    }  # fmt: skip
    own = {
        "peer_id": "home", "available": False, "reason": "", "bandwidth_mbps": 40, "latency_ms": -1,
        "wan_type": "fiber", "metered": False, "quota_gb": 50, "quota_left_gb": 50,
        "limit_mbps": 10, "max_consumers": 4, "consumers": 0, "endpoint": "",
        "public_key": KEYS["nodec"],
    }  # fmt: skip
    minutes = [20.0 + i % 7 for i in range(60)]
    minutes[20:26] = [-1] * 6
    points = {"loss_pct": [0] * 60, "moved_bytes": [0] * 60}
    added = {"peer_id": "nodec", "interface": "wgup_nodec", "public_key": KEYS["nodec"]}
    done = {"success": True, "message": "Done."}
    configured = {"trusted": True, "usable": True, "reason": "", "configured": True}
    return Service(
        {
            "uplink_status": status,
            "uplink_list": {
                "offers": [offer("nodea", **configured), offer("nodec")],
                "uplinks": [],
            },
            "uplink_trust": {
                "node_id": "home",
                "peers": [trust("nodea", "trusted"), trust("nodeb", "trusted"), trust("nodec")],
            },
            "uplink_consumers": {"offering": 0, "offer": own, "consumers": [], "refused": []},
            "uplink_history": {"events": outage()},
            "uplink_series": {
                "span": "hour",
                "step_s": 60,
                "paths": [
                    {"path": path, "latency_ms": minutes, **points}
                    for path in ("eth0", "wgup_nodea")
                ],
            },
            "uplink_texts": {"texts": [{"code": c, "text": t} for c, t in page_texts().items()]},
            "uplink_check": {"findings": []},
            "uplink_notify": {**done, "hooks": [{"name": "10-mail", "error": ""}]},
            "uplink_trust_accept": {**done, "peer_id": "nodec", "peer": trust("nodec", "trusted")},
            "uplink_add": {
                **done,
                **added,
                "address": "",
                "address6": "",
                "endpoint": "",
                "weight": 10,
                "created": True,
                "leased": True,
                "note": "",
            },
            "uplink_test": {
                "success": True,
                "peer_id": "nodec",
                "interface": "wgup_nodec",
                "target": "1.1.1.1",
                "reachable": True,
                "sent": 5,
                "received": 5,
                "latency_ms": 23.4,
                "loss_pct": 0,
                "handshake_age_s": 1,
                "exit_address": "",
                "error": "",
            },
            "uplink_use": {**done, "path": "nodea", "left_s": 600},
            "uplink_set_priority": {**done, "peer_id": "nodea", "weight": 11},
            "uplink_set_failover": {**done, "auto_failover": 0},
            "uplink_remove": {**done, "peer_id": "nodea"},
            "uplink_offer": {**done, "offer": own, "note": ""},
        }
    )


def failed_over() -> Service:
    """The WAN is down, nodea is in use."""
    service = calm()
    down = wan(state="down", latency_ms=-1, loss_pct=100)
    service.status.update(
        state="failed_over", active_path="wgup_nodea", since_s=42.0, wans=[down], primary=down,
        cause=because("of", "eth0", because("no_answer", 3, "1.4")),
    )  # fmt: skip
    state = family("wgup_nodea", "failed_over")
    service.status["families"] = {"ipv4": state, "ipv6": state}
    service.status["uplinks"][0]["active"] = True
    service.replies["uplink_history"] = {"events": outage()[2:]}
    return service


def stranded() -> Service:
    """Nothing answers."""
    service = failed_over()
    none = family("", "stranded")
    service.status.update(state="stranded", active_path="", families={"ipv4": none, "ipv6": none})
    dead = {"state": "down", "usable": False, "active": False, "latency_ms": -1, "loss_pct": 100}
    service.status["uplinks"][0].update(dead, reason=because("down", because("no_answer", 3, 2)))
    return service


def failover_off() -> Service:
    service = calm()
    service.status.update(auto_failover=0, state="disabled")
    return service


def by_hand() -> Service:
    """The owner chose nodea."""
    service = failed_over()
    service.status.update(
        cause="", wans=[wan()], primary=wan(), by_hand={"path": "nodea", "left_s": 480}
    )
    return service


def rollback() -> Service:
    """Settings that LuCI applied are not confirmed yet."""
    service = calm()
    service.rollback_s = 70
    return service


def first_run() -> Service:
    """No backup yet; nodec offers its internet."""
    service = calm()
    service.status.update(uplinks=[], uplink_count=0, active_count=0)
    service.replies["uplink_list"]["offers"] = [offer("nodec")]
    service.replies["uplink_trust"]["peers"] = [trust("nodec")]
    service.replies["uplink_history"]["events"] = []
    return service


def crowd() -> Service:
    """20 backups and 200 offers."""
    service = calm()
    service.status["uplinks"] = [uplink(f"up{i:02}", weight=40 - i) for i in range(20)]
    service.status["uplink_count"] = 20
    series = service.replies["uplink_series"]["paths"]
    series += [{**series[0], "path": f"wgup_up{i:02}"} for i in range(20)]
    names = [f"peer{i:03}" for i in range(200)]
    service.replies["uplink_list"]["offers"] = [
        offer(name, trusted=True, usable=True, reason="") if i > 197 else offer(name)
        for i, name in enumerate(names)
    ]
    service.replies["uplink_trust"]["peers"] = [trust(name) for name in names[:198]]
    return service


STATES = {
    made.__name__: made
    for made in (calm, failed_over, stranded, failover_off, by_hand, rollback, first_run, crowd)
}


def enter(service: Service) -> BrowserSession:
    """Browser sessions at a gateway to this service."""
    session = BrowserSession.to("/nonexistent", "/nonexistent")

    def asker(method: str) -> Any:
        def ask(_: Session, given: Table) -> Answer:
            return service.answer(method, given)

        return ask

    session.gateway.others[OBJECT] = {method: asker(method) for method in METHODS}
    return session
