"""Fixtures of the tests in namespaces: a laboratory each, or a skip that says why there is none.

All tests here measure times, so xdist runs them one after the other in one worker.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.network import ConsumerNetwork, consumer_network
from tests.lab.node import refused

FOLDER = Path(__file__).parent
FAILED = pytest.StashKey[bool]()
"""Of a test that has run: whether it failed, as expected or not."""


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.parent == FOLDER:
        item.add_marker(pytest.mark.xdist_group("timed"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when == "call":
        item.stash[FAILED] = call.excinfo is not None
    return (yield)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no namespaces can be made here; fails where CI=true."""
    reason = refused()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def lab(namespaces: None) -> Iterator[Lab]:
    """An empty laboratory, closed at the end of the test."""
    with Lab() as made:
        yield made


@pytest.fixture
def network(lab: Lab) -> ConsumerNetwork:
    """A consumer with one WAN, one provider and a neighbour link between them."""
    return consumer_network(lab)
