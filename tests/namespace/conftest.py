"""Fixtures of the tests in namespaces: laboratories."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.network import ConsumerNetwork, consumer_network
from tests.lab.pool import RouterPool, T
from tests.lab.router import Router, settings

FAILED = pytest.StashKey[bool]()
"""Of a test that has run: whether it failed, as expected or not."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when == "call":
        item.stash[FAILED] = call.excinfo is not None
    return (yield)


@pytest.fixture
def lab(namespaces: None) -> Iterator[Lab]:
    """An empty laboratory, closed at the end of the test."""
    with Lab() as made:
        yield made


@pytest.fixture
def network(lab: Lab) -> ConsumerNetwork:
    """A consumer with one WAN, one provider and a neighbour link between them."""
    return consumer_network(lab)


@pytest.fixture(scope="module")
def pool(namespaces: None) -> Iterator[RouterPool]:
    """The routers that a file's tests share; one that is kept goes on probing."""
    with RouterPool() as made:
        yield made


def lent(build: Callable[[Lab], T]) -> Callable[..., Iterator[T]]:
    """A fixture that lends what `build` makes; it is not lent again after a test that failed, nor
    put in order where no later test of the file asks for it.
    """

    @pytest.fixture
    def fixture(pool: RouterPool, request: pytest.FixtureRequest) -> Iterator[T]:
        with pool.use(build) as made:
            yield made
            is_last = not is_wanted_after(request.node, request.fixturename or "")
            if request.node.stash.get(FAILED, True) or is_last:
                pool.spoil()

    return fixture


def is_wanted_after(item: pytest.Item, fixture: str) -> bool:
    """Whether a later test of this file, of those that are run, has the fixture."""
    items = item.session.items
    later = (other for other in items[items.index(item) + 1 :] if other.path == item.path)
    return any(fixture in getattr(other, "fixturenames", ()) for other in later)


def plain(lab: Lab) -> Router:
    """One WAN, one uplink, the fast pace; traffic goes back as soon as the WAN answers."""
    return Router.started(lab, settings(hold_time=0))


router = lent(plain)
