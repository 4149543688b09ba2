"""The shapes of explaining, supposing and rehearsing in the method table, beside schemas.py."""

from __future__ import annotations

from ..schema import shapes as s

FAMILY_NAME = s.text("the address family", enum=["ipv4", "ipv6"])
TOLD = s.text("the same for people")
CANDIDATE = s.table(
    {
        "place": s.whole("1 for the first in the order of preference", 1),
        "path": s.text("its network device"),
        "name": s.text("the peer's id, or the line's name"),
        "kind": s.text("wan: a line of the router's own; uplink", enum=["wan", "uplink"]),
        "usable": s.flag("whether traffic could be moved to it now"),
        "reason": s.text('why it is not usable; else ""'),
        "active": s.ACTIVE,
        "health": s.text("what the probes say", enum=["unknown", "up", "suspect", "down"]),
        "shared_fate": s.SHARED_FATE,
        "metric": s.whole("of a line: lower comes first; 0 for an uplink"),
        "weight": s.whole("of an uplink: higher comes first; 0 for a line", 0, 100),
        "tier": s.text("what it costs", enum=["free", "metered", "unknown", "nearly spent"]),
        "price_per_gb": s.number("what a GB costs, as the mesh counts; 0 for nothing"),
        "quota_left_gb": s.number("GB left of its quota; -1 without a quota", -1),
        "latency_ms": s.LATENCY,
        "loss_pct": s.LOSS,
        "advertised_mbps": s.whole("Mbit/s as offered or granted; 0 if not said"),
        "measured_mbps": s.whole("Mbit/s that it gave when more was wanted; 0 if not known"),
        "expected_mbps": s.whole("Mbit/s that the score is made with"),
        "score_ms": s.number("ms that a page would take through it; less is better"),
        "last_answer_s": s.number("seconds since a probe was last answered; -1 if never", -1),
        "sentence": s.text("why it stands where it does, or can't be used"),
    }
)
EXPLAIN_REPLY = s.table(
    {
        "families": s.rows(
            "one for each address family",
            s.table(
                {
                    "family": FAMILY_NAME,
                    "state": s.STATE,
                    "active_path": s.ACTIVE_PATH,
                    "primary": s.text('device of the line that is backed up; "" if none'),
                    "cause": s.text('why it is in this state; else ""'),
                    "sentence": TOLD,
                    "candidates": s.rows("all backups in the order of preference", CANDIDATE),
                }
            ),
        ),
        "others": s.rows(
            "peers that are no candidates",
            s.table(
                {
                    "peer_id": s.PEER,
                    "configured": s.flag("whether there is an uplink to it"),
                    "reason": s.text("why it is no candidate"),
                }
            ),
        ),
    },
    more=True,
)
FAIL = {
    **s.rows(
        "the paths to suppose dead: devices, names of lines, or peer ids",
        s.text("a path", maxLength=64),
        64,
    ),
    "minItems": 1,
    "x-must": "have from 1 to 64 entries",
    "x-secret": True,  # too long to be quoted
}
SIMULATE_REPLY = s.table(
    {
        "fail": s.rows("the devices supposed dead", s.text("a device")),
        "families": s.rows(
            "one for each address family",
            s.table(
                {
                    "family": FAMILY_NAME,
                    "state": s.STATE,
                    "active_path": s.ACTIVE_PATH,
                    "cause": s.text('why; else ""'),
                    "moves": s.flag("whether traffic would take another path than now"),
                    "next_path": s.text('what would follow if that died too; "" if nothing'),
                    "sentence": TOLD,
                }
            ),
        ),
    },
    more=True,
)
DRILL_ARGUMENTS = {
    "peer_id": {**s.PEER_ID, "description": "the peer to rehearse with; all if left out"},
    "all_traffic": s.flag(
        "1 to lead the traffic of everybody through one uplink and back, which cuts connections"
    )
    | {"x-words": {"yes": True, "no": False}},
    "seconds": s.whole("for how long with all_traffic; 10 if left out", 1, 60),
}
DRILL_REPLY = s.table(
    {
        "success": s.SUCCESS,
        "message": s.MESSAGE,
        "at": s.text("when it ended, ISO 8601 in UTC"),
        "took_s": s.number("seconds that it took"),
        "drills": s.rows(
            "one for each uplink",
            s.table(
                {
                    "peer_id": s.PEER,
                    "interface": s.INTERFACE,
                    "ok": s.flag("whether all went well"),
                    "note": s.text('what did not; else ""'),
                    "steps": s.rows(
                        "what was tried",
                        s.table(
                            {
                                "step": s.text(
                                    "tunnel, ipv4, ipv6, dns, mtu, exit (the address that the "
                                    "internet sees) or traffic"
                                ),
                                "ok": s.flag("whether it went well"),
                                "told": s.text("what was found"),
                                "took_ms": s.whole("ms that it took"),
                            }
                        ),
                    ),
                }
            ),
        ),
    },
    more=True,
)
