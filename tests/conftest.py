"""What all tests share: how a missing program is treated, and hypothesis without a clock.

`@pytest.mark.needs("nft", "wg")` skips a test by name where a program isn't there, and fails it
where CI=true, because there nobody reads skips. Programs that the README calls impossible to
install on a plain machine are skipped everywhere.
"""

from __future__ import annotations

import os
import re
import shutil
from fnmatch import fnmatch

import pytest
from hypothesis import settings

from tests.lab.node import environment

ONE_BY_ONE = tuple(
    f"tests/namespace/test_{name}.py"
    for name in (
        *("main_job", "rules_pace", "rules_paths", "crash", "devices", "capacity", "brownout"),
        *("sticky", "leaks", "drill", "mtu", "dns", "beside_mwan3"),
    )
)
BY_ROW = re.compile(r"tests/namespace/test_public_cases\.py::test_case_\d+")
"""The rows of reports share scenes among themselves only."""
DEEP = (
    # What test_public_cases.py has once in short form.
    *(
        f"tests/namespace/test_{name}.py*"
        for name in ("evidence", "endpoints", "names", "sightings", "carrying", "forwarding")
    ),
    *(f"tests/namespace/test_{name}.py*" for name in ("capacity", "brownout", "offer_refused")),
    "tests/namespace/test_exchange_troubles.py*",
    "tests/namespace/test_restart.py*after*",
    "tests/namespace/test_rules_peers.py*clock*",
    "tests/namespace/test_rules_peers.py*somebody_elses*",
    "tests/namespace/test_crash.py*kill_in_mid_add*",
    "tests/namespace/test_steering.py*[[]*",
    *(
        f"tests/namespace/test_steering.py*{name}*"
        for name in ("watchdog", "late", "control_group", "busybox", "shell", "goes_on", "large")
    ),
    "tests/unit/failover/test_days.py*[[][1-9]*",
)
BY_FILE = ("tests/namespace/", "tests/browser/", "tests/contract/test_dashboard.py")
OPTIONAL = frozenset({"ubusd", "ubus", "uci", "rpcd", "netifd", "mwan3", "uhttpd"})


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip where a program is missing")
    config.addinivalue_line("markers", "deep: long, or a relative of a test that `make test` runs")
    settings.register_profile("local", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True)
    settings.load_profile("ci" if in_ci() else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only `make test-deep` runs: DEEP, and all but the first test of a public case."""
    seen: set[str] = set()
    for item in items:
        row = BY_ROW.match(item.nodeid)
        is_relative = row is not None and row[0] in seen
        seen.update([row[0]] if row is not None else ())
        if is_relative or any(fnmatch(item.nodeid, pattern) for pattern in DEEP):
            item.add_marker("deep")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Laboratories that measure times go one by one, in one worker; others and browsers share
    fixtures in a file, public cases in a row.

    By name, since xdist 3.8 can't hand the name of a mark's group on under pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByName(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(ONE_BY_ONE):
                return "one by one"
            if row := BY_ROW.match(nodeid):
                return row[0]
            if nodeid.startswith(BY_FILE):
                return nodeid.partition("::")[0]
            return super()._split_scope(nodeid)

    return ByName(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    path = environment()["PATH"]
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program, path=path) is None:
                sentence = f"{program} is not on PATH"
                if in_ci() and program not in OPTIONAL:
                    pytest.fail(f"{sentence}; `make system` installs it", pytrace=False)
                pytest.skip(sentence)


def in_ci() -> bool:
    """Whether a skip would be read by nobody."""
    return os.environ.get("CI") == "true"
