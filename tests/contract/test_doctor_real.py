"""Every command that the preflight prints, run as it is printed, on a router with the real `uci`.

What would need the internet, a person or a daemon is played by programs that take their arguments
and do nothing. A complaint about the configuration is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rpcd_wireguard_uplink.cli.doctor import Facts, examine
from tests.lab.lab import Lab
from tests.unit.cli.test_doctor import CASES, healthy, sections

from .router import Router, missing

pytestmark = [
    pytest.mark.needs("uci"),
    pytest.mark.skipif(bool(missing()), reason=f"not on PATH: {', '.join(missing())}"),
]

SCRIPTS = ("network", "firewall", "mwan3", "wireguard-uplink")
PROGRAMS = ("opkg", "mount", "ntpd", "vi", "sysctl", "ufw", "firewall-cmd")
PLAYED = [f"/etc/init.d/{name}" for name in SCRIPTS] + [f"/usr/bin/{name}" for name in PROGRAMS]
FILES = ("network", "firewall", "mwan3", "wireguard-uplink")
CURED = ("mwan3", "firewall", "offloading", "keys")


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with Lab() as lab:
        made = Router(lab)
        for path in PLAYED:
            made.run("rm", "-f", path)
            made.write(path, '#!/bin/sh\n[ $# -gt 0 ] && echo "${0##*/} $*"\n', mode=0o755)
        made.run("mkdir", "/k")
        yield made


def write_down(router: Router, facts: Facts) -> None:
    """Put the facts' configurations on the router."""
    for name in FILES:
        rows = []
        for section in facts.configs.get(name, ()):
            rows.append(f"config {section.type}" + (f" '{section.name}'" * (not section.anonymous)))
            for option, value in section.options.items():
                values = [value] if isinstance(value, str) else value
                kind = "option" if isinstance(value, str) else "list"
                rows += [f"\t{kind} {option} '{each}'" for each in values]
        router.write(f"/etc/config/{name}", "\n".join([*rows, ""]))
    router.write("/k/a.key", "")


@pytest.mark.parametrize("changed", [c[0] for c in CASES], ids=[f"{c[1]}-{c[3]}" for c in CASES])
def test_it_works_as_printed(router: Router, changed: dict[str, Any]) -> None:
    facts = healthy(**changed)
    write_down(router, facts)
    complaints = examine(facts)
    for finding in complaints:
        if finding.mend:
            router.run("sh", "-e", "-c", finding.mend)
    cured = [finding for finding in complaints if finding.mend and finding.check in CURED]
    after = {name: sections(router.read(f"/etc/config/{name}")) for name in FILES}
    exposed = tuple(path for path in facts.exposed if router.mode(path) & 0o077)
    left = examine(replace(facts, configs=after, exposed=exposed))
    assert not {finding.what for finding in left} & {finding.what for finding in cured}
