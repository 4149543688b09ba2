"""The preflight: what is missing or wrong on this router, each with the command that mends it.

checks.py judges facts and touches nothing, reading.py collects them. It works without the service,
and changes nothing on the router.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence

from ...api.replies import FindingRow
from ...text import printable
from .checks import CHECKS, Facts, Finding, Level, examine
from .reading import Places, read_facts

__all__ = [
    "CHECKS",
    "Facts",
    "Finding",
    "Level",
    "Places",
    "examine",
    "read_facts",
    "report",
    "run",
]


NOT_ROOT = Finding(
    "user", Level.WRONG, "Only root can look at all of it.", "sudo wgctl uplink doctor"
)


def run(places: Places, *, as_json: bool = False) -> tuple[str, int]:
    """Examine this router; the text to print and the exit status: 1 where anything is wrong."""
    findings = [NOT_ROOT] if os.geteuid() else examine(asyncio.run(read_facts(places)))
    status = int(any(finding.level is Level.WRONG for finding in findings))
    if not as_json:
        return "\n".join(report(findings)) + "\n", status
    rows = [FindingRow.of(each, level=each.level.value).as_table() for each in findings]
    return json.dumps({"success": not status, "findings": rows}, indent=2) + "\n", status


def report(findings: Sequence[Finding]) -> Iterator[str]:
    """The lines for people, what is wrong first."""
    for level in Level:
        for finding in findings:
            if finding.level is level:
                yield f"{level.value}: {printable(finding.what)}"
                if finding.mend:
                    yield f"    {printable(finding.mend)}"
    if not any(finding.level is Level.WRONG for finding in findings):
        yield f"Nothing is wrong: {len(CHECKS)} checks."
