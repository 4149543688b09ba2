"""What all tests share: how a missing program is treated, and hypothesis without a clock.

`@pytest.mark.needs("nft", "wg")` skips a test by name where a program isn't there, and fails it
where CI=true, because there nobody reads skips. Programs that the README calls impossible to
install on a plain machine are skipped everywhere.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
from fnmatch import fnmatch

import pytest
from hypothesis import settings

from tests.lab.node import environment, refused

CASE = re.compile(r"(tests/namespace/test_public_cases\.py)::test_case_(\d+)")
CASES = {"03": "two WANs", "13": "two WANs", **dict.fromkeys(("04", "05", "06"), "VPN")}
CASES |= dict.fromkeys(("15", "16", "17", "18", "19", "20"), "mesh")
"""Public cases by what they run on, where that is not the plain router."""
SLEEPS = ("tests/namespace/", "tests/chaos/", "tests/browser/test_failover.py")
SLOWEST = ("tests/unit/failover/test_day", "tests/repo/", "tests/browser/", "tests/contract/")
"""What is begun first, so that no worker is left alone with it at the end."""
DEEP = {
    # What test_public_cases.py has once in short form.
    **dict.fromkeys(("evidence", "endpoints", "names", "sightings", "carrying", "forwarding"), "*"),
    **dict.fromkeys(("capacity", "brownout", "offer_refused", "exchange_troubles"), "*"),
    # Long ones, and relatives of what their file shows.
    "restart": "*a_restart_keeps*",  # killed and started again in time: crash
    "rules_peers": "*clock* *somebody_elses* *two_that_are*",
    # A second WAN and its death: cases 3 and 13. The next uplink: exchange.
    "rules_paths": "*tunnel[[]no* *each_others* *own_second_wan* *followed_by_the_next*"
    " *cannot_help*",
    "underlays": "*",  # anchors
    "anchors": "*[[]carrier* *fits* *usual_way* *killed*",
    "rules_pace": "*two_percent* *only_pings*",  # bursts; case 8
    # A killed service: crash.
    "steering": "*[[]* *watchdog* *late* *control_group* *busybox* *shell* *goes_on* *large*"
    " *restart_in_time* *process_group* *drained* *look_ups* *killed_service* *wg_quicks*"
    " *nothing_left*",
    "spread": "*two_providers* *[[]active*",
    "first_doubt": "*only_who* *backup_that_dies* *saturated* *false_doubts* *another_wan*",
    "dns": "*look_ups[[]6* *look_ups[[]4-True* *dnsmasq[[]ifdown* *dnsmasq[[]carrier* *bare*"
    " *does_not_carry* *rebinding[[]1[02]* *signatures*",
    "calls": "*check_interval* *failover_timeout*",
    "leaks": "*[[]open* *[[]carrier* *cannot_carry*",
    "mtu": "*another_line* *narrower* *whole_mtu*",
    "drill": "*comes_back* *dies_in* *without_internet* *dead_service* *failover_in_a* *costs*"
    " *supposed*",
    "devices": "*[[]no* *[[]nft* *start_in_an_outage*",  # a start in an outage: case 16
    "sticky": "*tunnel_that_dies* *without_the_option* *dies_again*",
    "captive": "*wrong_page*",
    "uninstall": "*removed_uplink*",
    "hooks": "*slow_hook* *outlive*",
    "provider": "*serves_renewals_only[[]changes1* *rate[[]up* *without_end*",
    "by_hand": "*wrong_span* *choice_that_dies*",
    # What all others stand on.
    "lab": "*maker_is_killed[[]15* *silent_drop* *loss_in_percent* *provider[[]wan* *variants*"
    " *upstream_death*",
    "exchange": "*a_place_is_good_again* *offers_again_after* *both_have_their_limit*"
    " *dead_line_is_not_offered* *firewall_that_drops*",
    "exchange_mqtt": "*[[]stop* *clock_went_back* *is_gone_at_once*",
    "hostile_cases": "*user_holds* *hanging* *races* *withdraws[[][1-9]* *lock_held*"
    " *fails[[]wg* *fails[[]nft* *fails[[]tc-[!f]* *not_content* *connections_open*"
    " *is_told[[][!r]*",
}
"""By file of tests/namespace, which tests only `make test-deep` runs."""
OPTIONAL = frozenset(
    {"ubusd", "ubus", "uci", "rpcd", "netifd", "mwan3", "uhttpd", "opkg", "groff", "setpriv"}
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip where a program is missing")
    config.addinivalue_line("markers", "deep: long, or a relative of a test that `make test` runs")
    is_short = "not deep" in config.getoption("markexpr")
    settings.register_profile(
        "ours", deadline=None, derandomize=in_ci(), max_examples=25 if is_short else 200
    )
    settings.load_profile("ours")
    gc.disable()  # nothing of what is collected is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only `make test-deep` runs: DEEP, and all but the first test of a public case."""
    seen: set[str] = set()
    for item in items:
        row = CASE.match(item.nodeid)
        is_relative = row is not None and row[0] in seen
        seen.update([row[0]] if row is not None else ())
        if is_relative or is_in_deep(item.nodeid):
            item.add_marker("deep")


def is_in_deep(nodeid: str) -> bool:
    file, _, name = nodeid.partition("::")
    patterns = DEEP.get(file.removeprefix("tests/namespace/test_").removesuffix(".py"), "")
    return any(fnmatch(name, pattern) for pattern in patterns.split())


def pytest_collection_finish() -> None:
    """What was collected stays to the end: a collection of garbage need not go through it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests go by file, whose fixtures they share. The last worker computes, the others have
    laboratories, which mostly sleep, as long as there is enough of either. What computes gives
    way to laboratories, which are timed, where root may say so (pytest_runtest_setup).

    By name, since xdist 3.8 can't hand the name of a mark's group on under pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByKind(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if case := CASE.match(nodeid):
                return f"{case[1]} {CASES.get(case[2], 'plain')}"
            return nodeid.partition("::")[0]

        def _assign_work_unit(self, node: object) -> None:
            computes = node is self.nodes[-1]
            best = min(
                self.workqueue,
                key=lambda scope: (
                    scope.startswith(SLEEPS) is computes,
                    not scope.startswith(SLOWEST),
                    -len(self.workqueue[scope]),
                ),
            )
            self.workqueue.move_to_end(best, last=False)
            super()._assign_work_unit(node)

    return ByKind(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failed test at once: a run that is ended from outside has no closing lines."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if report.outcome in ("failed", "rerun") and in_ci() and not is_worker:
        print(f"\n{report.nodeid}, {report.when}: {str(report.longrepr)[-300:]}", flush=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    is_timed = item.nodeid.startswith(SLEEPS)
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0 if is_timed else 5)
    path = environment()["PATH"]
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program, path=path) is None:
                if program in OPTIONAL:
                    pytest.skip(f"{program} is not on PATH")
                lacking(f"{program} is not on PATH; `make system` installs it")


def lacking(sentence: str) -> None:
    """Skip what this machine can't run; fail where nobody would read of it."""
    if in_ci():
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """No test with this where no namespaces can be made."""
    if reason := refused():
        lacking(reason)


def in_ci() -> bool:
    """Whether a skip would be read by nobody."""
    return os.environ.get("CI") == "true"
