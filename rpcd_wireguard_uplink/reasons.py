"""Reasons: sentences that say why, with codes for programs and for pages in other languages.

A reason is made where the fact is known, of a template: at %s stands an argument, at ... another
sentence, and what is in {} is for the command line alone, since pages have buttons. Where the other
sentence is a reason too, the code is both, joined by a slash, and the arguments are those of both:
"it is down: no answer to 3 probes in 4.2 s" is down/no_answer with 3 and 4.2. The pages get the
templates by `uplink_texts` and translate them (po/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

TEMPLATES = {
    "not_trusted": "%s is not trusted{: ...}",
    "not_approved": "%s is not trusted: master-link's record of it (%s) is %s; approve it there "
    "first",
    "unapproved": "%s is not trusted: master-link has not approved it; approve it there first",
    "not_confirmed": "%s is approved, but its mesh key is not confirmed{: ...}",
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
    "was_doubted": "%s was silent for a moment: new connections left by a backup for %s s",
    "was_doubted_often": "%s was silent for a moment %s times in %s minutes: new connections left "
    "by a backup for %s s in all",
    "weight_set": "its weight is %s now",
    "own_wan_answers": "%s, a WAN of the router's own, answers for %s s",
    "cheaper_answers": "%s costs less, and answers for %s s",
    "answers_again": "%s answers again",
    "answers_instead": "%s answers, %s does not",
    "lost_again": "the WAN was lost again: ...",
    "gone": "%s is gone",
    "device_gone": "its device is gone",
    "route_gone": "its default route is gone",
    "no_wan_answers": "no WAN answers",
    "no_route": "there is no default route",
    "needs_wan": "This uplink travels over %s and can't help when that line is dead.",
    "same_wan": "%s leaves by the same WAN as this router, and is tried last.",
    "rollback_pending": "settings that were applied in LuCI wait to be confirmed, and %s may be "
    "put back: confirm them, or try again in two minutes",
    "carrier_lost": "the cable or the connection is gone",
    "chosen": "chosen by hand",
    "asked_for": "asked for",
    "few_uplinks": "too few backups were ready",
    "well": "all went well",
    "not_added": "it is not a backup yet{: `wgctl uplink add %s` makes one}",
    "declined": "you removed it{: `wgctl uplink add %s` brings it back}",
    "no_wan": "%s has no WAN here.",
    "nowhere": "%s goes nowhere: ....",
    "leaves": "%s leaves by %s; %s would be next.",
    "leaves_last": "%s leaves by %s; nothing else could take over now.",
    "would_go": "%s would go to %s; %s would be next.",
    "would_go_last": "%s would go to %s; nothing would be left behind it.",
    "assumed": "assumed to fail",
    "first": "%s comes first.",
    "after": "%s comes after %s: ....",
    "unusable": "%s can't be used: ....",
    "own_wan": "a WAN of the router's own comes before any peer's",
    "needs_that_wan": "it needs the very WAN that it should replace",
    "metric": "its metric is %s, not %s",
    "metered": "it is metered, and the other is free",
    "cost_unknown": "nobody has said what it costs",
    "nearly_spent": "its quota is nearly spent",
    "weight": "its weight is %s, not %s",
    "price": "a GB costs %s there, not %s",
    "slower": "a page would take %s ms through it, %s ms through the other",
    "kept": "the other is in use and stays until another is a fifth better",
    "alike": "both are alike, and the order of names decides",
    "of": "%s: ...",
}


_BRACES = dict.fromkeys(map(ord, "{}"))


def page_texts() -> dict[str, str]:
    """By code, what pages show: %s for another sentence too, and nothing for the command line."""
    return {c: re.sub(r"\{[^}]*\}", "", t).replace("...", "%s") for c, t in TEMPLATES.items()}


class Reason(str):
    """A sentence with its code ('' for none) and what it is filled with; str() keeps them."""

    __slots__ = ("arguments", "code")
    code: str
    arguments: tuple[str, ...]

    def __new__(cls, text: str, code: str = "", arguments: tuple[str, ...] = ()) -> Self:
        reason = super().__new__(cls, text)
        reason.code, reason.arguments = code, arguments
        return reason

    def __str__(self) -> Self:
        return self


def because(code: str, *given: object) -> Reason:
    """The sentence of that code, filled with what is given; another sentence comes last."""
    template, words = TEMPLATES[code].translate(_BRACES), tuple(map(str, given))
    text = template.replace("...", "%s") % words
    if "..." not in template:
        return Reason(text, code, words)
    inner, arguments = code_of(words[-1])
    if inner:
        return Reason(text, f"{code}/{inner}", (*words[:-1], *arguments))
    return Reason(text) if code == "of" else Reason(text, code, words)


def joined(separator: str, sentences: Iterable[str]) -> str:
    """All sentences as one text; where there is but one, it stays the reason that it is."""
    told = tuple(sentences)
    return told[0] if len(told) == 1 else separator.join(told)


def code_of(sentence: str) -> tuple[str, tuple[str, ...]]:
    """The code and the arguments of a sentence; an empty code and none where it is no reason."""
    if isinstance(sentence, Reason):
        return sentence.code, sentence.arguments
    return "", ()
