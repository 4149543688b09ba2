"""Codes of the sentences that say why: for programs, and for pages in other languages.

At %s stands an argument, at ... another sentence. The code is then both, joined by a slash, and the
arguments are those of both: "it is down: no answer to 3 probes in 4.2 s" is down/no_answer with 3
and 4.2. An inner sentence without a code is the last argument; an outer one without has no code.
"""

from __future__ import annotations

import functools
import re

TEMPLATES = {
    "not_trusted": "%s is not trusted: ...",
    "not_seen": "%s was not seen on the mesh yet: ...",
    "not_confirmed": "%s is approved, but its mesh key is not confirmed: ...",
    "no_address": "the tunnel has no address of this family",
    "down": "it is down: ...",
    "never_answered": "nothing has answered through it yet",
    "needs_dead_wan": "it travels over the WAN that failed and does not answer now",
    "not_watched": "it is not watched yet",
    "service_disabled": "the service is disabled in its configuration",
    "uplink_disabled": "the uplink is disabled in its section",
    "failover_off": "automatic failover is off",
    "disabled": "disabled in the configuration",
    "no_answer": "no answer to %s probes in %s s",
    "probes_lost": "%s of %s probes lost",
    "targets_silent": "%s of %s targets do not answer: ...",
    "not_yet": "..., no answer yet",
    "nothing_else": "...; no other path answers",
    "nothing_answers": "neither %s nor any backup answers",
    "answers_for": "%s answers for %s s",
    "answers_again": "%s answers again",
    "answers_instead": "%s answers, %s does not",
    "lost_again": "the WAN was lost again: ...",
    "gone": "%s is gone",
    "no_wan_answers": "no WAN answers",
    "no_route": "there is no default route",
    "needs_wan": "This uplink travels over %s and can't help when that line is dead.",
    "same_wan": "%s leaves by the same WAN as this router, and is tried last.",
    "unusable": "%s can't be used now: ...",
    "rollback_pending": "settings that were applied in LuCI wait to be confirmed, and %s may be "
    "put back: confirm them, or try again in two minutes",
    "carrier_lost": "carrier lost",
    "chosen": "chosen by hand",
    "asked_for": "asked for",
    "few_uplinks": "min_uplinks",
    "well": "all went well",
    "of": "%s: ...",
}
# The longest plain part of each, which is looked for first: that is quicker by far.
_PATTERNS = {
    code: (
        max(re.split(r"%s|\.\.\.", template), key=len),
        re.compile(
            re.escape(template).replace("%s", "((?:(?!: ).)+?)").replace(r"\.\.\.", "(?P<inner>.+)")
        ),
    )
    for code, template in TEMPLATES.items()
}


@functools.lru_cache(maxsize=4096)
def code_of(sentence: str) -> tuple[str, tuple[str, ...]]:
    """The code and the arguments of a sentence; an empty code and none where it has no code."""
    for code, (part, pattern) in _PATTERNS.items():
        found = pattern.fullmatch(sentence) if part in sentence else None
        if found is None:
            continue
        if "inner" not in pattern.groupindex:
            return code, found.groups()
        given = found.groups()[:-1]
        inner, arguments = code_of(found["inner"])
        if inner:
            return f"{code}/{inner}", (*given, *arguments)
        if code != "of":  # anything may have a colon in it
            return code, found.groups()
    return "", ()
