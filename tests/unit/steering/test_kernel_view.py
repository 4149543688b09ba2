"""The view of the kernel: read anew where something was said to have changed, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.model import Family
from rpcd_wireguard_uplink.steering.kernel_view import KernelView, is_our_table
from rpcd_wireguard_uplink.steering.plan import DIVERTED_TABLE, DIVERTING, STANDING
from rpcd_wireguard_uplink.system.netlink import Message
from rpcd_wireguard_uplink.system.rtnetlink import (
    DELLINK,
    DELRULE,
    MAIN,
    NEWADDR,
    Device,
    Hop,
    Route,
    Rule,
    add_route,
    add_rule,
)
from tests.unit.fakes import RoutingTables

V4, V6 = Family.IPV4, Family.IPV6
ROUTE, RULE = Route(V6, MAIN, "", (Hop(2),)), Rule(V4, 9, 7)


@dataclass
class Asked(RoutingTables):
    """A kernel that notes what it is asked, and says `news`."""

    asked: list[str] = field(default_factory=list)
    news: tuple[list[Message], bool] = ([], False)

    def devices(self) -> list[Device]:
        self.asked.append("devices")
        return super().devices()

    def routes(self, family: Family) -> list[Route]:
        self.asked.append(f"routes {family.version}")
        return super().routes(family)

    def rules(self, family: Family) -> list[Rule]:
        self.asked.append(f"rules {family.version}")
        return super().rules(family)

    def listen(self, on_news: Callable[[], None]) -> Asked:  # type: ignore[override]
        return self

    def read(self) -> tuple[list[Message], bool]:
        found, self.news = self.news, ([], False)
        return found

    def close(self) -> None: ...


EVERYTHING = {"devices", "routes 4", "routes 6", "rules 4", "rules 6"}


@pytest.fixture
def kernel() -> Asked:
    return Asked()


@pytest.fixture
def view(kernel: Asked) -> KernelView:
    view = KernelView(kernel)
    view.listen(lambda: None)
    view.read()
    assert set(kernel.asked) == EVERYTHING
    kernel.asked.clear()
    return view


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (add_route(ROUTE), ["routes 6"]),
        (add_rule(RULE), ["rules 4"]),
        (Message(DELRULE, add_rule(RULE).body), ["rules 4"]),
        (Message(DELLINK, bytes(16)), ["devices", "routes 4", "routes 6"]),
        (Message(NEWADDR, bytes(8)), ["routes 4", "routes 6"]),
        (Message(24, b"cut"), []),
    ],
)
def test_only_what_changed_is_read(
    view: KernelView, kernel: Asked, message: Message, asked: list[str]
) -> None:
    kernel.news = ([message], False)
    assert view.take_news() is bool(asked)
    view.read()
    assert kernel.asked == asked
    assert view.take_news() is False
    view.read()
    assert kernel.asked == asked


def test_what_was_lost_may_have_been_anything(view: KernelView, kernel: Asked) -> None:
    kernel.news = ([], True)
    assert view.take_news()
    view.read()
    assert set(kernel.asked) == EVERYTHING


def test_without_news_everything_is_read_each_time(mocker: MockerFixture) -> None:
    kernel = Asked()
    mocker.patch.object(kernel, "listen", return_value=None)
    view = KernelView(kernel)
    view.listen(lambda: None)
    for _ in range(2):
        kernel.asked.clear()
        assert view.take_news()
        view.read()
        assert set(kernel.asked) == EVERYTHING


def test_our_own_changes_are_read_back(view: KernelView, kernel: Asked) -> None:
    view.expect_changes(V4)
    view.read()
    assert sorted(kernel.asked) == ["routes 4", "rules 4"]


def test_routes_of_others_in_our_tables_are_not_ours(view: KernelView, kernel: Asked) -> None:
    """An owner may use a number of ours: what he put there stays."""
    ours = replace(ROUTE, table=DIVERTED_TABLE, protocol=STANDING)
    foreign = replace(ours, protocol=4, metric=3)
    elsewhere = replace(ours, table=77)
    kernel.found_routes[V6] = [ROUTE, ours, foreign, elsewhere]
    view.forget()
    view.read()
    assert view.main[V6] == [ROUTE]
    assert view.ours[V6] == [ours]
    assert view.others[V6] == [foreign, elsewhere]


def test_our_tables() -> None:
    found: Callable[[int], bool] = is_our_table
    assert [found(n) for n in (5178, 5179, 5182, 5202, 5263, 5264)] == [False, *[True] * 4, False]
    assert {STANDING, DIVERTING} == {151, 152}
